"""A worker whose finished results PostgreSQL refuses for a reason that is not in them: it loses none, and says so."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import urlopen

import asyncpg
import pytest

from core import checkup
from core.urls import plain
from services.dev import fleet as fleets
from services.dev.fleet import free_port
from tests.signals import until
from tests.system.clients import Face
from tests.system.conftest import FULL
from tests.system.history import verify

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.world import World

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not FULL, reason="it waits for a minute to pass; full size only, test_finishing.py runs always"),
]

# The role is the owner of the tables here, so no right can be revoked: a trigger refuses in its place.
REFUSE = """
create function refuse() returns trigger language plpgsql as $$ begin raise exception 'as asked'; end $$;
create trigger refuse before update on tasks for each row when (new.status = 'COMPLETED') execute function refuse()
"""


def readyz(port: int) -> tuple[int, str]:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as refused:
        return refused.code, refused.read().decode()


def waiting_code(face: Face, task: str) -> str | None:
    status, _, info = face.call("GET", f"/v1/tasks/{task}")
    assert status == 200, info
    return (info["waiting"] or {}).get("code")


def doctor(world: World) -> checkup.Finding:
    async def ask() -> checkup.Finding:
        tx = await asyncpg.connect(plain(world.database_url), timeout=5)
        try:
            return await checkup.results(tx)
        finally:
            await tx.close()

    return asyncio.run(ask())


def test_a_worker_that_holds_endings_for_a_minute_says_so_and_loses_none(module_world: World, history: Path) -> None:
    world, port = module_world, free_port()
    api = world.api()
    world.schedulers()
    [worker] = world.workers(1, TASKFLOW_METRICS_PORT=str(port))
    assert readyz(port) == (200, "ready\n")
    assert doctor(world).ok
    world.rows(REFUSE)
    ids = world.submit("awork", 30, history=str(history), seconds=0.5)
    until(lambda: readyz(port)[0] == 503, 100, every=0.5)
    assert "endings; PostgreSQL has not taken one of them for a minute" in readyz(port)[1]
    later = world.submit("awork", 1, history=str(history))
    with closing(Face(fleets.url(api), world.key)) as face:
        until(lambda: waiting_code(face, later[0]) == "results_held", 10, every=0.1)
    assert not doctor(world).ok
    assert "read the log" in (doctor(world).fix or "")

    world.rows("drop trigger refuse on tasks")
    world.ended(ids + later)
    verdict = verify(world, ids + later, history).clean()
    assert verdict.causes == {"returned": 31}
    assert verdict.executions == 31  # none ran again
    until(lambda: readyz(port) == (200, "ready\n"), 10)
    until(lambda: doctor(world).ok, 10)
    refused = [line for line in worker.lines() if line["event"].startswith("PostgreSQL refuses endings")]
    assert 1 <= len(refused) <= 3, "it is said once a minute"
