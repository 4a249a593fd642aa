"""Leadership is taken away in every way there is, under load with a key of which one task may run at a time."""

from __future__ import annotations

import itertools
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.load import Load
from tests.cluster.place import FULL
from tests.cluster.release import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.release import Release

MOST_PAUSE = 25.0
# Who moved rows, as PostgreSQL saw it: the epoch is in the name of a leader's session. A record of a transaction that
# did not commit is gone with it.
RECORDER = """
create schema if not exists cluster_test;
create table cluster_test.writes (id bigint generated always as identity, session text, at timestamptz, moved bigint);
create function cluster_test.note() returns trigger language plpgsql security definer as $$
begin
    if current_setting('application_name') like 'tf-leader/%' and exists (select from moved) then
        insert into cluster_test.writes (session, at, moved)
        select current_setting('application_name'), clock_timestamp(), count(*) from moved;
    end if;
    return null;
end $$;
create trigger cluster_test_note after update on tasks referencing new table as moved
    for each statement execute function cluster_test.note();
"""
STARTS = """
select event_type::text as event, task_id::text as task, created_at from task_events
where task_id in (select id from tasks where queue = 'lease') and event_type::text in
    ('STARTED', 'COMPLETED', 'RETRIED', 'RELEASED', 'RESCUED', 'FAILED')
order by created_at, id
"""


@pytest.mark.timeout(1200)
def test_one_epoch_writes_at_a_time_and_the_cap_holds_whatever_becomes_of_the_lease(
    release: Release, say: Callable[[str], None]
) -> None:
    faults = {"Lease deleted": [delete], "Lease handed to a stranger": [strange]}
    if FULL:
        faults |= {
            "Redis lock deleted": [unlock],
            "Lease and Redis lock deleted": [delete, unlock],
            "Lease handed to a stranger, Redis lock deleted": [strange, unlock],
        }
    scaling = {"minReplicas": 2, "maxReplicas": 2}
    with recorder(release), release.queue("lease", scaling=scaling, limits={"maxPerKey": 1}) as queue:
        release.workers(queue, 2)
        with Load(release, queue, clients=3, pace=1.0, payload={"seconds": 0.2}, concurrency_key="one") as load:
            for what, deeds in [*faults.items()] * (2 if FULL else 1):
                before, began = epoch(release), time.monotonic()
                for deed in deeds:
                    deed(release)
                load.more(5)
                release.kube.until(lambda: release.leader("scheduler"), 40)
                load.more(5)
                seconds = time.monotonic() - began
                say(f"{what}: 10 more completed within {seconds:.0f} s; epoch {before} → {epoch(release)}")
        load.verify()
        load.patient()
        found = release.rows(STARTS)
        writes = release.rows("select session, moved from cluster_test.writes order by id")
    pause = gap(found)
    assert pause <= MOST_PAUSE
    together = most_at_once(found)
    assert together == 1, "the cap of the key was exceeded"
    epochs = [int(write["session"].rpartition("/")[2]) for write in writes]
    assert epochs, "no leader moved anything, so this has shown nothing"
    assert epochs == sorted(epochs), "a former leader wrote after its successor"
    say(f"{len(load.answered)} tasks of one key: at most {together} at once, the longest pause {pause:.1f} s;")
    say(f"{len(epochs)} writes by leaders of epochs {sorted(set(epochs))}, never one after a later one's")


def epoch(release: Release) -> int:
    return int(release.one("select epoch from leader where name = 'scheduler'"))


def delete(release: Release) -> None:
    release.kube("delete", f"lease/{NAME}-scheduler")


def strange(release: Release) -> None:
    """Somebody else holds it now, and will not renew it."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": "a-stranger", "renewTime": now, "acquireTime": now, "leaseDurationSeconds": 6}
    release.kube.patch(f"lease/{NAME}-scheduler", {"spec": spec})


def unlock(release: Release) -> None:
    code = "from core.redis_client import redis_high; print(redis_high.delete('tf:leader'))"
    release.kube.inside(release.kube.ready("scheduler")[0], "python", "-I", "-c", code)


@contextmanager
def recorder(release: Release) -> Iterator[None]:
    release.execute(RECORDER)
    yield
    release.execute("drop schema cluster_test cascade")


def gap(events: list[dict[str, Any]]) -> float:
    """The longest time between two starts, in seconds."""
    starts = [datetime.fromisoformat(one["created_at"]) for one in events if one["event"] == "STARTED"]
    return max((two - one).total_seconds() for one, two in itertools.pairwise(starts))


def most_at_once(events: list[dict[str, Any]]) -> int:
    """How many attempts ran at the same time, at most."""
    running, most = set(), 0
    for event in events:
        running.add(event["task"]) if event["event"] == "STARTED" else running.discard(event["task"])
        most = max(most, len(running))
    return most
