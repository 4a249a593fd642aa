"""Processes that hold secrets are closed to others of their user; those that hold none stay as they were."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from services.dev.fleet import Fleet
from services.dev.guardian import argument
from services.worker.forks import ForkServer
from services.worker.mark import Mark
from tests.kid import ROOT, Kid
from tests.signals import until
from tests.users import UID, as_user, open_to_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

NOWHERE = {
    "DATABASE_URL": "postgresql://x@127.0.0.1:1/x",
    "SECRET_KEY": "s" * 40,
    "TASKFLOW_REDIS": "off",
    "TASKFLOW_API_PORT": "0",
    "PYTHONPATH": str(ROOT),
}
MARKED = "import sys; from services.dev.guardian import marked; print([one.pid for one in marked(sys.argv[1])])"
CLOSED = "import ctypes\nctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\n"


@contextmanager
def service(name: str, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """A process of ours as another user, with stores that never answer."""
    with subprocess.Popen(
        [*as_user(), sys.executable, "-u", "-m", f"services.{name}.main", *arguments],
        env={"PATH": os.environ["PATH"], **NOWHERE, **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def owner(process: subprocess.Popen[str]) -> int:
    """Whose the files of a process in /proc are: root's once it is closed."""
    assert process.poll() is None, process.stdout.read() if process.stdout else ""
    return Path(f"/proc/{process.pid}/environ").stat().st_uid


def test_a_service_is_closed_unless_the_setting_says_otherwise() -> None:
    with ExitStack() as stack:
        closed = stack.enter_context(service("scheduler", argument("mine")))
        opened = stack.enter_context(service("scheduler", TASKFLOW_PROCESS_PROTECTION="off"))
        until(lambda: owner(closed) == 0, within=60)
        assert opened.stdout is not None
        assert any('"ready"' in line for line in opened.stdout)
        assert owner(opened) == UID
        # The guardian of `taskflow dev` finds it all the same.
        command = [*as_user(), sys.executable, "-c", MARKED, "mine"]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert found == f"[{closed.pid}]\n"


def test_only_the_api_of_a_fleet_has_the_key_that_signs_tokens(tmp_path: Path) -> None:
    admin = {"TASKFLOW_ADMIN_PASSWORD": "secret", "TASKFLOW_PROCESS_PROTECTION": "off"}
    with Fleet(tmp_path, {**NOWHERE, **admin}) as fleet:
        members = [fleet.api(), fleet.scheduler(), fleet.worker("tests.handlers")]
        environments = {one.role: Path(f"/proc/{one.pid}/environ").read_text() for one in members}
    assert {role for role, text in environments.items() if "SECRET_KEY=" in text} == {"api"}
    assert {role for role, text in environments.items() if "DATABASE_URL=" in text} == {"api", "scheduler", "worker"}
    assert not [text for text in environments.values() if "TASKFLOW_ADMIN_PASSWORD=" in text]


def test_a_child_that_may_not_write_its_own_files_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As in a fork server that is closed itself: its children could not tell the kernel that they go first."""
    open_to_all(tmp_path)
    (tmp_path / "sitecustomize.py").write_text(CLOSED)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {" ".join(as_user())} {sys.executable} "$@"\n')
    python.chmod(0o755)
    server = ForkServer(str(python), {"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}:{ROOT}"})
    try:
        with Kid(server=server) as kid:
            kid.ready()
            assert Path(f"/proc/{kid.pid}/environ").stat().st_uid == 0
    finally:
        server.close()
    assert "cannot write /proc/self/oom_score_adj (Permission denied)" in capfd.readouterr().err


def test_what_a_child_notes_has_no_name_and_one_size() -> None:
    mark = Mark()
    note = mark.open()
    assert Path(f"/proc/self/fd/{note}").readlink().name.startswith("memfd:taskflow-started")
    try:
        os.ftruncate(note, 0)
    except PermissionError:
        pass
    else:
        raise AssertionError("a child can make it shorter")
    assert mark.take().asyncs == 0
