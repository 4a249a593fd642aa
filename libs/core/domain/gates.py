"""Gates: how many more tasks of a key or a queue may be let through. Counting is SQL's, deciding is done here."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GateKey:
    """The scope of a concurrency limit. `key` is "" for the tasks of a capped queue that have no key of their own."""

    queue: str
    owner_id: int
    key: str


def room(cap: int, active: int) -> int | None:
    """Return how many more may become active under `cap`, or None when there is no cap (`cap` is 0)."""
    return None if cap == 0 else max(cap - active, 0)


def narrowest(*rooms: int | None, most: int) -> int:
    """Return the smallest of several rooms, never above `most`; None among them is no limit."""
    return min([most, *(value for value in rooms if value is not None)])
