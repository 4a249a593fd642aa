"""Ctrl-C may come between any two steps: nothing is left half done by it, and nothing waits for ever because of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from services.dev import fleet as fleets
from services.dev import main as dev

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def stopping() -> Iterator[dev.Stopping]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield dev.Stopping()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_nothing_until_it_is_looked_for(stopping: dev.Stopping, number: signal.Signals) -> None:
    stopping.look()
    for _ in range(2):  # somebody impatient
        os.kill(os.getpid(), number)
    with pytest.raises(dev._Stop):
        stopping.look()


def test_one_whose_end_nobody_can_know_any_more_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    member = fleets.Member("api", "api", {}, tmp_path / "log", process)
    lock = process._waitpid_lock  # type: ignore[attr-defined]  # what an exception within poll() leaves behind
    with lock, monkeypatch.context() as hurried:
        hurried.setattr(fleets, "_REAP_SECONDS", 0.1)
        member.signal(signal.SIGKILL)
        member.reap()
        assert member.alive()
    member.reap()
    assert process.returncode == -signal.SIGKILL
