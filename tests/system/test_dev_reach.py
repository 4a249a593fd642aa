"""What a task of `taskflow dev` reaches: the passwords of its processes at most as root, the files always."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
from typing import TYPE_CHECKING

import pytest

from tests import reaching
from tests.system.test_dev import Dev, running
from tests.users import IS_ROOT, Root, as_user, open_to_all

if TYPE_CHECKING:
    from pathlib import Path

FULL = os.environ.get("TASKFLOW_TEST_FAULTS") == "full"
KEY = "a-key-that-signs-tokens-and-is-long-enough"
SECRETS = ("environ", "password in memory")
PLACES = {reaching.AS_ROOT: Root.ALL, reaching.AS_USER: Root.NO}


def found_in(dev: Dev) -> dict[str, dict[str, str]]:
    """What a task finds that looks for another one's payload and for SECRET_KEY."""
    canary, finished = secrets.token_hex(16), dev.folder / "finished"
    hold = {"canary": canary, "until": str(finished)}
    others = {"dev": dev.process.pid, **{name: dev.pid(name) for name in ("api", "scheduler")}}
    look = {"payload": canary[::-1], "password": KEY[::-1], "others": others, "finished": str(finished)}
    submit = f"reach.hold.submit(**{hold!r}); found = reach.reach.submit(**{look!r}).result(timeout=60)"
    answers: dict[str, dict[str, str]] = json.loads(
        dev.python(f"import json, reach; {submit}; print(json.dumps(found))")
    )
    return answers


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not FULL, reason="full size only: make test-faults")
@pytest.mark.parametrize("column", PLACES)
def test_a_task_under_dev_reaches_what_security_md_says(
    column: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if PLACES[column] is Root.ALL and not IS_ROOT:
        pytest.skip("only root can show what root reaches")
    open_to_all(tmp_path)
    shutil.copy(reaching.INSIDE / "reach.py", tmp_path)
    nobody = pwd.getpwnam("nobody").pw_uid  # PostgreSQL wants a user with a name
    if IS_ROOT and PLACES[column] is Root.NO:
        shutil.chown(tmp_path, nobody)
    under = as_user(PLACES[column], uid=nobody)
    settings = {"SECRET_KEY": KEY, "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    with running(tmp_path, children=2, under=under, **settings) as dev:
        answers = found_in(dev)
        stores = (tmp_path / ".taskflow" / "stores.json").stat()
    assert reaching.cells(answers) == reaching.column(column)
    for name in ("supervisor", "scheduler"):
        assert reaching.FOUND not in {answers[name][what] for what in SECRETS}, f"{name} has SECRET_KEY"
    expected = reaching.FOUND if PLACES[column] is Root.ALL else "refused"
    for name in ("dev", "api"):
        assert {answers[name][what] for what in SECRETS} == {expected}, name
    assert stores.st_uid == (nobody if under and PLACES[column] is Root.NO else os.geteuid()), "dev is no boundary"
    with capsys.disabled():
        print(f"\n{reaching.as_markdown({f'taskflow dev, {column}': answers})}")
        print({name: answers[name] for name in ("dev", "api", "scheduler")})
