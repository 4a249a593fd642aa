"""Batches of a `map` overlap: who is sent when, and what an error leaves."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from taskflow_queue import side_by_side
from taskflow_queue.errors import Conflict, TaskFlowError

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskflow_queue.shapes import Flow

SECONDS = 10.0


def flows(count: int) -> list[Flow[str]]:
    return [_flow(number) for number in range(count)]


def _flow(number: int) -> Flow[str]:
    yield from ()
    return f"f{number}"


def end(flow: Flow[str]) -> str:
    try:
        next(flow)
    except StopIteration as done:
        return str(done.value)
    raise AssertionError(flow)


class Server:
    """Notes what is asked; two that are to meet wait for each other, so a run without overlap does not end."""

    def __init__(self, *meeting: str, refuses: str = "", how: Callable[[], BaseException] | None = None) -> None:
        self.asked: list[str] = []
        self.meeting = meeting
        self.refuses = refuses
        self.how = how or (lambda: Conflict("no", status=409))
        self.both = threading.Barrier(2)
        self.here: set[str] = set()
        self.all_here = asyncio.Event()

    def one(self, flow: Flow[str]) -> str:
        name = end(flow)
        self.asked.append(name)
        if name in self.meeting:
            self.both.wait(SECONDS)
        if name == self.refuses:
            raise self.how()
        return name

    async def one_async(self, flow: Flow[str]) -> str:
        name = end(flow)
        self.asked.append(name)
        if name in self.meeting:
            self.here.add(name)
            if len(self.here) == len(self.meeting):
                self.all_here.set()
            await asyncio.wait_for(self.all_here.wait(), SECONDS)
        if name == self.refuses:
            raise self.how()
        return name

    def run(self, face: str, count: int, at_once: int = 2) -> list[str | TaskFlowError | None]:
        if face == "sync":
            return side_by_side.run(flows(count), self.one, at_once)
        return asyncio.run(side_by_side.run_async(flows(count), self.one_async, at_once))


faces = pytest.mark.parametrize("face", ["sync", "async"])


@faces
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("at_once", [1, 2])
def test_all_are_done_and_found_in_their_places(face: str, count: int, at_once: int) -> None:
    server = Server()
    assert server.run(face, count, at_once) == [f"f{number}" for number in range(count)]
    assert sorted(server.asked) == [f"f{number}" for number in range(count)]
    if at_once == 1:
        assert server.asked == sorted(server.asked)


@faces
def test_the_next_is_sent_while_the_one_before_it_is_answered(face: str) -> None:
    server = Server("f1", "f2")
    assert server.run(face, 3) == ["f0", "f1", "f2"]


@faces
def test_nothing_is_sent_beside_the_first(face: str) -> None:
    server = Server(refuses="f0")
    found = server.run(face, 5)
    assert isinstance(found[0], Conflict)
    assert found[1:] == [None] * 4
    assert server.asked == ["f0"]


@faces
def test_after_a_refusal_none_begins_and_what_was_sent_counts(face: str) -> None:
    server = Server("f1", "f2", refuses="f1")
    found = server.run(face, 3)
    assert isinstance(found[1], Conflict)
    assert [found[0], found[2]] == ["f0", "f2"]

    server = Server(refuses="f1")
    found = server.run(face, 50, at_once=1)
    assert isinstance(found[1], Conflict)
    assert found[2:] == [None] * 48
    assert server.asked == ["f0", "f1"]


@faces
@pytest.mark.parametrize("which", ["f0", "f1", "f2"])
def test_an_error_that_is_no_answer_is_raised_from_any_thread(face: str, which: str) -> None:
    meeting = () if which == "f0" else ("f1", "f2")
    server = Server(*meeting, refuses=which, how=lambda: MemoryError(which))
    with pytest.raises(MemoryError, match=which):
        server.run(face, 3)
