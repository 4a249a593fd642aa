"""The frames that a worker's supervisor and its children speak over a socket pair.

A frame is a length of four bytes, big-endian, and a MessagePack array of messages: whatever one side has to say in
one turn of its loop is one frame. Both sides may be of different versions of the SDK, so whatever is said first (FORK,
Hello, Ready) names the version, and fields are only ever added at the end.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

VERSION: Final = 1
FD_VARIABLE: Final = "TASKFLOW_FD"  # where the fork server finds the socket on which it is asked for children
PARENT_VARIABLE: Final = "TASKFLOW_PARENT"  # the supervisor's process id: a child with another parent is an orphan
OPEN_VARIABLE: Final = "TASKFLOW_UNCONFINED"  # there when children shall not be confined by Landlock
MOST_FRAME: Final = 16 * 1024 * 1024  # bytes; a batch above that is sent as several frames
MOST_RESULT: Final = 1024 * 1024  # bytes of JSON
MOST_LOGS: Final = 64 * 1024  # characters an attempt
MOST_MESSAGE: Final = 4_000  # characters of an error's message
MOST_TRACEBACK: Final = 16_000
# In memory that both sides share: id and attempt of the last sync task begun, the place of the last async one.
MARK: Final = struct.Struct("16sqq")
# Asks the fork server for a child: VERSION, and the MB at which its own allocations shall fail, 0 for none. The child's
# end of its socket pair and its MARK come along as descriptors.
FORK: Final = struct.Struct("qq")
_PREFIX: Final = 4


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, tag_field="frame", gc=False):
    """Anything that is sent: an array on the wire, its class's name first."""


# ── to the child ────────────────────────────────────────────────────────────────────────────────────────


class Hello(Message, frozen=True):
    """The first message: what to import, and how many async tasks run at once; more wait for their turn."""

    version: int
    modules: list[str]
    slots: int


class Run(Message, frozen=True):
    """Run a task. `payload` is JSON, `id` are the 16 bytes of a UUID; a child never learns the claim.

    `created_at` is in seconds since 1970.
    """

    id: bytes
    attempt: int
    type: str
    payload: bytes
    timeout: float | None = None
    soft_timeout: float | None = None
    queue: str = "default"
    priority: str = "NORMAL"
    retry_count: int = 0
    created_at: float = 0.0


class Cancel(Message, frozen=True):
    """Ask a task to stop: an async one is cancelled, a sync one learns it from `cancel_requested()`.

    A SIGTERM that follows interrupts the sync one as well, at its next Python instruction or system call.
    """

    id: bytes
    attempt: int


class Recall(Message, frozen=True):
    """Give back the sync or the async tasks that have not begun, as "released": those before them take long."""

    sync: bool


class Stop(Message, frozen=True):
    """Exit when nothing runs any more."""


class Ping(Message, frozen=True):
    """Tell whether the loop of the child is free: by a Pong."""

    n: int


# ── to the supervisor ───────────────────────────────────────────────────────────────────────────────────


class Definition(msgspec.Struct, frozen=True, array_like=True):
    """A task as its module defines it; `name` is "module:qualname". `initial`, `factor`, `cap` are its back-off."""

    name: str
    queue: str
    max_attempts: int
    timeout: float | None
    soft_timeout: float | None
    initial: float
    factor: float
    cap: float
    is_async: bool


class Born(Message, frozen=True):
    """A child was forked. The fork server says this, before the child can say anything."""

    pid: int


class Ready(Message, frozen=True):
    """The modules are imported; these tasks can be run."""

    version: int
    definitions: list[Definition]


class Broken(Message, frozen=True):
    """The modules cannot be imported; the child exits after saying so."""

    message: str


class Done(Message, frozen=True):
    """How an attempt ended.

    `kind` is returned, raised, timed_out, cancelled, later (RetryLater), rejected (its result cannot be kept),
    released (a task that had not begun), suspect (something in this process cancelled it, and nobody had asked for
    that) or out_of_memory (it ran into the wall of its process, which is of no use any more).
    `fatal` says that give_up_on or retry_on forbid another attempt; `seconds` is how long the handler ran; `company` is
    how many tasks may have cancelled a suspect, itself included.
    """

    id: bytes
    attempt: int
    kind: str
    result: bytes | None = None
    error_type: str = ""
    message: str = ""
    traceback: str = ""
    fatal: bool = False
    later: float | None = None
    logs: str = ""
    seconds: float = 0.0
    company: int = 1


class Progress(Message, frozen=True):
    """How far a task has come: 0 to 1, and a word about it."""

    id: bytes
    attempt: int
    fraction: float
    note: str = ""


class Logs(Message, frozen=True):
    """What a task has logged since the last time."""

    id: bytes
    attempt: int
    text: str


class Pong(Message, frozen=True):
    """The loop is free."""

    n: int


ToChild: TypeAlias = Hello | Run | Cancel | Recall | Stop | Ping
ToSupervisor: TypeAlias = Born | Ready | Broken | Done | Progress | Logs | Pong


class FrameError(ValueError):
    """What arrived is no frame of this protocol: the other side is broken, or not ours."""

    def __init__(self, message: str, before: Sequence[ToSupervisor] = ()) -> None:
        """`before`: what a supervisor was told in the same breath, until then."""
        super().__init__(message)
        self.before = before


_pack = msgspec.msgpack.Encoder().encode


def encode(messages: Sequence[ToChild] | Sequence[ToSupervisor]) -> bytes:
    """Return `messages` as one frame, or as several when one would be too large."""
    body = _pack(messages)
    if len(body) > MOST_FRAME and len(messages) > 1:
        half = len(messages) // 2
        return encode(messages[:half]) + encode(messages[half:])
    if len(body) > MOST_FRAME:
        message = f"a message of {len(body):,} bytes is above the limit of {MOST_FRAME:,}"
        raise FrameError(message)
    return len(body).to_bytes(_PREFIX, "big") + body


class _Splitter:
    """Cuts a stream of bytes into the bodies of its frames, however the bytes arrive."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def split(self, data: bytes) -> Iterator[bytes]:
        """Take what arrived and yield the bodies that are complete by now."""
        kept = self._kept
        kept += data
        at = 0
        while len(kept) - at >= _PREFIX:
            size = int.from_bytes(kept[at : at + _PREFIX], "big")
            if size > MOST_FRAME:
                message = f"a frame claims {size:,} bytes, and the limit is {MOST_FRAME:,}"
                raise FrameError(message)
            if len(kept) - at - _PREFIX < size:
                break
            at += _PREFIX + size
            yield bytes(kept[at - size : at])
        del kept[:at]


class ChildDecoder:
    """Turns bytes from the supervisor into messages."""

    def __init__(self) -> None:
        self._splitter = _Splitter()
        self._unpack = msgspec.msgpack.Decoder(list[ToChild]).decode

    def feed(self, data: bytes) -> list[ToChild]:
        """Return the messages that are complete by now. Raises FrameError."""
        try:
            return [message for body in self._splitter.split(data) for message in self._unpack(body)]
        except msgspec.DecodeError as wrong:
            raise FrameError(str(wrong)) from wrong


class SupervisorDecoder:
    """Turns bytes from a child into messages."""

    def __init__(self) -> None:
        self._splitter = _Splitter()
        self._unpack = msgspec.msgpack.Decoder(list[ToSupervisor]).decode

    def feed(self, data: bytes) -> list[ToSupervisor]:
        """Return the messages that are complete by now. Raises FrameError, which has those before it."""
        messages: list[ToSupervisor] = []
        try:
            for body in self._splitter.split(data):
                messages += self._unpack(body)
        except (msgspec.DecodeError, FrameError) as wrong:
            raise FrameError(str(wrong), messages) from wrong
        return messages
