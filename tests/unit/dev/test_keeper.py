"""What `taskflow dev` does when a process dies or a file changes. The processes are made up, the rules are real."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from services.dev import keeper as keeping
from services.dev.tail import Tail, as_text

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(eq=False)
class Member:
    role: str
    name: str
    env: dict[str, str] = field(default_factory=dict)
    code: int | None = None

    @property
    def process(self) -> Any:
        return SimpleNamespace(returncode=self.code)

    def alive(self) -> bool:
        return self.code is None

    def last_words(self) -> str:
        return "last words"


class Fleet:
    def __init__(self) -> None:
        self.members: list[Member] = []
        self.stopped: list[Member] = []

    def start(self, role: str, *, name: str, **env: str) -> Member:
        self.members.append(Member(role, name, env))
        return self.members[-1]

    def stop(self, member: Member) -> None:
        self.stopped.append(member)


@dataclass
class Scene:
    keeper: Any
    fleet: Fleet
    said: list[str]
    now: list[float]

    def after(self, seconds: float) -> None:
        self.now[0] += seconds
        self.keeper.look()

    @property
    def starts(self) -> int:
        return len(self.said)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    now = [1000.0]
    monkeypatch.setattr(keeping, "monotonic", lambda: now[0])
    fleet, said = Fleet(), list[str]()
    (tmp_path / "tasks.py").write_text("")
    keeper: Any = keeping.Keeper(fleet, tmp_path, lambda: ["tasks"], said.append)  # type: ignore[arg-type]
    keeper.keep(fleet.start("api", name="api", PORT="1"), fleet.start("worker", name="worker"))
    return Scene(keeper, fleet, said, now)


def test_what_dies_is_started_again_with_its_settings_after_a_growing_wait(scene: Scene) -> None:
    waits = []
    for _ in range(7):
        scene.keeper.kept[0].member.code = 1
        scene.after(0)
        waits.append(scene.keeper.kept[0].wait)
        scene.after(waits[-1] - 0.01)
        assert not scene.keeper.kept[0].member.alive()
        scene.after(0.02)
        assert scene.keeper.kept[0].member.alive()
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert scene.keeper.kept[0].member.env == {"PORT": "1"}
    assert len(scene.fleet.members) == 2
    assert any("last words" in line for line in scene.said)


def test_one_that_lived_long_is_not_blamed_for_the_past(scene: Scene) -> None:
    for lived in (0, 100):
        scene.now[0] += lived
        scene.keeper.kept[0].member.code = -9
        scene.after(0)
        assert scene.keeper.kept[0].wait == 1
        scene.after(1)


def test_a_changed_file_starts_the_worker_anew_and_nothing_else(scene: Scene, tmp_path: Path) -> None:
    before = [one.member for one in scene.keeper.kept]
    scene.after(2)
    assert scene.fleet.stopped == []
    (tmp_path / "client.py").write_text("import tasks")
    scene.after(2)
    assert scene.fleet.stopped == []
    (tmp_path / "tasks.py").write_text("x = 1")
    scene.after(2)
    assert scene.fleet.stopped == [before[1]]
    assert [one.member is old for one, old in zip(scene.keeper.kept, before, strict=True)] == [True, False]
    assert scene.keeper.kept[1].member.env["TASKFLOW_WORKER_MODULES"] == "tasks"
    assert scene.said[-1].startswith("tasks.py changed")
    scene.after(2)
    assert len(scene.fleet.stopped) == 1


def test_a_changed_file_also_mends_a_worker_that_waits_to_be_started(scene: Scene, tmp_path: Path) -> None:
    scene.keeper.kept[1].member.code = 2
    scene.after(0)
    assert scene.keeper.kept[1].wait == keeping.MOST_WAIT
    (tmp_path / "tasks.py").write_text("mended")
    scene.after(2)
    assert scene.keeper.kept[1].member.alive()


def test_the_terminal_shows_warnings_and_what_is_no_log_line(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text(
        '{"event":"ready","level":"info"}\nTraceback\n{"event":"slow","level":"warning","task_id":"x"}\n{"ev'
    )
    member: Any = SimpleNamespace(name="worker", log=log)
    said: list[str] = []
    tail = Tail(said.append)
    tail.look([member])
    assert said == ["worker: Traceback", "worker: warning: slow task_id=x"]
    with log.open("a") as out:
        out.write('ent":"bad","level":"error","exception":"Traceback\\nValueError: no"}\n')
    tail.look([member])
    assert said[2:] == ["worker: error: bad\nValueError: no"]
    assert as_text("") is None
