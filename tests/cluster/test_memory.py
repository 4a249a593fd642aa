"""A task that needs more memory than its pod has is told apart from its neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.system import history

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cluster.release import Release

LIMIT = 320
SMALL = {"resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": f"{LIMIT}Mi"}}}


def test_out_of_memory_is_named_ends_in_quarantine_and_charges_no_neighbour(
    release: Release, say: Callable[[str], None]
) -> None:
    with release.queue("memory", scaling={"minReplicas": 1, "maxReplicas": 2}, concurrency=2, container=SMALL) as queue:
        release.workers(queue, 1)
        neighbours = release.submit(queue, [{"value": one, "seconds": 1.0} for one in range(20)])
        [glutton] = release.submit(queue, [{"value": 1, "megabytes": 2 * LIMIT, "seconds": 30.0}], "eat")
        found = release.ended([glutton, *neighbours], 240)
        verdict = history.verify(release, neighbours).clean()
        attempts = release.attempts(glutton)
    for attempt in attempts:
        say(f"attempt {attempt['attempt']}: {attempt['event']}, {attempt['cause']}, {attempt['error']}")
    assert found[glutton] == "QUARANTINED"
    assert "memory" in str(attempts[-1])
    assert verdict.charged == 0, "neighbours pay nothing"
    crashes = release.one("select coalesce(sum(crash_count), 0) from tasks where id = any(%s::uuid[])", neighbours)
    assert crashes == 0
    say(f"QUARANTINED after {len(attempts)} attempts; {len(neighbours)} neighbours completed, none charged")
