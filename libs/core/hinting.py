"""Hints of those who commit: the API after a submit, whoever made a row QUEUED, whoever freed a gated key.

All of it is best effort: nothing here raises into a caller or makes one wait for longer than the deadline. What is
lost is found again by the leader in PostgreSQL.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec
from redis import exceptions as failure

from core.domain.gates import GateKey
from core.domain.lifecycle import RUNNING, TaskStatus
from core.domain.ordering import URGENCY, PriorityType
from core.domain.task import Moved, Submission, Submitted
from core.lua import load
from core.redis_client import RedisDown, Server

_NOTIFY = load("notify")
_pack = msgspec.msgpack.encode
_MOST_ROWS = 2000  # rows a script call: a server is never busy with one for more than a few milliseconds

Group = tuple[str, str, PriorityType, int]  # queue, type, priority, owner


def worker_channel(worker: UUID) -> str:
    """Return the channel on which a worker is told at once what is to be cancelled."""
    return f"tf:w:{worker}"


class Hinting:
    """The part of `References` for those who commit."""

    high: Server
    low: Server

    async def hint_submitted(self, rows: Iterable[tuple[Submission, Submitted]]) -> None:
        """After a submit's commit: references as far as there is credit, else one wake; gated keys to the gate."""
        groups: dict[Group, list[bytes]] = defaultdict(list)
        gates: dict[GateKey, None] = {}
        for asked, born in rows:
            if born.gated:
                gates[GateKey(queue=asked.queue, owner_id=asked.owner_id, key=asked.concurrency_key)] = None
            elif born.status is TaskStatus.QUEUED:
                groups[asked.queue, asked.type, asked.priority, asked.owner_id].append(born.id.bytes)
        if not groups and not gates:
            return
        short = 0
        if self.high is not self.low and any(priority is PriorityType.HIGH for _, _, priority, _ in groups):
            high = {group: groups.pop(group) for group in list(groups) if group[2] is PriorityType.HIGH}
            short = await self._notify(self.high, high, [], [], wake="-")
        await self._notify(self.low, groups, _gate_items(gates), [], wake="1" if short or gates else "0")

    async def hint_moved(self, moved: Sequence[Moved]) -> None:
        """After any other commit: rows that became QUEUED to the feeder, keys that may have room to the gate."""
        gates: dict[GateKey, None] = {}
        again: list[bytes] = []
        for row in moved:
            if row.status is TaskStatus.QUEUED:
                again.append(_pack([row.queue, row.type, row.priority.value, row.id.bytes]))
            elif row.gated and row.status not in RUNNING:
                gates[GateKey(queue=row.queue, owner_id=row.owner_id, key=row.concurrency_key)] = None
        if gates or again:
            await self._notify(self.low, {}, _gate_items(gates), again, wake="1")

    async def hint_gate(self, keys: Iterable[GateKey]) -> None:
        """Tell the gate that these keys may have room or a new task."""
        if items := _gate_items(keys):
            await self._notify(self.low, {}, items, [], wake="1")

    async def wake(self) -> None:
        """Make the leader look now rather than within a second."""
        await self._notify(self.low, {}, [], [], wake="1")

    async def publish_cancel(self, worker: UUID, ids: Sequence[UUID], *, force: bool) -> None:
        """Tell a worker at once what its next beat would tell it anyway."""
        message = _pack({"cancel": [one.bytes for one in ids], "force": force})
        with suppress(RedisDown, failure.RedisError):
            await self.low.call(lambda client: client.publish(worker_channel(worker), message))

    async def _notify(
        self, server: Server, groups: dict[Group, list[bytes]], gates: list[bytes], again: list[bytes], *, wake: str
    ) -> int:
        """Run the script in slices; returns how many new rows got no reference (all of them when Redis is down)."""
        rows = sum(map(len, groups.values()))
        if not rows and not gates and not again and wake != "1":
            return 0
        short = 0
        try:
            for part in _slices(groups, gates, again):
                short += int(await server.run(_NOTIFY, [], [*part, wake]))
        except (RedisDown, failure.RedisError):
            return rows
        return short


def _gate_items(keys: Iterable[GateKey]) -> list[bytes]:
    return [_pack([key.queue, key.owner_id, key.key]) for key in keys]


def _slices(groups: dict[Group, list[bytes]], gates: list[bytes], again: list[bytes]) -> Iterable[list[Any]]:
    """Cut one call's arguments into several: the most urgent rows first."""
    ordered = sorted(groups.items(), key=lambda item: URGENCY.index(item[0][2]))
    pieces = [(group, ids[at : at + _MOST_ROWS]) for group, ids in ordered for at in range(0, len(ids), _MOST_ROWS)]
    part: list[Any] = []
    count = rows = 0
    for (queue, kind, priority, _), ids in pieces:
        if count and rows + len(ids) > _MOST_ROWS:
            yield [count, *part, 0, 0]
            part, count, rows = [], 0, 0
        part += (queue, kind, priority.value, "1" if priority is PriorityType.HIGH else "0", b"".join(ids))
        count += 1
        rows += len(ids)
    last = [count, *part]
    for at in range(0, max(len(gates), len(again), 1), _MOST_ROWS):
        some, more = gates[at : at + _MOST_ROWS], again[at : at + _MOST_ROWS]
        yield [*last, len(some), *some, len(more), *more]
        last = [0]
