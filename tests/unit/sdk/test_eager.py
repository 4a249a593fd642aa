"""The queue in memory follows the rules of a server, without its time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from taskflow_queue import (
    Client,
    Conflict,
    NotFound,
    NotJson,
    ResultTimeout,
    RetryLater,
    SettingError,
    TaskCancelled,
    TaskExpired,
    TaskFailed,
    TooLarge,
    current,
    task,
)
from taskflow_queue.testing import eager

calls: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    calls.clear()


@task(name="eager:double")
def double(value: Any, *, times: int = 2) -> Any:
    return value * times


@task(name="eager:echo")
async def echo(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


@task(name="eager:flaky", max_attempts=4, initial=10, cap=100, give_up_on=KeyError, retry_on=(ValueError, KeyError))
def flaky(failures: int, error: str = "ValueError") -> int:
    calls.append(current().attempt)
    if len(calls) <= failures:
        raise {"ValueError": ValueError, "KeyError": KeyError, "OSError": OSError}[error]("no")
    return len(calls)


@task(name="eager:later", max_attempts=1)
def later(times: int) -> int:
    calls.append(1)
    if len(calls) <= times:
        raise RetryLater(60, "not yet")
    return len(calls)


@task(name="eager:note")
def note(word: str) -> None:
    calls.append(word)


def test_a_submitted_task_has_run() -> None:
    with eager() as queue:
        handle = double.submit(21)
        assert handle.status() == "COMPLETED"
        assert handle.result(timeout=0) == 42
        assert [one.kind for one in queue.tasks[0].attempts] == ["returned"]


def test_arguments_and_results_are_what_json_makes_of_them() -> None:
    with eager():
        assert double.submit((1, 2)).result() == [1, 2, 1, 2]
        assert echo.submit({1: None}).result() == {"1": None}


def test_a_wrong_call_fails_at_the_call() -> None:
    with eager() as queue:
        with pytest.raises(TypeError, match="missing a required argument: 'value'"):
            double.submit()  # type: ignore[call-arg]
        with pytest.raises(NotJson):
            double.submit(object())
        with pytest.raises(NotJson):
            double.submit(float("nan"))
        with pytest.raises(NotJson, match="NUL"):
            double.submit("a\0b")
        with pytest.raises(TooLarge):
            double.submit("x" * 300_000)
        assert queue.tasks == []


def test_a_result_that_is_no_json_or_too_large_fails_the_task_at_once() -> None:
    with eager() as queue:
        assert double.submit("x" * 200_000, times=6).wait().error.type == "ResultRejected"  # type: ignore[union-attr]
        assert len(queue.tasks[0].attempts) == 1


def test_failures_are_retried_with_growing_waits_that_nobody_waits_for() -> None:
    with eager() as queue:
        start = queue.now()
        assert flaky.submit(2).result() == 3
        assert calls == [1, 2, 3]
        assert timedelta(0) < queue.now() - start <= timedelta(seconds=30)
        assert queue.tasks[0].retry_count == 2


def test_max_attempts_is_the_end() -> None:
    with eager():
        with pytest.raises(TaskFailed, match="ValueError: no") as failed:
            flaky.submit(99).result()
        assert failed.value.error_type == "ValueError"
        assert "flaky" in failed.value.traceback
        assert calls == [1, 2, 3, 4]
        calls.clear()
        with pytest.raises(TaskFailed):
            flaky.options(max_attempts=2).submit(99).result()
        assert len(calls) == 2


@pytest.mark.parametrize("error", ["KeyError", "OSError"])
def test_what_give_up_on_names_or_retry_on_does_not_is_the_end_at_once(error: str) -> None:
    with eager():
        with pytest.raises(TaskFailed):
            flaky.submit(99, error).result()
        assert calls == [1]


def test_retry_later_charges_nothing() -> None:
    with eager() as queue:
        start = queue.now()
        assert later.submit(3).result() == 4
        assert queue.now() - start == timedelta(seconds=180)
        assert queue.tasks[0].retry_count == 0


def test_a_delayed_task_waits_for_its_time() -> None:
    with eager() as queue:
        handle = double.options(delay=3600).submit(1)
        assert handle.status() == "PENDING"
        with pytest.raises(ResultTimeout):
            handle.result(timeout=5)
        queue.advance(3595)
        assert handle.status() == "COMPLETED"
        assert double.options(delay=10**6).submit(2).result() == 4


def test_a_task_that_is_too_late_expires() -> None:
    with eager(hold=True) as queue:
        handle = double.options(expires_at=10).submit(1)
        queue._elapsed = 11
        with pytest.raises(TaskExpired):
            handle.result()


def test_held_tasks_run_by_priority_then_age() -> None:
    with eager(hold=True) as queue:
        note.options(priority="LOW").submit("low")
        note.map(["first", "second"])
        note.options(priority="HIGH").submit("high")
        queue.drain()
        assert calls == ["high", "first", "second", "low"]


def test_a_cancelled_task_does_not_run_and_can_be_redriven() -> None:
    with eager(hold=True):
        handle = note.submit("x")
        assert handle.cancel() == "CANCELLED"
        with pytest.raises(TaskCancelled):
            handle.result()
        assert handle.cancel() == "CANCELLED"
        handle.retry()
        handle.result()
        assert calls == ["x"]
        with pytest.raises(Conflict):
            handle.cancel()
        with pytest.raises(Conflict):
            handle.retry()


def test_an_idempotency_key_makes_one_task_of_two_submissions() -> None:
    with eager() as queue:
        first = note.options(idempotency_key="k").submit("x")
        second = note.options(idempotency_key="k").submit("x")
        assert first.id == second.id
        assert len(queue.tasks) == 1


def test_map_goes_side_by_side_as_the_built_in_one() -> None:
    @task(name="eager:add")
    def add(left: int, right: int) -> int:
        return left + right

    with eager():
        assert [one.result() for one in add.map([1, 2], [10, 20])] == [11, 22]
        with pytest.raises(ValueError, match="shorter"):
            add.map([1, 2], [10])


def test_a_payload_of_a_rest_user_is_keyword_arguments() -> None:
    with eager() as queue:
        client = Client(transport=queue)
        assert client.submit("eager:double", {"value": 2, "times": 3}).result() == 6
        assert client.submit("eager:double", 5).result() == 10
        assert client.submit("eager:double", {"args": [1], "kwargs": {}}).result() == 2


def test_a_task_that_nobody_defines_says_so_instead_of_hanging() -> None:
    with eager() as queue:
        handle = Client(transport=queue).submit("eager:nobody")
        assert handle.get().waiting.code == "unknown_type"  # type: ignore[union-attr]
        with pytest.raises(Conflict, match="no task 'eager:nobody' is defined"):
            handle.result()
        with pytest.raises(NotFound):
            Client(transport=queue).get("nothing")


def test_a_task_may_submit_others() -> None:
    @task(name="eager:parent")
    def parent(words: list[str]) -> list[str]:
        return [note.submit(word).id for word in words]

    with eager():
        assert len(parent.submit(["a", "b"]).result()) == 2
        assert calls == ["a", "b"]


async def test_the_async_faces_work_inside_a_loop() -> None:
    with eager():
        assert await (await echo.submit_async([1])) == [1]
        handles = await double.map_async([1, 2])
        assert [await one.result_async() for one in handles] == [2, 4]


def test_logs_and_progress_are_kept() -> None:
    @task(name="eager:talk")
    def talk() -> None:
        current().log("half", "way")
        current().progress(0.5, "half")

    with eager() as queue:
        handle = talk.submit()
        assert queue.tasks[0].attempts[0].logs == "half way\n"
        assert handle.get().progress.fraction == 0.5  # type: ignore[union-attr]


def test_two_functions_of_one_name_are_refused() -> None:
    with pytest.raises(SettingError, match="two tasks are named"):

        @task(name="eager:double")
        def other() -> None: ...


def test_outside_of_it_nothing_stays() -> None:
    from taskflow_queue import client

    before = list(client._own)
    with eager():
        pass
    assert client._own == before
