"""The leader's side of the lists: what workers want, what waits, references, credits, and tidying up.

Raises RedisDown where the feeder must know that nothing arrived; the rest is best effort.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from redis import exceptions as failure

from core import clock
from core.domain.credits import Offer
from core.domain.cursors import Route
from core.domain.gates import GateKey
from core.domain.ordering import LISTS, Lane, PriorityType
from core.domain.windows import LaneOf
from core.lua import load
from core.redis_client import RedisDown, Server, new_async_client

_SNAPSHOT, _HINT = load("snapshot"), load("hint")
_WORKERS = load("read"), load("notify")
_HIGH = f"{LISTS}{PriorityType.HIGH.value}:"
_MOST_IDS = 4000  # references a script call: some milliseconds of the server's time
_DRAIN = 5000
_SCAN_PAGE = 1000
_LONGEST_WAIT = 5.0
CREDIT_MS = 2000
LED_MS = 2000
ROUTE_MS = 60_000  # longer than any time without a leader; with one, a route without a credit is good for nothing


class Want(NamedTuple):
    """How many references a lane said that it wants; `turn` changes whenever it says so anew."""

    number: int
    turn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What Redis says: lanes' wants, references waiting in each list, whether it was emptied meanwhile.

    `wakes` names queues that lacked credit ("" for another reason); `again` is where rows were made QUEUED by others.
    """

    wants: Mapping[LaneOf, Want]
    waiting: Mapping[str, int]
    lost: bool
    high_usable: bool
    wakes: frozenset[str] = frozenset()
    again: frozenset[Route] = frozenset()


class Steering:
    """The part of `References` for the leader."""

    high: Server
    low: Server
    clock: clock.Clock
    _waker: Any = None

    def _servers(self) -> list[Server]:
        return [self.low] if self.high is self.low else [self.high, self.low]

    def _halves(self, lists: Iterable[str]) -> list[tuple[Server, list[str]]]:
        """Sort lists by their server; the low one is always there, because it knows what lanes want."""
        if self.high is self.low:
            return [(self.low, list(lists))]
        highs: list[str] = []
        lows: list[str] = []
        for key in lists:
            (highs if key.startswith(_HIGH) else lows).append(key)
        return [(self.high, highs), (self.low, lows)]

    async def snapshot(self, lists: Iterable[str], generation: str, *, backlog: bool = False) -> Snapshot:
        """Look at both servers. Raises RedisDown when the low one is down; without the high one HIGH lists lack.

        With `backlog`, lanes that run dry wake the leader for the next three seconds.
        """
        waiting: dict[str, int] = {}
        lost, high_usable = False, True
        free: list[bytes] = []
        wakes: list[bytes] = []
        again: list[bytes] = []
        for server, keys in self._halves(lists):
            try:
                answer = await server.run(_SNAPSHOT, keys, [generation, "1" if backlog else "0"])
            except RedisDown:
                if server is self.low:
                    raise
                high_usable = False
                continue
            lost = lost or bool(answer[0])
            waiting |= dict(zip(keys, answer[2], strict=True))
            if server is self.low:
                free, wakes, again = answer[1], answer[3], answer[4]
        return Snapshot(
            wants=_wants(free),
            waiting=waiting,
            lost=lost,
            high_usable=high_usable,
            wakes=frozenset(item.decode(errors="replace") for item in wakes),
            again=_routes(again),
        )

    async def hint(self, batches: Mapping[str, Sequence[bytes]]) -> int:
        """Add references, a few thousand a call. Raises RedisDown when some did not arrive: hint them again later."""
        broken: RedisDown | None = None
        added = 0
        for server, keys in self._halves(batches):
            try:
                for part, count in _portions(batches, keys):
                    await server.run(_HINT, list(part), [b"".join(ids) for ids in part.values()])
                    added += count
            except RedisDown as error:
                broken = error
        if broken is not None:
            raise broken
        return added

    async def offer_credits(self, offers: Mapping[str, Offer]) -> None:
        """Lay out credits for two seconds, routes for a minute; an empty offer takes back what is out. Never raises."""
        for server in self._servers():

            async def ask(client: Any, mine: Server = server) -> None:
                pipe = client.pipeline(transaction=False)
                for queue, offer in offers.items():
                    _lay_out(pipe, queue, offer, _amounts(offer, self._sides(mine)))
                await pipe.execute(raise_on_error=False)

            with suppress(RedisDown, failure.RedisError):
                await server.call(ask)

    async def lead(self) -> None:
        """Tell for two seconds that somebody leads: without that, others make do by themselves. Never raises.

        It also loads the scripts of workers, which may run them and may not load any.
        """
        for server in self._servers():
            with suppress(RedisDown, failure.RedisError):
                await server.call(lambda client: client.set("tf:led", "1", px=LED_MS))
                await server.call(_load_missing)

    def _sides(self, server: Server) -> tuple[bool, bool]:
        return server is self.high, server is self.low

    async def drain_gates(self) -> list[GateKey]:
        """Return the keys that may have room or a new task, each once, oldest first."""
        keys: dict[GateKey, None] = {}
        items: list[bytes] = []
        with suppress(RedisDown, failure.RedisError):
            items = list(await self.low.call(_pop_gates) or [])
        for item in items:
            with suppress(msgspec.DecodeError, ValueError, TypeError):
                queue, owner, key = msgspec.msgpack.decode(item)
                keys[GateKey(queue=str(queue), owner_id=int(owner), key=str(key))] = None
        return list(keys)

    async def wait_for_wake(self, seconds: float) -> set[str]:
        """Wait until someone wakes the leader, or that long; without Redis simply that long. Returns why, if woken."""
        if self.low.usable:
            try:
                if self._waker is None:
                    self._waker = new_async_client("low", _LONGEST_WAIT + 1)
                item = await self._waker.blpop(["tf:wake"], timeout=min(seconds, _LONGEST_WAIT))
                return set() if item is None else {item[1].decode(errors="replace")}
            except (failure.RedisError, OSError) as error:
                self.low.failed(error)
        await self.clock.sleep(seconds)
        return set()

    async def existing(self) -> set[str]:
        """Return the lists that exist on the servers that answer."""
        found: set[str] = set()
        for server in self._servers():
            with suppress(RedisDown):
                cursor = -1
                while cursor:
                    cursor, page = await server.call(
                        lambda client, at=cursor: client.scan(max(at, 0), match=f"{LISTS}*", count=_SCAN_PAGE)  # type: ignore[misc]
                    )
                    found |= {key.decode() for key in page}
        return found

    async def delete(self, lists: Iterable[str]) -> None:
        """Delete lists that nobody reads any more; their rows are QUEUED in PostgreSQL."""
        for server, keys in self._halves(lists):
            if keys:
                with suppress(RedisDown):
                    await server.call(lambda client, gone=keys: client.unlink(*gone))  # type: ignore[misc]

    async def forget_lanes(self, lanes: Iterable[LaneOf]) -> None:
        """Drop the wants of lanes whose worker is gone."""
        if fields := [f"{worker}:{lane.value}" for worker, lane in lanes]:
            with suppress(RedisDown, failure.RedisError):
                await self.low.call(lambda client: client.hdel("tf:free", *fields))


async def _load_missing(client: Any) -> None:
    known = await client.script_exists(*(script.sha for script in _WORKERS))
    for script, there in zip(_WORKERS, known, strict=True):
        if not there:
            await client.script_load(script.text)


def _wants(flat: Sequence[bytes]) -> dict[LaneOf, Want]:
    wants: dict[LaneOf, Want] = {}
    for name, said in zip(flat[::2], flat[1::2], strict=True):
        with suppress(ValueError):
            worker, _, lane = name.decode().partition(":")
            number, _, turn = said.partition(b":")
            wants[UUID(worker), Lane(lane)] = Want(int(number), int(turn or b"0"))
    return wants


def _routes(items: Iterable[bytes]) -> frozenset[Route]:
    routes = set()
    for item in items:
        with suppress(msgspec.DecodeError, ValueError, TypeError):  # of a newer version: the look behind finds it
            queue, kind, priority, _ = msgspec.msgpack.decode(item)
            routes.add((str(queue), str(kind), PriorityType(priority)))
    return frozenset(routes)


def _portions(
    batches: Mapping[str, Sequence[bytes]], keys: Sequence[str]
) -> Iterable[tuple[dict[str, Sequence[bytes]], int]]:
    """Cut the references for `keys` into script calls of a bounded size."""
    part: dict[str, Sequence[bytes]] = {}
    count = 0
    for key in keys:
        ids = batches[key]
        for at in range(0, len(ids), _MOST_IDS):
            some = ids[at : at + _MOST_IDS]
            if count + len(some) > _MOST_IDS or key in part:
                yield part, count
                part, count = {}, 0
            part[key] = some
            count += len(some)
    if part:
        yield part, count


def _amounts(offer: Offer, sides: tuple[bool, bool]) -> dict[str, int]:
    """Return the credits for one server; when there is only one, both kinds share it."""
    high, low = sides
    amounts: dict[str, int] = dict(offer.high) if high else {}
    for digest, number in offer.low.items() if low else ():
        amounts[digest] = max(amounts.get(digest, 0), number)
    return amounts


def _lay_out(pipe: Any, queue: str, offer: Offer, amounts: Mapping[str, int]) -> None:
    route = f"tf:route:{queue}"
    if not offer.routes:
        pipe.unlink(route)  # without a route no credit can be taken
        return
    for digest, number in amounts.items():
        pipe.set(f"tf:credit:{queue}:{digest}", number, px=CREDIT_MS)
    pipe.hset(route, mapping=dict(offer.routes))
    pipe.pexpire(route, ROUTE_MS)


def _pop_gates(client: Any) -> Any:
    return client.lpop("tf:gate", _DRAIN)
