"""A TCP proxy before PostgreSQL that understands enough of its protocol to break it at a chosen statement.

It runs an event loop in a thread of its own. Toxics are armed from the test: they fire at the next statements whose
text they name, in whichever connection, at the COMMIT if that statement runs in a transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

STARTUP = struct.Struct("!ii")
SSL_REQUEST = 80877103


class Toxic(Enum):
    """What happens at the chosen statement."""

    LOSE_REPLY = auto()  # it is forwarded and carried out; the connection is cut before the answer comes back
    HANG = auto()  # it is forwarded and carried out; the answer never comes, and the connection stays
    REFUSE = auto()  # it is not forwarded; the connection is cut
    HOLD = auto()  # something is done, and it is not forwarded before `release`
    CALL_AFTER = auto()  # something is done when it was carried out, before the answer is forwarded


@dataclass
class Armed:
    """A toxic, and how often it has still to fire."""

    statement: str
    toxic: Toxic
    times: int = 1
    call: Callable[[], None] = lambda: None
    at_commit: bool = True
    fired: int = 0

    def matches(self, text: str) -> bool:
        return self.fired < self.times and (self.statement in text)


@dataclass(eq=False)
class Pair:
    """One connection of a client and its twin to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    statements: dict[bytes, str] = field(default_factory=dict)
    in_transaction: bool = False
    waiting: Armed | None = None  # matched inside a transaction: fires at its COMMIT
    now: Armed | None = None  # matched: fires with the Sync that follows
    after: Armed | None = None  # forwarded: fires when the server has answered
    mute: bool = False
    sent: int = 0

    def cut(self) -> None:
        for writer in (self.client, self.server):
            with contextlib.suppress(Exception):
                writer.transport.abort()


class Proxy:
    """Listens on a port of the loopback address and forwards to the PostgreSQL of `url`, a unix socket or a port."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        said = parse_qs(self._parts.query)
        self._socket = f"{said['host'][0]}/.s.PGSQL.{said['port'][0]}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._armed: list[Armed] = []
        self._pairs: set[Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.reset_after: int | None = None  # a connection is cut when its client has sent that many bytes
        self.refusing = False
        self.latency = 0.0  # seconds that each statement is under way before the server has it
        # Called when an answer has come that leaves its client in a transaction, before the answer goes on.
        self.round_trip: Callable[[], None] = lambda: None
        self._released = asyncio.Event()

    @property
    def url(self) -> str:
        return f"postgresql://{self._parts.username}@127.0.0.1:{self.port}{self._parts.path}?sslmode=disable"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def arm(
        self,
        statement: str,
        toxic: Toxic,
        *,
        times: int = 1,
        call: Callable[[], None] = lambda: None,
        at_commit: bool = True,
    ) -> Armed:
        """Let the next `times` statements that contain this text, or their COMMIT, meet the toxic."""
        armed = Armed(statement, toxic, times, call, at_commit)
        self._armed.append(armed)
        return armed

    def disarm(self) -> None:
        self._armed.clear()

    def release(self) -> None:
        """Let go what is held."""
        self._loop.call_soon_threadsafe(self._released.set)

    def cut(self) -> None:
        """Reset every connection there is."""
        self._loop.call_soon_threadsafe(lambda: [pair.cut() for pair in list(self._pairs)])

    # ── inside the loop ─────────────────────────────────────────────────────────────────────────────────

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for pair in list(self._pairs):
            pair.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.refusing:
                return
            from_server, to_server = await asyncio.open_unix_connection(self._socket)
            pair = Pair(writer, to_server)
            self._pairs.add(pair)
            try:
                await asyncio.gather(self._upstream(pair, reader), self._downstream(pair, from_server))
            finally:
                self._pairs.discard(pair)
                pair.cut()
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            with contextlib.suppress(Exception):
                writer.transport.abort()

    async def _upstream(self, pair: Pair, reader: asyncio.StreamReader) -> None:
        """Client to server, message by message."""
        while True:  # an SSLRequest may come before the real start
            head = await reader.readexactly(8)
            length, code = STARTUP.unpack(head)
            self._forward(pair, head + await reader.readexactly(length - 8))
            if code != SSL_REQUEST:
                break
        while True:
            head = await reader.readexactly(5)
            body = await reader.readexactly(int.from_bytes(head[1:]) - 4)
            self._look(pair, head[:1], body)
            if pair.now and head[:1] in b"QS":
                armed, pair.now = pair.now, None
                await self._fire(pair, armed)
            if self.latency and head[:1] in b"QS":
                await asyncio.sleep(self.latency)
            self._forward(pair, head + body)
            await pair.server.drain()

    def _forward(self, pair: Pair, data: bytes) -> None:
        if self.reset_after is not None and pair.sent + len(data) >= self.reset_after:
            pair.server.write(data[: self.reset_after - pair.sent])
            raise EOFError
        pair.sent += len(data)
        pair.server.write(data)

    def _look(self, pair: Pair, kind: bytes, body: bytes) -> None:
        """Find out which statement is to be carried out, and whether a toxic waits for it."""
        if kind == b"P":
            name, text = body.split(b"\0", 2)[:2]
            pair.statements[name] = text.decode()
            return
        if kind == b"Q":
            text_now = body[:-1].decode(errors="replace")
            word = text_now.strip().split(None, 1)[0].strip(";").upper()
            if word == "BEGIN":
                pair.in_transaction = True
            elif word in {"COMMIT", "ROLLBACK"}:
                if word == "COMMIT":
                    pair.now, pair.waiting = pair.waiting, None
                pair.in_transaction, pair.waiting = False, None
        elif kind == b"B":
            text_now = pair.statements.get(body.split(b"\0", 2)[1], "")
        else:
            return
        found = next((armed for armed in self._armed if armed.matches(text_now)), None)
        if found is not None and pair.waiting is None:
            found.fired += 1
            if pair.in_transaction and found.at_commit:
                pair.waiting = found
            else:
                pair.now = found

    async def _fire(self, pair: Pair, armed: Armed) -> None:
        """Do what is to be done before the statement goes on. Raises EOFError when it must not."""
        match armed.toxic:
            case Toxic.REFUSE:
                raise EOFError
            case Toxic.HOLD:
                self._released.clear()
                armed.call()
                await self._released.wait()
            case Toxic.LOSE_REPLY | Toxic.HANG:
                pair.mute, pair.after = True, armed
            case Toxic.CALL_AFTER:
                pair.after = armed

    async def _downstream(self, pair: Pair, reader: asyncio.StreamReader) -> None:
        """Server to client; in bytes, until a toxic wants to know when an answer is complete."""
        started = False
        while True:
            if not started:  # the answer to an SSLRequest is one byte, not a message
                first = await reader.read(65536)
                if not first:
                    raise EOFError
                started = first[:1] == b"R"
                pair.client.write(first)
                continue
            data = await reader.read(65536)
            if not data:
                raise EOFError
            # ReadyForQuery ends an answer: Z, length 5, state. Nobody pipelines here, so it ends the bytes too.
            if data[-6:] == b"Z\0\0\0\5T":
                self.round_trip()
            if pair.after is not None and data[-6:-1] == b"Z\0\0\0\5":
                if pair.after.toxic is Toxic.CALL_AFTER:
                    pair.after.call()
                    pair.after = None
                elif pair.after.toxic is Toxic.LOSE_REPLY:
                    raise EOFError
            if not pair.mute:
                pair.client.write(data)
                await pair.client.drain()
