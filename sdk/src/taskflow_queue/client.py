"""The client: a server and a key, with a sync and an async face for every verb.

Owns who is asked and how often; verbs.py and admin.py own what is asked, http.py the sending. Safe to share between
threads, event loops and across a fork.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, Protocol, Self, TypeVar, Unpack

from taskflow_queue import admin, calls, settings, side_by_side, verbs
from taskflow_queue.errors import TaskFlowError
from taskflow_queue.handle import Handle
from taskflow_queue.importing import refuse_submits
from taskflow_queue.options import Options, Said
from taskflow_queue.wire import PATIENCE, Answer, Call, Lost, exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Sequence

    from taskflow_queue.shapes import Flow

P = ParamSpec("P")
R = TypeVar("R")


class Transport(Protocol):
    """Who sends calls: http.py over the network, testing.py to a queue in memory."""

    at_once: int  # how many calls of one `run_all` it is given at a time

    def send(self, call: Call) -> Answer | Lost:
        """Wait `call.after` seconds, then send."""
        ...

    async def send_async(self, call: Call) -> Answer | Lost:
        """Wait `call.after` seconds, then send."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow, of the time in which this transport waits."""
        ...

    def close(self) -> None:
        """Close the connections of the sync face."""
        ...

    async def close_async(self) -> None:
        """Close the connections of this event loop."""
        ...


class _Sync(Generic[P, R]):
    """A verb as a method."""

    def __init__(self, verb: Callable[P, Flow[R]]) -> None:
        self._verb = verb
        self.__doc__ = verb.__doc__

    def __get__(self, client: Client | None, owner: type[Client]) -> Callable[P, R]:
        verb = self._verb

        @functools.wraps(verb)
        def method(*args: P.args, **kwargs: P.kwargs) -> R:
            return (client or current()).run(verb(*args, **kwargs))

        return method


class _Async(Generic[P, R]):
    """A verb as an async method."""

    def __init__(self, verb: Callable[P, Flow[R]]) -> None:
        self._verb = verb
        self.__doc__ = verb.__doc__

    def __get__(self, client: Client | None, owner: type[Client]) -> Callable[P, Coroutine[Any, Any, R]]:
        verb = self._verb

        @functools.wraps(verb)
        async def method(*args: P.args, **kwargs: P.kwargs) -> R:
            return await (client or current()).run_async(verb(*args, **kwargs))

        return method


def _faces(verb: Callable[P, Flow[R]]) -> tuple[_Sync[P, R], _Async[P, R]]:
    return _Sync(verb), _Async(verb)


class Client:
    """A connection to a TaskFlow server. Each verb has a face for async code, whose name ends in `_async`.

    `url` and `api_key` default to the settings (see settings.py). `patience` is for how many seconds a call is tried
    again while the server cannot be reached, is overloaded or says to come back later.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        patience: float = PATIENCE,
        transport: Transport | None = None,
    ) -> None:
        if transport is None:
            from taskflow_queue.http import Http  # noqa: PLC0415 - workers import this module, and send nothing

            transport = Http(settings.resolve(url, api_key))
        self._transport = transport
        self.patience = patience

    get, get_async = _faces(verbs.get)
    tasks, tasks_async = _faces(verbs.tasks)
    cancel, cancel_async = _faces(verbs.cancel)
    retry, retry_async = _faces(verbs.retry)
    events, events_async = _faces(verbs.events)
    attempts, attempts_async = _faces(verbs.attempts)
    logs, logs_async = _faces(verbs.logs)
    queues, queues_async = _faces(admin.queues)
    pause, pause_async = _faces(admin.pause)
    resume, resume_async = _faces(admin.resume)
    limit, limit_async = _faces(admin.limit)
    workers, workers_async = _faces(admin.workers)
    keys, keys_async = _faces(admin.keys)
    create_key, create_key_async = _faces(admin.create_key)
    revoke_key, revoke_key_async = _faces(admin.revoke_key)
    register, register_async = _faces(admin.register)
    token, token_async = _faces(admin.token)

    def submit(self, type: str, payload: Any = None, **said: Unpack[Said]) -> Handle[Any]:  # noqa: A002 - JSON
        """Submit a task by its name: for code that cannot import it. Raises what `submit` of a task raises."""
        body, key = _by_name(type, payload, Options(**said))
        return self.handle(self.run(verbs.submit(body, key)))

    async def submit_async(
        self,
        type: str,  # noqa: A002 - the API's name for it
        payload: Any = None,
        **said: Unpack[Said],
    ) -> Handle[Any]:
        """Do what `submit` does, awaiting the server."""
        body, key = _by_name(type, payload, Options(**said))
        return self.handle(await self.run_async(verbs.submit(body, key)))

    def handle(self, task_id: str) -> Handle[Any]:
        """Return a handle of a task that was submitted earlier. Asks nothing."""
        return Handle(task_id, self)

    def run(self, flow: Flow[R]) -> R:
        """Do what a flow asks for."""
        steps = _steps(flow, self.patience)
        try:
            call = next(steps)
            while True:
                call = steps.send(self._transport.send(call))
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    async def run_async(self, flow: Flow[R]) -> R:
        """Do what a flow asks for, awaiting the server."""
        steps = _steps(flow, self.patience)
        try:
            call = next(steps)
            while True:
                call = steps.send(await self._transport.send_async(call))
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    def run_all(self, flows: Sequence[Flow[R]]) -> list[R | TaskFlowError | None]:
        """Do several flows, the next while the one before it is answered: see side_by_side.py."""
        return side_by_side.run(flows, self.run, self._transport.at_once)

    async def run_all_async(self, flows: Sequence[Flow[R]]) -> list[R | TaskFlowError | None]:
        """Do what `run_all` does, awaiting the server."""
        return await side_by_side.run_async(flows, self.run_async, self._transport.at_once)

    def monotonic(self) -> float:
        """Return the time by which this client waits, in seconds that only grow."""
        return self._transport.monotonic()

    def close(self) -> None:
        """Close the connections of the sync face; the next call opens new ones."""
        self._transport.close()

    async def close_async(self) -> None:
        """Close the connections of this event loop; the next call opens new ones."""
        await self._transport.close_async()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close_async()

    def __repr__(self) -> str:
        return f"<client of {self._transport!r}>"


def _steps(flow: Flow[R], patience: float) -> Generator[Call, Answer | Lost, R]:
    """Put the tries of each call in the place of the call; what ends badly is raised in the flow."""
    try:
        call = next(flow)
        while True:
            if call.method == "POST":
                refuse_submits()
            try:
                answer = yield from exchange(call, patience)
            except TaskFlowError as error:
                call = flow.throw(error)
            else:
                call = flow.send(answer)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


def _by_name(name: str, payload: Any, said: Options) -> tuple[bytes, str | None]:
    encoded = calls.encode(payload, what="payload", most=calls.MOST_PAYLOAD_BYTES)
    [body] = verbs.bodies_of(name, [encoded], said)
    return body, said.idempotency_key


# ── the process's own client ────────────────────────────────────────────────────────────────────────────

_own: Final[list[Client]] = []


def current() -> Client:
    """Return the client that tasks are submitted with when no other is named; made at the first call."""
    if not _own:
        _own.append(Client())
    return _own[-1]


def use(client: Client) -> None:
    """Make `client` the one that tasks are submitted with, until `stop_using`: `use(Client("http://...", key))`."""
    _own.append(client)


def stop_using(client: Client) -> None:
    """Undo `use`."""
    _own.remove(client)
