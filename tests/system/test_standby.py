"""A standby takes over while 500 tasks a second are submitted: no acknowledged task is lost, no process restarts."""

from __future__ import annotations

import json
import secrets
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import pytest

from core import embedded, migrate
from services.dev import fleet as fleets
from taskflow_queue import Client, verbs
from taskflow_queue.options import Options
from tests.forwarder import Forwarder
from tests.signals import until
from tests.system.conftest import FULL
from tests.system.history import verify
from tests.system.standby import Standby, ask
from tests.system.world import World, world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from core.embedded import Servers
    from services.dev.fleet import Member

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not FULL, reason="a standby and a minute of load: only at full size"),
]

RATE, BATCH = 500, 50  # tasks a second, tasks a request
BEFORE = 5.0  # seconds of load before the failover
GOES_ON = 30.0
UNFENCED = 20.0  # seconds for which a former primary takes writes beside the new one
OURS = "select count(*) from pg_stat_activity where application_name like 'tf-%'"
SAFE = "select count(*) from pg_stat_activity where application_name like 'tf-%' and state <> 'idle'"
FENCE = ("alter system set default_transaction_read_only = on", "select pg_reload_conf()")


@dataclass
class Load:
    """Submits batches at a steady rate until the block ends, each until it is acknowledged."""

    world: World
    history: Path
    acknowledged: dict[str, float] = field(default_factory=dict)  # id: when
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._submit, args=(turn,), daemon=True) for turn in range(5)]

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()
        self.took = time.monotonic() - self.began

    def _submit(self, turn: int) -> None:
        said = Options(queue="async")
        body = json.dumps({"history": str(self.history)}).encode()
        bodies = verbs.bodies_of("tests.system.tasks:awork", [body] * BATCH, said)
        pause = BATCH * len(self._threads) / RATE
        due = time.monotonic() + turn * pause / len(self._threads)
        api = self.world.fleet.living("api")[0]
        with Client(fleets.url(api), self.world.key, patience=120) as client:
            while not self._stop.wait(max(due - time.monotonic(), 0)):
                due += pause
                try:
                    parts = list(verbs.batches(bodies))
                    ids = verbs.all_submitted(parts, client.run_all(verbs.submit_many(parts)), str)
                except Exception as error:  # noqa: BLE001 - a thread's edge: it is told in the test
                    self.problems.append(repr(error))
                    continue
                self.acknowledged |= dict.fromkeys(ids, time.monotonic())


@dataclass
class Scene:
    """A fleet before a primary with a standby."""

    world: World
    servers: Servers
    standby: Standby
    address: Forwarder
    members: list[Member]

    def elsewhere(self) -> None:
        """Let new connections reach the standby; open ones stay."""
        self.address.target = self.standby.socket
        self.world.disconnect()

    def lost(self, ids: list[str]) -> int:
        found = self.world.rows("select count(*) from tasks where id = any(%s::uuid[])", ids)
        return len(ids) - int(found[0]["count"])


@contextmanager
def scene(run_folder: Path, folder: Path, *, synchronous: bool, several: bool = False) -> Iterator[Scene]:
    place = run_folder / f"own-{secrets.token_hex(4)}"
    with embedded.running(place, postgres=True, redis=True, delete=True) as own:
        migrate.upgrade(own.database_url)
        with (
            Standby(own, run_folder / f"standby-{secrets.token_hex(4)}") as standby,
            Forwarder(standby.primary_socket) as address,
        ):
            if synchronous:
                standby.make_synchronous()
            one = f"postgresql://taskflow@127.0.0.1:{address.port}/taskflow?sslmode=disable"
            url = standby.both_hosts if several else one
            with world(folder, own, url) as made:
                made.api()
                made.schedulers(2)
                made.workers(2)
                yield Scene(made, own, standby, address, made.fleet.living())


def goes_on(here: Scene, load: Load, end: float) -> float:
    """Seconds from `end` until a task that was acknowledged after the promotion has COMPLETED."""
    promoted = time.monotonic()

    def done() -> float | None:
        since = [task for task, at in load.acknowledged.copy().items() if at > promoted]
        if since and "COMPLETED" in here.world.statuses(since).values():
            return time.monotonic() - end
        return None

    return until(done, 120)  # type: ignore[return-value]  # it returns what is true


def stop_fast(here: Scene) -> None:
    embedded.stop_postgres(here.servers, "fast")


def kill(here: Scene) -> None:
    embedded.stop_postgres(here.servers, "kill")


def demote(here: Scene) -> None:
    """The former primary lives and takes no writes, as a failover manager leaves it; its connections stay open."""
    ask(here.standby.primary_url, *FENCE)
    until(lambda: ask(here.standby.primary_url, SAFE)[0][0] == 0, 10)


@pytest.mark.parametrize("several", [False, True], ids=["one-address", "two-hosts"])
@pytest.mark.parametrize("end", [stop_fast, kill, demote])
def test_a_standby_takes_over_and_nothing_acknowledged_is_lost(
    end: Callable[[Scene], None], run_folder: Path, tmp_path: Path, *, several: bool
) -> None:
    with (
        scene(run_folder, tmp_path, synchronous=True, several=several) as here,
        Load(here.world, here.world.history()) as load,
    ):
        until(lambda: time.monotonic() - load.began > BEFORE and load.acknowledged, 60)
        ended = time.monotonic()
        end(here)
        here.elsewhere()
        here.standby.promote()
        again = goes_on(here, load, ended)
        until(lambda: time.monotonic() - load.began > 2 * BEFORE + again, 60)
        if end is demote:
            left = until(lambda: ask(here.standby.primary_url, OURS)[0][0] == 0 and "none", GOES_ON + 30)
            assert left == "none"
        load.__exit__()
        ids = list(load.acknowledged)
        lost = here.lost(ids)
        here.world.ended(ids, 300)
        verdict = verify(here.world, ids, load.history).clean()
        print(
            f"standby, {end.__name__}, {'two hosts' if several else 'one address'}: {len(ids)} acknowledged in"
            f" {load.took:.0f} s, {lost} lost, work goes on after {again:.1f} s, {verdict.executions} executions,"
            f" events {dict(verdict.events)}"
        )
        assert load.problems == []
        assert lost == 0
        assert again <= GOES_ON
        assert here.world.fleet.living() == here.members


@pytest.mark.parametrize("synchronous", [True, False], ids=["synchronous", "asynchronous"])
def test_without_a_fence_only_a_synchronous_standby_loses_nothing(
    run_folder: Path, tmp_path: Path, *, synchronous: bool
) -> None:
    """The former primary lives and takes writes: what it acknowledges is lost, until it is fenced."""
    with scene(run_folder, tmp_path, synchronous=synchronous) as here:
        with Load(here.world, here.world.history()) as load:
            until(lambda: time.monotonic() - load.began > BEFORE and load.acknowledged, 60)
            here.elsewhere()
            here.standby.promote()
            promoted = time.monotonic()
            until(lambda: time.monotonic() - promoted > UNFENCED, UNFENCED + 10)
            unfenced = here.lost(list(load.acknowledged.copy()))
            fenced = time.monotonic()
            ask(here.standby.primary_url, *FENCE)
            again = goes_on(here, load, fenced)
            until(lambda: time.monotonic() - fenced > again + BEFORE, 60)
        late = here.lost([task for task, at in load.acknowledged.items() if at > fenced + again])
        lost = here.lost(list(load.acknowledged))
        print(
            f"not fenced for {UNFENCED:.0f} s, {'' if synchronous else 'a'}synchronous standby:"
            f" {len(load.acknowledged)} acknowledged, {lost} lost ({unfenced} before the fence, {late} later),"
            f" work goes on {again:.1f} s after the fence"
        )
        assert load.problems == []
        assert late == 0
        assert again <= GOES_ON
        assert here.world.fleet.living() == here.members
        assert (lost == 0) is synchronous
