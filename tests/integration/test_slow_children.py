"""Children that do not become ready, or do not leave: told of, and ended."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from services.worker import child as one_child
from services.worker import children as all_children
from services.worker.allowance import Allowance
from services.worker.child import Child, ChildSettings
from services.worker.children import Children
from services.worker.warden import Warden
from taskflow_queue import protocol as wire
from tests.kid import ROOT, adopting, fork_server
from tests.lookout import happens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from services.worker.holding import Job


class Heard:
    """What a supervisor would be told."""

    def __init__(self, children: Children) -> None:
        self.children = children
        self.deaths: list[Child] = []

    def sent(self, jobs: list[Job]) -> None: ...

    def heard(self, child: Child, messages: list[wire.ToSupervisor]) -> None:
        child.ready = child.ready or any(isinstance(message, wire.Ready) for message in messages)

    def died(self, child: Child) -> None:
        child.waiting()  # takes its note
        self.deaths.append(child)
        self.children.gone(child)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[[str], Heard]]:
    (tmp_path / "hangs.py").write_text("import signal\nsignal.pause()\n")
    warden = Warden()
    with closing(fork_server(PYTHONPATH=f"{ROOT}:{tmp_path}")) as forks, adopting():

        def make(module: str) -> Heard:
            settings = ChildSettings(forks=forks, modules=(module,), slots=1, memory=Allowance(), warden=warden)
            return Heard(Children(settings, count=1))

        yield make
    assert warden._process is not None
    warden._process.communicate(timeout=10)


async def begun(scene: Heard) -> Child:
    child = Child(scene.children._settings)
    await scene.children.attach_first([(child, child.start())], scene)
    return child


async def test_one_that_does_not_start_is_told_of_and_ended(
    made: Callable[[str], Heard], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(all_children, "SLOW_SECONDS", 0.2)
    monkeypatch.setattr(all_children, "START_SECONDS", 1.0)
    scene = made("hangs")
    child = await begun(scene)
    scene.children.count = 0  # no other one after it
    assert await happens(lambda: dead(scene, child))
    scene.children.close()
    assert (child.killed_for, child.status, child.ready) == ("start", -signal.SIGKILL, False)
    assert "a child is not ready" in caplog.text


async def test_one_that_does_not_hear_that_it_may_go_is_ended(
    made: Callable[[str], Heard], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_child, "_IDLE_SECONDS", 0.2)
    scene = made("tests.handlers")
    child = await begun(scene)
    assert await happens(lambda: ready(child))
    os.kill(child.pid, signal.SIGSTOP)
    scene.children.resize(0)
    assert await happens(lambda: dead(scene, child))
    scene.children.close()
    assert (child.killed_for, child.status) == ("idle", -signal.SIGKILL)


async def ready(child: Child) -> bool:
    return child.ready


async def dead(scene: Heard, child: Child) -> bool:
    return scene.deaths == [child]
