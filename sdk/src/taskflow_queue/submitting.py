"""The faces of a submission: what a task, and a task with options, have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack

from taskflow_queue import verbs
from taskflow_queue.client import current
from taskflow_queue.options import Options, Said

if TYPE_CHECKING:
    from collections.abc import Iterable

    from taskflow_queue.client import Client
    from taskflow_queue.handle import Handle
    from taskflow_queue.task import Task

P = ParamSpec("P")
R = TypeVar("R")


class Submits(ABC, Generic[P, R]):
    """Something that submits a task. Every verb has a face for async code, whose name ends in `_async`."""

    @abstractmethod
    def _prepared(self) -> Prepared[P, R]: ...

    def options(self, *, client: Client | None = None, **said: Unpack[Said]) -> Prepared[P, R]:
        """Return this task with other settings for its submissions: `f.options(priority="HIGH").submit(x)`.

        `delay` and `timeout` are seconds; `expires_at` is a datetime, or seconds from now; `idempotency_key` makes
        repeated submissions one task, for 24 hours. Raises SettingError.
        """
        before = self._prepared()
        return Prepared(before.task, Options(**said).over(before.said), client or before.client)

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Submit one call.

        Raises TypeError when the function takes no such call, NotJson, TooLarge, ApiError, Unreachable.
        """
        prepared = self._prepared()
        [body] = prepared.bodies([prepared.task.payload(*args, **kwargs)])
        client = prepared.sender()
        return client.handle(client.run(verbs.submit(body, prepared.said.idempotency_key)))

    async def submit_async(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Do what `submit` does, awaiting the server."""
        prepared = self._prepared()
        [body] = prepared.bodies([prepared.task.payload(*args, **kwargs)])
        client = prepared.sender()
        return client.handle(await client.run_async(verbs.submit(body, prepared.said.idempotency_key)))

    def map(self, *items: Iterable[Any]) -> list[Handle[R]]:
        """Submit a call for each item; several iterables go side by side, as with the built-in `map`.

        All calls are checked before the first is sent; they travel in batches of 1,000, two at a time after the first.
        Raises what `submit` raises, ValueError for iterables of unequal length, and PartlySubmitted when a later batch
        is refused.
        """
        prepared = self._prepared()
        client = prepared.sender()
        parts = prepared.batches(items)
        found = client.run_all(verbs.submit_many(parts, prepared.said.idempotency_key))
        return verbs.all_submitted(parts, found, client.handle)

    async def map_async(self, *items: Iterable[Any]) -> list[Handle[R]]:
        """Do what `map` does, awaiting the server."""
        prepared = self._prepared()
        client = prepared.sender()
        parts = prepared.batches(items)
        found = await client.run_all_async(verbs.submit_many(parts, prepared.said.idempotency_key))
        return verbs.all_submitted(parts, found, client.handle)


class Prepared(Submits[P, R]):
    """A task with what was said for its submissions."""

    def __init__(self, task: Task[P, R], said: Options, client: Client | None) -> None:
        self.task = task
        self.said = said
        self.client = client

    def _prepared(self) -> Prepared[P, R]:
        return self

    def sender(self) -> Client:
        """Return the client that sends it: the one of `options(client=)`, else the process's own."""
        return self.client or current()

    def bodies(self, payloads: Iterable[bytes]) -> list[bytes]:
        """Return the JSON of tasks around the JSON of their payloads; a delay counts from this one moment."""
        task = self.task
        own = Options(queue=task.queue, timeout=task.timeout, max_attempts=task.max_attempts)
        return verbs.bodies_of(task.name, payloads, self.said.over(own))

    def batches(self, items: tuple[Iterable[Any], ...]) -> list[list[bytes]]:
        """Return the JSON of a task for each item, in batches. All calls are checked first."""
        payloads = [self.task.payload(*args) for args in zip(*items, strict=True)]
        return list(verbs.batches(self.bodies(payloads)))

    def __repr__(self) -> str:
        return f"{self.task!r} with {self.said}"
