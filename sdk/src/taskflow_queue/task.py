"""Tasks: functions that can be called here, or submitted to be called by a worker.

Owns the decorator and the registry of what it made. Sends nothing: see client.py; runs nothing: see runner.py.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast, overload

from taskflow_queue import calls
from taskflow_queue.errors import SettingError
from taskflow_queue.options import Options
from taskflow_queue.retry import RetryPolicy
from taskflow_queue.submitting import Prepared, Submits

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

P = ParamSpec("P")
R = TypeVar("R")
Errors = type[BaseException] | tuple[type[BaseException], ...]

_registry: dict[str, Task[..., Any]] = {}


class Task(Submits[P, R]):
    """A function that workers know by `name`. `timeout` and `soft_timeout` are seconds, None is no limit."""

    def __init__(
        self,
        function: Callable[P, Any],
        *,
        name: str | None = None,
        queue: str = "default",
        timeout: float | None = None,
        soft_timeout: float | None = None,
        retry: RetryPolicy | None = None,
        retry_on: Errors | None = None,
        give_up_on: Errors = (),
    ) -> None:
        self.__name__ = function.__name__
        self.__qualname__ = function.__qualname__
        self.__module__ = function.__module__
        self.__doc__ = function.__doc__
        self.__wrapped__ = function
        self.function = function
        self.name = name or name_of(function)
        self.queue = queue
        self.timeout = timeout
        self.soft_timeout = soft_timeout
        self.retry = retry or RetryPolicy()
        self.retry_on = retry_on
        self.give_up_on = give_up_on
        self.signature = inspect.signature(function)
        self._plain = _plain_calls(self.signature)
        self.is_async = inspect.iscoroutinefunction(function)
        _check(self)

    @property
    def max_attempts(self) -> int:
        """How many charged failures end it."""
        return self.retry.max_attempts

    def _prepared(self) -> Prepared[P, R]:
        return Prepared(self, Options(), None)

    def payload(self, *args: Any, **kwargs: Any) -> bytes:
        """Return a call as JSON. Raises TypeError when the function takes no such call, NotJson, TooLarge."""
        if kwargs or len(args) not in self._plain:
            try:
                self.signature.bind(*args, **kwargs)
            except TypeError as wrong:
                raise TypeError(f"{self.__name__}() {wrong}") from None
        return calls.encode_call(args, kwargs, name=self.name)

    def gives_up(self, error: BaseException) -> bool:
        """Whether `give_up_on` or `retry_on` say that another attempt makes no sense after this error."""
        if isinstance(error, self.give_up_on):
            return True
        return self.retry_on is not None and not isinstance(error, self.retry_on)

    def __repr__(self) -> str:
        return f"<task {self.name}>"


class SyncTask(Task[P, R]):
    """A task made of a plain function: calling it calls the function, here and now."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        return cast("R", self.function(*args, **kwargs))


class AsyncTask(Task[P, R]):
    """A task made of an async function: calling it gives the function's coroutine, here and now."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the function; await the answer."""
        return cast("Coroutine[Any, Any, R]", self.function(*args, **kwargs))


class _Decorator:
    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Task[..., Any]:
        kind: type[Task[..., Any]] = AsyncTask if inspect.iscoroutinefunction(function) else SyncTask
        return _register(kind(function, **self._settings))


@overload
def task(  # type: ignore[overload-overlap]  # an async function is the narrower case, and stands first
    function: Callable[P, Coroutine[Any, Any, R]], /
) -> AsyncTask[P, R]: ...
@overload
def task(function: Callable[P, R], /) -> SyncTask[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    queue: str = "default",
    max_attempts: int = 3,
    timeout: float | None = None,
    soft_timeout: float | None = None,
    initial: float = 1.0,
    factor: float = 2.0,
    cap: float = 300.0,
    retry_on: Errors | None = None,
    give_up_on: Errors = (),
) -> _Decorator: ...
def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str = "default",
    max_attempts: int = 3,
    timeout: float | None = None,
    soft_timeout: float | None = None,
    initial: float = 1.0,
    factor: float = 2.0,
    cap: float = 300.0,
    retry_on: Errors | None = None,
    give_up_on: Errors = (),
) -> Any:
    """Make a task of a function, sync or async: `@task`, or `@task(queue="text", max_attempts=5)`.

    `timeout` seconds end an attempt; at `soft_timeout` it is told first, by an error raised in it. The n-th failure
    is followed by a random wait of up to min(`cap`, `initial` * `factor` ** (n - 1)) seconds, and `max_attempts`
    failures are the end. An error of `give_up_on`, or one that `retry_on` (when given) does not name, ends it at
    once. `name` is what workers know it by; without one it is "module:function". Raises SettingError.
    """
    decorator = _Decorator(
        {
            "name": name,
            "queue": queue,
            "timeout": timeout,
            "soft_timeout": soft_timeout,
            "retry": RetryPolicy(max_attempts=max_attempts, initial=initial, factor=factor, cap=cap),
            "retry_on": retry_on,
            "give_up_on": give_up_on,
        }
    )
    return decorator if function is None else decorator(function)


def registry() -> dict[str, Task[..., Any]]:
    """Return every task that was defined in this process, by name."""
    return dict(_registry)


def name_of(function: Callable[..., Any]) -> str:
    """Return "module:function". In a script that is the file's stem, so `python tasks.py` and a worker agree."""
    module = function.__module__
    if module in {"__main__", "__mp_main__"}:
        main = sys.modules[module]
        spec = getattr(main, "__spec__", None)
        if spec is not None and spec.name != "__main__":
            module = spec.name
        elif file := getattr(main, "__file__", None):
            module = Path(file).stem
    return f"{module}:{function.__qualname__}"


def _register(made: Task[P, R]) -> Task[P, R]:
    """A module that is loaded again replaces its tasks; two functions of one name are a mistake."""
    there = _registry.get(made.name)
    if there is not None and name_of(there.function) != name_of(made.function):
        both = f"{name_of(there.function)} and {name_of(made.function)}"
        raise SettingError(f"two tasks are named {made.name!r}: {both}", fix="give one of them another name")
    _registry[made.name] = made
    return made


def _check(made: Task[..., Any]) -> None:
    """Refuse at the definition what could only fail later, in a worker."""
    function, retry = made.function, made.retry
    wrong = None
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        wrong = "is a generator, which has no single result"
    elif retry.max_attempts < 1:
        wrong = f"has max_attempts={retry.max_attempts}, and at least 1 attempt is needed"
    elif any(limit is not None and limit <= 0 for limit in (made.timeout, made.soft_timeout)):
        wrong = "has a time limit that is not above 0 seconds"
    elif made.timeout is not None and made.soft_timeout is not None and made.soft_timeout >= made.timeout:
        wrong = "has a soft_timeout that is not before its timeout"
    elif min(retry.initial, retry.cap) < 0 or retry.factor < 1:
        wrong = "has a back-off with a negative wait, or a factor below 1"
    if wrong is not None:
        raise SettingError(f"the task {made.name} {wrong}")


def _plain_calls(signature: inspect.Signature) -> range:
    """Return how many arguments a call without keywords may have: for those, nothing else can be wrong."""
    parameters = list(signature.parameters.values())
    if any(one.kind is one.KEYWORD_ONLY and one.default is one.empty for one in parameters):
        return range(0)
    places = [one for one in parameters if one.kind in {one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD}]
    most = sys.maxsize - 1 if any(one.kind is one.VAR_POSITIONAL for one in parameters) else len(places)
    return range(sum(one.default is one.empty for one in places), most + 1)
