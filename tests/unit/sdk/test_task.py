"""The decorator, the names, the shape of a call."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_queue import AsyncTask, NotJson, SettingError, SyncTask, TooLarge, registry, task
from taskflow_queue.calls import MOST_PAYLOAD_BYTES, arguments, decode, encode, encode_call, payload
from taskflow_queue.options import Options

if TYPE_CHECKING:
    from pathlib import Path


@task(queue="text", max_attempts=5, timeout=60, soft_timeout=50, initial=2, factor=3, cap=9, give_up_on=KeyError)
def count(path: str) -> int:
    """Count."""
    return len(path)


@task
async def wait(seconds: float) -> float:
    return seconds


async def test_calling_a_task_calls_the_function() -> None:
    assert count("abc") == 3
    assert await wait(0.5) == 0.5
    assert isinstance(count, SyncTask)
    assert isinstance(wait, AsyncTask)
    assert count.__doc__ == "Count."


def test_the_registry_has_the_definition() -> None:
    found = registry()[f"{__name__}:count"]
    assert found is count
    assert (found.queue, found.timeout, found.soft_timeout, found.is_async) == ("text", 60, 50, False)
    assert (found.retry.max_attempts, found.retry.initial, found.retry.factor, found.retry.cap) == (5, 2, 3, 9)
    assert registry()[f"{__name__}:wait"].is_async
    assert found.gives_up(KeyError())
    assert not found.gives_up(ValueError())


@pytest.mark.parametrize(
    "wrong",
    [{"max_attempts": 0}, {"timeout": 0}, {"timeout": 5, "soft_timeout": 5}, {"initial": -1}, {"factor": 0.5}],
)
def test_a_definition_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        task(**wrong)(lambda: None)


def test_a_generator_is_refused() -> None:
    with pytest.raises(SettingError, match="generator"):

        @task
        def many() -> Any:
            yield 1


def test_a_script_names_its_tasks_as_a_worker_does(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    code = "from taskflow_queue import task, registry\n@task\ndef f(): ...\nprint(*registry())\n"
    (tmp_path / "app" / "jobs.py").write_text(code)
    python = [sys.executable, "-W", "error"]
    for arguments_, cwd, name in [
        (["jobs.py"], tmp_path / "app", "jobs:f"),
        (["-m", "app.jobs"], tmp_path, "app.jobs:f"),
        (["-c", "import app.jobs"], tmp_path, "app.jobs:f"),
    ]:
        found = subprocess.run([*python, *arguments_], cwd=cwd, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == name


@pytest.mark.parametrize(
    ("value", "call"),
    [
        (None, ([], {})),
        ({"path": "a"}, ([], {"path": "a"})),
        ({"args": [1], "kwargs": {"b": 2}}, ([1], {"b": 2})),
        ({"args": [1]}, ([], {"args": [1]})),
        ({"args": 1, "kwargs": {}}, ([], {"args": 1, "kwargs": {}})),
        ({"args": [], "kwargs": {}, "x": 1}, ([], {"args": [], "kwargs": {}, "x": 1})),
        ([1, 2], ([[1, 2]], {})),
        ("a", (["a"], {})),
        (False, ([False], {})),
    ],
)
def test_a_payload_stands_for_arguments(value: Any, call: tuple[list[Any], dict[str, Any]]) -> None:
    assert arguments(value) == call


def _nothing() -> None: ...
def _two(a: int, b: int) -> None: ...
def _one_or_two(a: int, b: int = 0, /) -> None: ...
def _any(a: int, *more: int) -> None: ...
def _named(a: int, *, b: int) -> None: ...
def _named_or_not(a: int, *, b: int = 0, **more: int) -> None: ...


@pytest.mark.parametrize("function", [_nothing, _two, _one_or_two, _any, _named, _named_or_not])
@pytest.mark.parametrize("number", range(5))
def test_a_call_without_keywords_is_taken_when_the_function_takes_it(function: Any, number: int) -> None:
    made = task(name=f"takes:{function.__name__}")(function)
    try:
        function(*range(number))
    except TypeError:
        with pytest.raises(TypeError, match=function.__name__):
            made.payload(*range(number))
    else:
        assert decode(made.payload(*range(number))) == {"args": list(range(number)), "kwargs": {}}


def test_a_call_comes_back_as_it_went() -> None:
    assert arguments(payload((1, "a"), {"args": [1]})) == ([1, "a"], {"args": [1]})


def _deep() -> Any:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize("value", [float("inf"), {1, 2}, "\ud800", {"a": b""}, ["a\0"], {"\0": 1}, _deep()])
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(NotJson):
        encode(value)


def test_a_backslash_before_u0000_is_no_nul() -> None:
    assert encode("\\u0000") == b'"\\\\u0000"'
    assert decode(encode_call(["\\u0000"], {}, name="t")) == payload(["\\u0000"], {})


plain = st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_characters="\0", codec="utf-8"))


@given(st.lists(plain | st.floats(allow_nan=False, allow_infinity=False)), st.dictionaries(st.text("ab"), plain))
def test_a_call_is_written_as_any_value(args: list[Any], kwargs: dict[str, Any]) -> None:
    assert decode(encode_call(args, kwargs, name="t")) == payload(args, kwargs)


@pytest.mark.parametrize("wrong", ["\ud800", "a\0", float("nan"), pytest.param(10**5000, id="long")])
def test_a_call_with_what_is_no_json_is_refused(wrong: object) -> None:
    for args, kwargs in (((1, wrong), {}), ((), {"a": wrong})):
        with pytest.raises(NotJson, match="arguments of t "):
            encode_call(args, kwargs, name="t")


def test_a_call_that_is_too_large_is_refused() -> None:
    with pytest.raises(TooLarge, match="the arguments of t is"):
        encode_call(["x" * MOST_PAYLOAD_BYTES], {}, name="t")


def test_options_are_laid_over_each_other() -> None:
    first = Options(priority="LOW", delay=5, queue="a")
    both = Options(scheduled_at=datetime(2030, 1, 1, tzinfo=UTC), queue="b").over(first)
    assert both == Options(priority="LOW", scheduled_at=datetime(2030, 1, 1, tzinfo=UTC), queue="b")
    assert Options(delay=timedelta(0)).over(first).delay == timedelta(0)
    assert both.body() == {"queue": "b", "priority": "LOW", "scheduled_at": "2030-01-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    "wrong", [{"priority": "URGENT"}, {"delay": 1, "scheduled_at": datetime(2030, 1, 1, tzinfo=UTC)}]
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        count.options(**wrong)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(SettingError, match="time zone"):
        Options(expires_at=datetime(2030, 1, 1)).body()  # noqa: DTZ001
