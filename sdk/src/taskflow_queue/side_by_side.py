"""Several flows of one kind, the next sent while the one before it is answered.

They begin in order. The first goes alone: what the server refuses on principle is then refused before anything was
done. After one that failed none begins; what was sent by then is waited for.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from taskflow_queue.errors import TaskFlowError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from taskflow_queue.shapes import Flow

R = TypeVar("R")


class _Course(Generic[R]):
    """Flows that wait for their turn, and what became of the others. Any thread may take a step."""

    def __init__(self, flows: Sequence[Flow[R]]) -> None:
        self.found: list[R | TaskFlowError | None] = [None] * len(flows)
        self.broken: BaseException | None = None
        self._left = deque(enumerate(flows))

    def stop(self) -> None:
        """Begin none of the others."""
        self._left.clear()

    def step(self, one: Callable[[Flow[R]], R]) -> bool:
        """Do the next flow; False when there is none."""
        if (turn := self._next()) is None:
            return False
        place, flow = turn
        try:
            self.found[place] = one(flow)
        except TaskFlowError as error:
            self._failed(place, error)
        return True

    async def step_async(self, one: Callable[[Flow[R]], Awaitable[R]]) -> bool:
        """Do what `step` does, awaiting the server."""
        if (turn := self._next()) is None:
            return False
        place, flow = turn
        try:
            self.found[place] = await one(flow)
        except TaskFlowError as error:
            self._failed(place, error)
        return True

    def _next(self) -> tuple[int, Flow[R]] | None:
        try:
            return self._left.popleft()
        except IndexError:
            return None

    def _failed(self, place: int, error: TaskFlowError) -> None:
        self.found[place] = error
        self.stop()


def run(flows: Sequence[Flow[R]], one: Callable[[Flow[R]], R], at_once: int) -> list[R | TaskFlowError | None]:
    """Do each flow by `one`; return what each returned or raised, None for one that was not begun.

    The caller's thread takes part. When it is interrupted, the others end with what they have begun.
    """
    course = _Course(flows)

    def help_out() -> None:
        try:
            while course.step(one):
                pass
        except BaseException as broken:  # noqa: BLE001 - raised by the caller's thread, which waits for this one
            course.broken = broken
            course.stop()

    course.step(one)
    helpers = [
        threading.Thread(target=contextvars.copy_context().run, args=(help_out,), name="taskflow-send", daemon=True)
        for _ in range(min(at_once, len(flows) - 1) - 1)
    ]
    try:
        for helper in helpers:
            helper.start()
        while course.step(one):
            pass
        for helper in helpers:
            helper.join()
    finally:
        course.stop()
    if course.broken is not None:
        raise course.broken
    return course.found


async def run_async(
    flows: Sequence[Flow[R]], one: Callable[[Flow[R]], Awaitable[R]], at_once: int
) -> list[R | TaskFlowError | None]:
    """Do what `run` does, awaiting the server."""
    course = _Course(flows)

    async def help_out() -> None:
        while await course.step_async(one):
            pass

    await course.step_async(one)
    try:
        await asyncio.gather(*(help_out() for _ in range(min(at_once, len(flows) - 1))))
    finally:
        course.stop()
    return course.found
