"""What a transaction holds while its client has the word: whoever stops there, stops all who wait for it.

A proxy keeps back every answer that leaves its client in a transaction, until pg_stat_activity was asked what sessions
of that kind hold: rows of `tasks` and `queues`, and the lock of the gate.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg2

from core.verbs.leading import ADVISORY_CLASS, GATE_LOCK
from tests.system.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

TASKS, QUEUES, GATE = "rows of tasks", "rows of queues", "the lock of the gate"
# Whoever reads has AccessShareLock; every lock on a row comes with a stronger one on its table.
HELD = """
select session.application_name, session.state,
       case when held.locktype = 'advisory' then 'the lock of the gate' else 'rows of ' || held.relation::regclass end
from pg_stat_activity as session
left join pg_locks as held on held.pid = session.pid and held.granted and (
    held.locktype = 'advisory' and held.classid = %s and held.objid = %s
    or held.locktype = 'relation' and held.relation in ('tasks'::regclass, 'queues'::regclass)
       and held.mode <> 'AccessShareLock')
where session.datname = current_database() and session.state like 'idle in transaction%%'
"""


class Watch:
    """What was seen, by the step that the test was at."""

    def __init__(self, url: str) -> None:
        self._connection: Any = psycopg2.connect(url)
        self._connection.autocommit = True
        self.step = ""
        self.looks = 0
        self.held: defaultdict[str, set[str]] = defaultdict(set)

    def look(self) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(HELD, (ADVISORY_CLASS, GATE_LOCK))
            found = cursor.fetchall()
        assert found, "whoever is in a transaction is seen"
        self.looks += 1
        self.held[self.step].update(what for _, _, what in found if what is not None)

    def close(self) -> None:
        self._connection.close()


@contextmanager
def watched(database_url: str) -> Iterator[tuple[Proxy, Watch]]:
    """Watch every session that connects through the proxy."""
    watch = Watch(database_url)
    try:
        with Proxy(database_url) as proxy:
            proxy.round_trip = watch.look
            yield proxy, watch
    finally:
        watch.close()
