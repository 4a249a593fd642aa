"""Frames survive however the bytes arrive, and refuse what is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_queue import protocol as wire

ids = st.binary(min_size=16, max_size=16)
texts = st.text(max_size=50)
small = st.integers(0, 2**40)
seconds = st.none() | st.floats(0, 1e6)

to_child = st.one_of(
    st.builds(wire.Hello, small, st.lists(texts, max_size=3), small),
    st.builds(
        wire.Run, ids, small, texts, st.binary(max_size=100), seconds, seconds, texts, texts, small, st.floats(0, 9)
    ),
    st.builds(wire.Cancel, ids, small),
    st.builds(wire.Recall),
    st.builds(wire.Stop),
    st.builds(wire.Ping, small),
)
definitions = st.builds(
    wire.Definition,
    texts,
    texts,
    small,
    seconds,
    seconds,
    st.floats(0, 9),
    st.floats(1, 9),
    st.floats(0, 9),
    st.booleans(),
)
to_supervisor = st.one_of(
    st.builds(wire.Born, small),
    st.builds(wire.Ready, small, st.lists(definitions, max_size=3)),
    st.builds(wire.Broken, texts),
    st.builds(
        wire.Done,
        ids,
        small,
        texts,
        st.none() | st.binary(max_size=99),
        texts,
        texts,
        texts,
        st.booleans(),
        seconds,
        texts,
    ),
    st.builds(wire.Progress, ids, small, st.floats(0, 1), texts),
    st.builds(wire.Logs, ids, small, texts),
    st.builds(wire.Pong, small),
)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    return [*pieces, data[at:]]


@given(st.lists(st.lists(to_child, min_size=1, max_size=5), max_size=5), st.lists(st.integers(0, 40), max_size=60))
def test_frames_to_a_child_survive_any_cut(batches: list[list[Any]], sizes: list[int]) -> None:
    decoder = wire.ChildDecoder()
    data = b"".join(wire.encode(batch) for batch in batches)
    heard = [message for piece in cut(data, sizes) for message in decoder.feed(piece)]
    assert heard == [message for batch in batches for message in batch]


@given(st.lists(st.lists(to_supervisor, min_size=1, max_size=5), max_size=5), st.lists(st.integers(0, 40), max_size=60))
def test_frames_to_the_supervisor_survive_any_cut(batches: list[list[Any]], sizes: list[int]) -> None:
    decoder = wire.SupervisorDecoder()
    data = b"".join(wire.encode(batch) for batch in batches)
    heard = [message for piece in cut(data, sizes) for message in decoder.feed(piece)]
    assert heard == [message for batch in batches for message in batch]


def test_a_batch_that_is_too_large_is_several_frames() -> None:
    results = [wire.Done(bytes(16), 1, "returned", b"x" * wire.MOST_RESULT) for _ in range(40)]
    data = wire.encode(results)
    assert int.from_bytes(data[:4], "big") <= wire.MOST_FRAME
    assert wire.SupervisorDecoder().feed(data) == results


def test_a_message_that_is_too_large_is_refused() -> None:
    with pytest.raises(wire.FrameError, match="above the limit"):
        wire.encode([wire.Logs(bytes(16), 1, "x" * (wire.MOST_FRAME + 1))])


@pytest.mark.parametrize(
    "garbage", [b"\xff\xff\xff\xff", b"GET / HTTP/1.1\r\n", b"\x00\x00\x00\x01\xc1", b"\x00\x00\x00\x02\x91\xa1"]
)
def test_what_is_no_frame_is_refused(garbage: bytes) -> None:
    with pytest.raises(wire.FrameError):
        wire.SupervisorDecoder().feed(garbage)


@given(st.binary(max_size=200))
def test_garbage_never_does_anything_else(garbage: bytes) -> None:
    decoder = wire.SupervisorDecoder()
    try:
        heard = decoder.feed(garbage)
    except wire.FrameError:
        return
    assert all(isinstance(message, wire.Message) for message in heard)
