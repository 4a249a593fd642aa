"""A submitted task, seen by who submitted it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from taskflow_queue import verbs

if TYPE_CHECKING:
    from collections.abc import Generator

    from taskflow_queue.client import Client
    from taskflow_queue.models import Outcome, TaskInfo

R_co = TypeVar("R_co", covariant=True)


class Handle(Generic[R_co]):
    """A task by its id, whose result is an R. Every verb has a face for async code, whose name ends in `_async`.

    `await handle` is `await handle.result_async()`.
    """

    __slots__ = ("_client", "_outcome", "id")

    def __init__(self, task_id: str, client: Client) -> None:
        self.id = task_id
        self._client = client
        self._outcome: Outcome | None = None

    def result(self, timeout: float | None = None) -> R_co:
        """Return the task's result as soon as it has one, after at most `timeout` seconds (None: however long).

        Raises TaskFailed, TaskQuarantined, TaskCancelled, TaskExpired for a task that ended without one,
        ResultTimeout (a TimeoutError; the task goes on), NotFound, Unreachable.
        """
        return cast("R_co", verbs.value_of(self._outcome or self.wait(timeout)))

    async def result_async(self, timeout: float | None = None) -> R_co:  # noqa: ASYNC109 - the same words as `result`
        """Do what `result` does, awaiting the server."""
        return cast("R_co", verbs.value_of(self._outcome or await self.wait_async(timeout)))

    def wait(self, timeout: float | None = None) -> Outcome:
        """Return how the task ended, once it has; a failure is no error here. Raises ResultTimeout, NotFound."""
        return self._kept(self._client.run(verbs.outcome(self.id, timeout, self._client.monotonic)))

    async def wait_async(self, timeout: float | None = None) -> Outcome:  # noqa: ASYNC109 - the same words as `wait`
        """Do what `wait` does, awaiting the server."""
        return self._kept(await self._client.run_async(verbs.outcome(self.id, timeout, self._client.monotonic)))

    def status(self) -> str:
        """Return where the task is now: QUEUED, IN_PROGRESS, COMPLETED, ..."""
        return self.get().status

    async def status_async(self) -> str:
        """Do what `status` does, awaiting the server."""
        return (await self.get_async()).status

    def get(self) -> TaskInfo:
        """Return everything that is known of the task. Raises NotFound."""
        return self._client.run(verbs.get(self.id))

    async def get_async(self) -> TaskInfo:
        """Do what `get` does, awaiting the server."""
        return await self._client.run_async(verbs.get(self.id))

    def cancel(self, *, force: bool = False, grace: float = 30.0) -> str:
        """Ask the task to stop and return its status.

        One that waits is CANCELLED at once; a running one is CANCELLING until it obeys, or `grace` seconds passed,
        and COMPLETED when it ends well meanwhile. `force` waits for nothing. Raises Conflict when it has ended.
        """
        return self._client.run(verbs.cancel(self.id, force=force, grace=grace))

    async def cancel_async(self, *, force: bool = False, grace: float = 30.0) -> str:
        """Do what `cancel` does, awaiting the server."""
        return await self._client.run_async(verbs.cancel(self.id, force=force, grace=grace))

    def retry(self) -> TaskInfo:
        """Let a task that ended without a result run again. Raises Conflict for any other."""
        self._outcome = None
        return self._client.run(verbs.retry(self.id))

    async def retry_async(self) -> TaskInfo:
        """Do what `retry` does, awaiting the server."""
        self._outcome = None
        return await self._client.run_async(verbs.retry(self.id))

    def _kept(self, outcome: Outcome) -> Outcome:
        """Only a result is final: whoever redrives a failed task elsewhere changes what this handle would say."""
        if outcome.status == "COMPLETED":
            self._outcome = outcome
        return outcome

    def __await__(self) -> Generator[Any, Any, R_co]:
        return self.result_async().__await__()

    def __repr__(self) -> str:
        return f"<task {self.id}>"
