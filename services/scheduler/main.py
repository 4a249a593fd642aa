"""The scheduler's entry point: `python -I -u -m services.scheduler.main`. Wiring only.

Several may run: one leads, the others stand by. It starts without its stores and survives their absence.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

import uvloop

from core import clock, garbage, kube, probes, telemetry
from core.config import require, settings
from core.errors import Deposed, SettingError, Unavailable
from core.kubernetes_lease import KubernetesLease, identity
from core.leadership import PATIENCE, Election, Leadership, PostgresLease, RedisLock
from core.pool import Database, heed_cancel
from core.process_protection import protect
from core.references import References
from services.scheduler.duties import lead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_NEEDED: Final = (
    "database_url",
    "heartbeat_interval_seconds",
    "metrics_port",
    "log_level",
    "redis",
    "election",
    "namespace",
    "lease_name",
    "pod_name",
)
_REDIS: Final = tuple(
    f"redis_{what}_{level}" for what in ("host", "port", "username", "password", "tls") for level in ("high", "low")
)
_REFERENCE_SECONDS: Final = 1.0  # nobody waits for an answer here
_AGAIN_SECONDS: Final = 1.0
log = telemetry.get_logger("scheduler")


async def _stand(leadership: Leadership, refs: References) -> None:
    """Stand by, lead, and again."""
    while True:
        try:
            async with leadership.term() as (term, keeper):
                # In a task of its own: before Python 3.13 a TaskGroup that failed leaves its task asked to end.
                await asyncio.create_task(lead(term, keeper, refs, clock=clock.system, lease=settings.lease_seconds))
                heed_cancel()
        except (Deposed, Unavailable) as lost:
            log.warning("not leading, standing by", why=str(lost))
            heed_cancel()
            await clock.system.sleep(_AGAIN_SECONDS)


@asynccontextmanager
async def _candidacy(url: str, db: Database, holder: UUID, lock: RedisLock) -> AsyncIterator[Leadership]:
    """Stand for the election that TASKFLOW_ELECTION names."""
    if settings.election == "postgresql":
        yield Leadership(url, holder, db=db, election=PostgresLease(db, holder), lock=lock)
        return
    async with kube.client() as api:
        lease: Election = KubernetesLease(api, kube.namespace(), settings.lease_name, identity(holder))
        yield Leadership(url, holder, db=db, election=lease, lock=lock, patience=PATIENCE)


async def _serve(pulse: probes.Pulse, started: asyncio.Event) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    url, holder = settings.database_url, uuid4()
    beating = asyncio.create_task(pulse.beat())
    async with (
        Database(url, name="tf-candidate", size=2, hot=False, statement_timeout="3s") as db,
        References(seconds=_REFERENCE_SECONDS) as refs,
        _candidacy(url, db, holder, RedisLock(refs.high, holder)) as leadership,
    ):
        standing = asyncio.create_task(_stand(leadership, refs))
        stopping = asyncio.create_task(stop.wait())
        started.set()
        log.info("ready", holder=str(holder))
        await asyncio.wait({standing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (standing, stopping):
            task.cancel()
        await asyncio.wait({standing, stopping})
        if not standing.cancelled():
            standing.result()
    beating.cancel()
    log.info("stopped")


def main() -> int:
    """Schedule until SIGTERM: 0; 2 for a wrong setting."""
    # Who stands by is ready: a rollout must not wait for a leader to step down.
    pulse, started = probes.Pulse(), asyncio.Event()
    stop_probes = _nothing
    try:
        protect()
        require(*_NEEDED)
        if settings.redis:
            require(*_REDIS)
        telemetry.configure("scheduler")
        garbage.collect_seldom()
        stop_probes = probes.serve(settings.metrics_port, started.is_set, pulse.alive)
        uvloop.run(_serve(pulse, started))
    except SettingError as wrong:
        print(wrong, file=sys.stderr)  # noqa: T201 - one line, for a person
        return 2
    finally:
        stop_probes()
    return 0


def _nothing() -> None:
    """There are no probes to stop yet."""


if __name__ == "__main__":
    sys.exit(main())
