"""The scheduler's entry point: `python -I -u -m services.scheduler.main`. Wiring only.

Several may run: one leads, the others stand by. It starts without its stores and survives their absence.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Final
from uuid import uuid4

import uvloop

from core import clock, telemetry
from core.config import require, settings
from core.database import Database
from core.errors import Deposed, SettingError, Unavailable
from core.leadership import Leadership, PostgresLease, RedisLock
from core.pool import heed_cancel
from core.streams import References
from services.scheduler.duties import lead

_NEEDED: Final = ("database_url", "heartbeat_interval_seconds", "metrics_port", "log_level", "redis")
_REDIS: Final = tuple(
    f"redis_{what}_{level}" for what in ("host", "port", "password", "tls") for level in ("high", "low")
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


async def _serve() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    url, holder = settings.database_url, uuid4()
    async with (
        Database(url, name="tf-candidate", size=2, hot=False, statement_timeout="3s") as db,
        References(seconds=_REFERENCE_SECONDS) as refs,
    ):
        election, lock = PostgresLease(db, holder), RedisLock(refs.high, holder)
        leadership = Leadership(url, holder, db=db, election=election, lock=lock)
        standing = asyncio.create_task(_stand(leadership, refs))
        stopping = asyncio.create_task(stop.wait())
        log.info("ready", holder=str(holder))
        await asyncio.wait({standing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (standing, stopping):
            task.cancel()
        await asyncio.wait({standing, stopping})
        if not standing.cancelled():
            standing.result()
    log.info("stopped")


def main() -> int:
    """Schedule until SIGTERM: 0; 2 for a wrong setting."""
    try:
        require(*_NEEDED)
        if settings.redis:
            require(*_REDIS)
        telemetry.configure("scheduler")
        stop_metrics = telemetry.serve_metrics(settings.metrics_port)
    except SettingError as wrong:
        print(wrong, file=sys.stderr)  # noqa: T201 - one line, for a person
        return 2
    try:
        uvloop.run(_serve())
    finally:
        stop_metrics()
    return 0


if __name__ == "__main__":
    sys.exit(main())
