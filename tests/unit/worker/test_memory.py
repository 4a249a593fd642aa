"""The kernel's counter of memory kills is found in both kinds of cgroup, in a container and outside."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from services.worker.memory import OomCounter, used_bytes

if TYPE_CHECKING:
    from pathlib import Path

V1 = "9:name=systemd:/\n4:memory:/pods/a\n0::/\n"
V2 = "0::/pods/a\n"


@pytest.mark.parametrize(
    ("own", "file", "text"),
    [
        (V1, "memory/pods/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
        (V1, "memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
        (V2, "pods/a/memory.events", "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\noom_group_kill 0\n"),
        (V2, "memory.events", "low 0\nhigh 0\nmax 9\noom 4\noom_kill 3\n"),
        (V2, "unified/pods/a/memory.events", "oom 4\noom_kill 3\n"),
    ],
)
def test_the_counter_is_found_and_read_again(tmp_path: Path, own: str, file: str, text: str) -> None:
    (tmp_path / "own").write_text(own)
    counter = tmp_path / "cgroup" / file
    counter.parent.mkdir(parents=True)
    counter.write_text(text)
    oom = OomCounter(tmp_path / "cgroup", tmp_path / "own")
    assert oom.read() == 3
    counter.write_text(text.replace("oom_kill 3", "oom_kill 4"))
    assert oom.read() == 4


def test_where_there_is_no_counter_nothing_is_known(tmp_path: Path) -> None:
    assert OomCounter(tmp_path, tmp_path / "nothing").read() == 0


def test_the_memory_of_a_process_that_is_gone_is_nothing() -> None:
    assert used_bytes(os.getpid()) > 1024 * 1024
    assert used_bytes(2**22 - 1) == 0
