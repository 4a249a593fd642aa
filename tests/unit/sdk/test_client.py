"""What the client repeats, what it does not, and what it makes of answers. The network is httpx2's own mock."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from taskflow_queue import Client, PartlySubmitted, ResultTimeout, TaskFailed, clock, task, verbs
from taskflow_queue.errors import Conflict, Invalid, NotFound, ServerError, Throttled, Unauthenticated, Unreachable
from taskflow_queue.http import Http
from taskflow_queue.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

ID = "0193e0a0-0000-7000-8000-000000000001"


class Server:
    """Answers in turn with what it was given; the last one repeats. Time is its own."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []
        self.elapsed = 0.0

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer = answer(request)
        status, body, *headers = answer
        return httpx2.Response(status, json=body, headers=headers[0] if headers else None)

    def client(self, **settings: Any) -> Client:
        options = {"transport": httpx2.MockTransport(self)}
        return Client(transport=Http(Settings("http://server", "tf_key", "test"), options=options), **settings)

    @property
    def keys(self) -> list[str]:
        return [request.headers["idempotency-key"] for request in self.requests]


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr(clock, "pause", taken.append)
    monkeypatch.setattr(clock, "monotonic", lambda: sum(taken))
    return taken


@task(name="client:size")
def size(word: str) -> int:
    return len(word)


CREATED = (201, {"id": ID, "status": "QUEUED"})
BUSY = (503, {"code": "unavailable", "detail": "the database cannot be reached"}, {"retry-after": "2"})


def test_a_submission_says_what_the_task_and_its_options_say() -> None:
    server = Server(CREATED)
    handle = size.options(client=server.client(), priority="HIGH", queue="text", timeout=5).submit("abc")
    assert handle.id == ID
    sent = json.loads(server.requests[0].content)
    assert sent == {
        "type": "client:size",
        "payload": {"args": ["abc"], "kwargs": {}},
        "priority": "HIGH",
        "queue": "text",
        "timeout_seconds": 5,
        "max_attempts": 3,
    }
    assert server.requests[0].headers["x-api-key"] == "tf_key"


@pytest.mark.parametrize(
    "first",
    [
        BUSY,
        httpx2.ConnectError("refused"),
        httpx2.ReadError("reset"),
        httpx2.RemoteProtocolError("closed"),
        (502, None),
        (409, {"code": "in_progress"}),
        (429, {"code": "throttled"}, {"retry-after": "1"}),
    ],
)
def test_a_submission_is_repeated_under_the_same_key(first: Any) -> None:
    server = Server(first, first, CREATED)
    size.options(client=server.client()).submit("a")
    assert len(set(server.keys)) == 1
    assert len(server.keys) == 3


def test_two_submissions_have_two_keys_and_a_key_of_the_callers_is_kept() -> None:
    server = Server(CREATED)
    client = server.client()
    size.options(client=client).submit("a")
    size.options(client=client).submit("a")
    size.options(client=client, idempotency_key="mine").submit("a")
    assert len(set(server.keys)) == 3
    assert server.keys[2] == "mine"


def test_retry_after_is_kept_to(pauses: list[float]) -> None:
    server = Server(BUSY, CREATED)
    size.options(client=server.client()).submit("a")
    assert pauses[0] >= 2


def test_patience_is_bounded(pauses: list[float]) -> None:
    with pytest.raises(ServerError, match="database cannot be reached") as refused:
        size.options(client=Server(BUSY).client(patience=10)).submit("a")
    assert refused.value.code == "unavailable"
    assert 6 <= sum(pauses) <= 10
    with pytest.raises(Unreachable, match="taskflow dev"):
        Server(httpx2.ConnectError("refused")).client(patience=1).get(ID)
    with pytest.raises(Throttled):
        Server((429, {}, {"retry-after": "60"})).client().get(ID)


def test_what_may_have_happened_is_not_repeated_without_a_key() -> None:
    server = Server(httpx2.ReadError("reset"), (200, {}))
    with pytest.raises(Unreachable):
        server.client().retry(ID)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"), [(400, Invalid), (401, Unauthenticated), (404, NotFound), (409, Conflict), (422, Invalid)]
)
def test_a_refusal_is_an_error_with_code_fix_and_field(status: int, kind: type[Exception]) -> None:
    problem = {"code": "wrong", "detail": "it is wrong", "fix": "mend it", "field": "queue", "request_id": "r1"}
    server = Server((status, problem))
    with pytest.raises(kind) as refused:
        server.client().get(ID)
    assert str(refused.value) == "it is wrong; mend it"
    assert (refused.value.code, refused.value.field, refused.value.request_id) == ("wrong", "queue", "r1")  # type: ignore[attr-defined]
    assert len(server.requests) == 1


def test_a_page_of_a_proxy_is_an_error_too() -> None:
    with pytest.raises(Invalid, match="answered 413"):
        Server((413, "too large")).client().get(ID)


def _all_created(request: httpx2.Request) -> tuple[int, Any]:
    tasks = json.loads(request.content)["tasks"]
    return 201, {
        "tasks": [{"index": n, "id": one["payload"]["args"][0][:20], "status": "QUEUED"} for n, one in enumerate(tasks)]
    }


def test_map_splits_by_number_and_by_bytes_and_keeps_the_order() -> None:
    server = Server(_all_created)
    handles = size.options(client=server.client()).map(f"w{n}" for n in range(2500))
    assert [one.id for one in handles] == [f"w{n}" for n in range(2500)]
    assert [len(json.loads(request.content)["tasks"]) for request in server.requests] == [1000, 1000, 500]
    assert len(set(server.keys)) == 3

    server = Server(_all_created)
    size.options(client=server.client()).map([f"{n:020}" + "x" * 200_000 for n in range(10)])
    assert len(server.requests) == 3
    assert all(len(request.content) < 1024 * 1024 for request in server.requests)


def test_map_checks_every_call_before_the_first_is_sent() -> None:
    server = Server(_all_created)
    with pytest.raises(TypeError):
        size.options(client=server.client()).map(["a", object()])
    assert server.requests == []
    assert size.options(client=server.client()).map([]) == []
    assert server.requests == []


def test_map_that_is_stopped_half_way_says_what_was_submitted() -> None:
    server = Server(_all_created, (422, {"code": "invalid", "detail": "no"}))
    with pytest.raises(PartlySubmitted, match="1000 tasks were submitted, 5 were not") as stopped:
        size.options(client=server.client()).map(f"w{n}" for n in range(1005))
    assert len(stopped.value.handles) == 1000
    assert stopped.value.missing == [1000, 1001, 1002, 1003, 1004]
    with pytest.raises(Invalid):
        size.options(client=Server((422, {})).client()).map(["a"])


def _slowly(pauses: list[float], status: str) -> Callable[[httpx2.Request], tuple[int, Any]]:
    def answer(request: httpx2.Request) -> tuple[int, Any]:
        pauses.append(float(request.url.params["wait"]))
        return 202, {"id": ID, "status": status}

    return answer


def test_a_result_is_waited_for_by_long_polls(pauses: list[float]) -> None:
    slow = _slowly(pauses, "QUEUED")
    server = Server(slow, slow, (200, {"id": ID, "status": "COMPLETED", "result": {"lines": 3}}))
    handle = server.client().handle(ID)
    assert handle.result(timeout=70) == {"lines": 3}
    assert [float(request.url.params["wait"]) for request in server.requests] == [30, 30, 10]
    assert handle.result() == {"lines": 3}
    assert len(server.requests) == 3  # a result is final, and kept


def test_a_result_that_does_not_come_is_a_timeout(pauses: list[float]) -> None:
    handle = Server(_slowly(pauses, "IN_PROGRESS")).client().handle(ID)
    with pytest.raises(TimeoutError, match="it is IN_PROGRESS"):
        handle.result(timeout=45)
    with pytest.raises(ResultTimeout):
        handle.result(timeout=0)


def test_a_server_that_answers_early_is_not_asked_in_a_tight_loop() -> None:
    server = Server((202, {"id": ID, "status": "QUEUED"}))
    with pytest.raises(ResultTimeout):
        server.client().handle(ID).result(timeout=10)
    assert len(server.requests) <= 45


def test_the_error_of_a_task_is_told() -> None:
    error = {"type": "ValueError", "message": "no", "traceback": "Traceback ..."}
    handle = Server((200, {"id": ID, "status": "FAILED", "result": None, "error": error})).client().handle(ID)
    with pytest.raises(TaskFailed, match="ValueError: no") as failed:
        handle.result()
    assert failed.value.task_id == ID
    assert handle.wait().error.traceback == "Traceback ..."  # type: ignore[union-attr]


async def test_the_async_face_repeats_as_the_sync_one(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr(clock, "sleep", sleep)
    server = Server(BUSY, CREATED, (200, {"id": ID, "status": "COMPLETED", "result": 1}))
    async with server.client() as client:
        handle = await size.options(client=client).submit_async("a")
        assert await handle == 1
    assert taken[0] >= 2


def test_a_new_member_of_an_answer_is_left_aside() -> None:
    info = Server((200, {"id": ID, "type": "a:b", "status": "NEW_STATUS", "colour": "red"})).client().get(ID)
    assert info.status == "NEW_STATUS"


def test_batches_lose_nothing() -> None:
    bodies = [b"x" * n for n in (1, 800_000, 200_000, 3, 900_000, 1_000_000)]
    found = list(verbs.batches(bodies))
    assert [one for batch in found for one in batch] == bodies
    assert all(len(batch) == 1 or sum(map(len, batch)) < 2**20 for batch in found)


async def test_many_awaited_results_keep_no_submission_out() -> None:
    polls: list[float] = []
    open_ = asyncio.Event()

    async def answer(request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            return httpx2.Response(*CREATED[:1], json=CREATED[1])
        polls.append(float(request.url.params["wait"]))
        await open_.wait()
        return httpx2.Response(200, json={"id": ID, "status": "COMPLETED", "result": 1})

    options = {"transport": httpx2.MockTransport(answer)}
    async with Client(transport=Http(Settings("http://server", "tf_key", "test"), options=options)) as client:
        waiting = [asyncio.create_task(client.handle(ID).result_async()) for _ in range(300)]
        await asyncio.sleep(0)
        await size.options(client=client).submit_async("a")
        assert len(polls) < 100
        open_.set()
        assert await asyncio.gather(*waiting) == [1] * 300
        assert (polls[0], polls[-1]) == (30, 2)
