"""A task that waits for a time starts soon after it, whether or not the gate has a say. Full size prints the table.

What each tick does is tested in tests/integration/test_gated_delays.py; here are real processes and their pace.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import pytest

from core.clock import pause
from tests.system.conftest import FULL
from tests.system.history import verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.world import World

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not FULL, reason="it measures seconds, for minutes; at full size only"),
]

BACKOFFS = (0.1, 1.0, 5.0)
EACH = 60  # tasks of each kind and back-off
APART = 0.11  # seconds between two rounds of submits: no multiple of a tick
CAPPED = "capped"
KINDS = ("free", "keyed", "capped")
P50, LONGEST, BESIDE_FREE = 0.5, 1.5, 0.5  # seconds, as the issue has them
# From the end of the first attempt to the start of the second, less the back-off.
LATE = """
select extract(epoch from started.created_at - ended.created_at)::float8 as seconds
from task_events as ended join task_events as started on started.task_id = ended.task_id
where ended.task_id = any(%s::uuid[]) and ended.attempt = 1 and ended.event_type::text = 'RETRIED'
  and started.attempt = 2 and started.event_type::text = 'STARTED'
"""


@pytest.fixture(scope="module")
def delayed(module_world: World) -> Iterator[World]:
    module_world.api()
    module_world.schedulers()
    module_world.workers(1, TASKFLOW_WORKER_QUEUES=f"async,{CAPPED}")
    module_world.rows(
        "insert into queues (name, max_concurrent) values (%s, 1000)"
        " on conflict (name) do update set max_concurrent = excluded.max_concurrent",
        CAPPED,
    )
    yield module_world
    module_world.fleet.stop(*module_world.fleet.living())


def test_a_back_off_ends_soon_after_its_time_for_free_keyed_and_capped_tasks(delayed: World, history: Path) -> None:
    ids: dict[tuple[str, float], list[str]] = {(kind, seconds): [] for kind in KINDS for seconds in BACKOFFS}
    for number in range(EACH):
        for (kind, seconds), made in ids.items():
            said = {"queue": CAPPED if kind == "capped" else "async"}
            if kind == "keyed":
                said["concurrency_key"] = f"{seconds} {number}"
            payload = {"history": str(history), "seconds": seconds}
            made.extend(delayed.submit_each("again", [payload], **said))
        pause(APART)
    every = [task for made in ids.values() for task in made]
    delayed.ended(every, 60)
    verify(delayed, every, history).clean()
    late = {place: sorted(row["seconds"] - place[1] for row in delayed.rows(LATE, made)) for place, made in ids.items()}
    print(f"{'back-off':>8} {'kind':>7} {'n':>4} {'p50':>7} {'longest':>8}   seconds beyond the back-off")
    for (kind, seconds), found in late.items():
        print(f"{seconds:8} {kind:>7} {len(found):4} {statistics.median(found):7.3f} {found[-1]:8.3f}")
    for (kind, seconds), found in late.items():
        assert len(found) == EACH
        assert statistics.median(found) <= P50, (kind, seconds)
        assert found[-1] <= LONGEST, (kind, seconds)
        free = late["free", seconds]
        assert statistics.median(found) <= statistics.median(free) + BESIDE_FREE, (kind, seconds)
