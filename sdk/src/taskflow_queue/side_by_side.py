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
    """Flows that wait for their turn, and what became of the others."""

    def __init__(self, flows: Sequence[Flow[R]]) -> None:
        self.found: list[R | TaskFlowError | None] = [None] * len(flows)
        self.broken: BaseException | None = None
        self._left = deque(enumerate(flows))

    def next(self) -> tuple[int, Flow[R]] | None:
        """Return the next one and its place; from any thread."""
        try:
            return self._left.popleft()
        except IndexError:
            return None

    def stop(self) -> None:
        """Begin none of the others."""
        self._left.clear()

    def failed(self, place: int, error: TaskFlowError) -> None:
        """Keep what the flow at `place` raised."""
        self.found[place] = error
        self.stop()


def run(flows: Sequence[Flow[R]], one: Callable[[Flow[R]], R], at_once: int) -> list[R | TaskFlowError | None]:
    """Do each flow by `one`; return what each returned or raised, None for one that was not begun.

    The caller's thread takes part. When it is interrupted, the others end with what they have begun.
    """
    course = _Course(flows)

    def go_on(most: int = len(flows)) -> None:
        while most and (turn := course.next()) is not None:
            place, flow = turn
            most -= 1
            try:
                course.found[place] = one(flow)
            except TaskFlowError as error:
                course.failed(place, error)

    def help_out() -> None:
        try:
            go_on()
        except BaseException as broken:  # noqa: BLE001 - raised by the caller's thread, which waits for this one
            course.broken = broken
            course.stop()

    go_on(1)
    helpers = [
        threading.Thread(target=contextvars.copy_context().run, args=(help_out,), name="taskflow-send", daemon=True)
        for _ in range(min(at_once, len(flows) - 1) - 1)
    ]
    try:
        for helper in helpers:
            helper.start()
        go_on()
        for helper in helpers:
            helper.join()
    except BaseException:
        course.stop()
        raise
    if course.broken is not None:
        raise course.broken
    return course.found


async def run_async(
    flows: Sequence[Flow[R]], one: Callable[[Flow[R]], Awaitable[R]], at_once: int
) -> list[R | TaskFlowError | None]:
    """Do what `run` does, awaiting the server."""
    course = _Course(flows)

    async def go_on(most: int = len(flows)) -> None:
        while most and (turn := course.next()) is not None:
            place, flow = turn
            most -= 1
            try:
                course.found[place] = await one(flow)
            except TaskFlowError as error:
                course.failed(place, error)

    await go_on(1)
    try:
        await asyncio.gather(*(go_on() for _ in range(min(at_once, len(flows) - 1))))
    finally:
        course.stop()
    return course.found
