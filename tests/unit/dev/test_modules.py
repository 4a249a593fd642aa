"""Which modules `taskflow dev` takes, and when it sees a change."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from services.dev import modules

if TYPE_CHECKING:
    from pathlib import Path

TASKS = "from taskflow_queue import task\n@task\ndef f(): ...\n"


def test_files_that_make_tasks_are_taken_and_nothing_is_imported(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TASKS + "raise SystemExit")
    (tmp_path / "more.py").write_text("import taskflow_queue as tq\n\n@tq.task(queue='a')\nasync def f(): ...\n")
    (tmp_path / "client.py").write_text("from taskflow_queue import Client\n")
    (tmp_path / "celery_one.py").write_text("@app.task\ndef f(): ...\n")
    (tmp_path / "not-a-module.py").write_text(TASKS)
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    assert modules.found_in(tmp_path) == ["more", "tasks", "examples.hello", "examples.wordcount"]


def test_examples_of_the_users_own_hide_ours(tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    assert modules.found_in(tmp_path) == []


def test_a_change_is_seen_in_modules_and_beside_them(tmp_path: Path) -> None:
    package = tmp_path / "app" / "jobs"
    package.mkdir(parents=True)
    files = [tmp_path / "helper.py", tmp_path / "app" / "__init__.py", package / "mail.py", tmp_path / "deep.py"]
    for file in files:
        file.write_text("")
    files[2].write_text("def f():\n    from helper import x\n")
    files[0].write_text("import deep, os\nimport helper\n")
    (tmp_path / "client.py").write_text("import app.jobs.mail")
    hidden = tmp_path / "app" / "__pycache__"
    hidden.mkdir()
    (hidden / "x.py").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.py").write_text("")
    before = modules.stamps(["app.jobs.mail"], tmp_path)
    assert set(before) == set(files)
    os.utime(files[2], ns=(1, 1))
    assert modules.stamps(["app.jobs.mail"], tmp_path) != before
