"""What the children can run: the definitions they announced, and what follows from them for one task.

What holds for a task is what it says itself, else what its definition says, else the queue's default, else the
product's. A definition does not tell "unsaid" from the product's default, so one that names just that is taken to
have said nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from core.domain.ordering import Lane
from core.domain.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from core.domain.task import Claimed
    from taskflow_queue.protocol import Definition

_PRODUCT_ATTEMPTS: Final = RetryPolicy().max_attempts
_MOST_TERMS: Final = 10_000  # each task may say a time limit of its own


class Terms(NamedTuple):
    """What a task runs under: its kind of slots, its hard and its soft limit in seconds (None is none), its retries."""

    lane: Lane
    timeout: float | None
    soft_timeout: float | None
    policy: RetryPolicy


class Catalogue:
    """Definitions by name. `edition` grows when a child announces something else than those before it."""

    def __init__(self) -> None:
        self._definitions: dict[str, Definition] = {}
        self._terms: dict[tuple[object, ...], Terms] = {}
        self.edition = 0

    def learn(self, definitions: Iterable[Definition]) -> bool:
        """Take over what a child announced; True when it is news."""
        said = {definition.name: definition for definition in definitions}
        if said == self._definitions and self.edition:
            return False
        self._definitions = said
        self._terms = {}
        self.edition += 1
        return True

    def types(self, lane: Lane) -> tuple[str, ...]:
        """The types of one lane, sorted."""
        wanted = lane is Lane.ASYNC
        return tuple(sorted(name for name, one in self._definitions.items() if one.is_async is wanted))

    def queues(self, chosen: Sequence[str]) -> tuple[str, ...]:
        """The queues to read: the chosen ones, else those of the definitions and the default one."""
        return tuple(chosen) or tuple(sorted({"default", *(one.queue for one in self._definitions.values())}))

    def terms(self, task: Claimed) -> Terms:
        """What a task runs under."""
        limits = task.timeout_seconds, task.default_timeout_seconds
        key = task.type, limits, task.max_attempts, task.default_max_attempts
        found = self._terms.get(key)
        if found is None:
            if len(self._terms) >= _MOST_TERMS:
                self._terms.clear()
            found = self._terms[key] = self._settled(task)
        return found

    def _settled(self, task: Claimed) -> Terms:
        one = self._definitions.get(task.type)
        hard = task.timeout_seconds
        if hard is None and one is not None:
            hard = one.timeout
        if hard is None:
            hard = task.default_timeout_seconds
        soft = one.soft_timeout if one else None
        return Terms(
            Lane.ASYNC if one is not None and one.is_async else Lane.SYNC,
            hard or None,
            soft if soft and (not hard or soft < hard) else None,
            _policy(one, task.max_attempts, task.default_max_attempts),
        )


def _policy(one: Definition | None, own: int | None, default: int | None) -> RetryPolicy:
    policy = RetryPolicy()
    if one is not None:
        policy = RetryPolicy(max_attempts=one.max_attempts, initial=one.initial, factor=one.factor, cap=one.cap)
    if own is None and policy.max_attempts == _PRODUCT_ATTEMPTS:
        own = default
    return policy if own is None else replace(policy, max_attempts=own)
