"""What a handler did, as a bounded Done: a pure translation that itself never fails.

Everything that can come out of foreign code comes out here: any value, any BaseException, texts of any size with any
character, exceptions whose own `str()` raises.
"""

from __future__ import annotations

import asyncio
import re
import traceback
from typing import TYPE_CHECKING, Any, Final

import msgspec

from taskflow_queue import calls
from taskflow_queue.errors import Cancelled, RetryLater, SoftTimeout, TimedOut
from taskflow_queue.protocol import MOST_MESSAGE, MOST_RESULT, MOST_TRACEBACK, Done, Run

if TYPE_CHECKING:
    from collections.abc import Callable

_NULL: Final = b"null"
_STOPS: Final = (asyncio.CancelledError, Cancelled, TimedOut)
_FRAMES: Final = 60  # of a traceback, the innermost ones: a RecursionError has a thousand
_CHAIN: Final = 4  # errors behind the error
_LONGEST_LATER: Final = 366 * 86_400.0
_FOREIGN: Final = re.compile("[\x00\ud800-\udfff]")  # what neither UTF-8 nor PostgreSQL's text can hold


def clean(text: str, most: int) -> str:
    """Return `text` as storable text of at most `most` characters, its middle left out when it is longer."""
    if len(text) > most:
        text = f"{text[: most // 2]}\n… {len(text) - most:,} characters left out …\n{text[-(most // 2) :]}"
    return _FOREIGN.sub("\N{REPLACEMENT CHARACTER}", text)


def returned(run: Run, value: Any, logs: str, seconds: float = 0.0) -> Done:
    """Return the Done of a handler that came back with `value` after so many `seconds`."""
    if value is None:
        return Done(run.id, run.attempt, "returned", _NULL, logs=logs, seconds=seconds)
    try:
        result = calls.encode(value, what="result", most=MOST_RESULT)
    except BaseException as wrong:  # noqa: BLE001 - a __str__ or a __len__ of the user's may raise anything
        return Done(
            run.id,
            run.attempt,
            "rejected",
            error_type="ResultRejected",
            message=message_of(wrong),
            fatal=True,
            logs=logs,
            seconds=seconds,
        )
    return Done(run.id, run.attempt, "returned", result, logs=logs, seconds=seconds)


def failed(
    run: Run,
    error: BaseException,
    logs: str,
    *,
    seconds: float = 0.0,
    stopped: str | None = None,
    gives_up: Callable[[BaseException], bool] | None = None,
) -> Done:
    """Return the Done of a handler that raised. `stopped` says why it was interrupted: timed_out, cancelled, None."""
    if stopped is not None and isinstance(error, _STOPS):
        said = (
            f"it ran longer than its time limit of {run.timeout:g} s" if run.timeout and stopped == "timed_out" else ""
        )
        name = "TimedOut" if stopped == "timed_out" else "Cancelled"
        return Done(
            run.id,
            run.attempt,
            stopped,
            error_type=name,
            message=said,
            traceback=trace_of(error),
            logs=logs,
            seconds=seconds,
        )
    kind, later = ("timed_out", None) if isinstance(error, SoftTimeout) else ("raised", None)
    if isinstance(error, RetryLater) and (later := _seconds(error)) is not None:
        kind = "later"
    return Done(
        run.id,
        run.attempt,
        kind,
        error_type=clean(name_of(type(error)), MOST_MESSAGE),
        message=message_of(error),
        traceback="" if kind == "later" else trace_of(error),
        fatal=kind != "later" and _asks(gives_up, error),
        later=later,
        logs=logs,
        seconds=seconds,
    )


def released(run: Run) -> Done:
    """Return the Done of a task that had not begun."""
    return Done(run.id, run.attempt, "released")


def suspect(failed: Done, company: int) -> Done:
    """Return the Done of a task that was cancelled though nobody asked for it; one of `company` tasks did that."""
    message = f"it was cancelled and nobody had asked for that; one of {company} tasks in its process did it"
    return msgspec.structs.replace(failed, kind="suspect", message=message, company=company)


def refused(run: Run, message: str, *, fatal: bool) -> Done:
    """Return the Done of a task that could not even be started."""
    return Done(
        run.id, run.attempt, "raised", error_type="NotStarted", message=clean(message, MOST_MESSAGE), fatal=fatal
    )


def message_of(error: BaseException) -> str:
    """Return what the error says of itself; one that cannot even say that is named."""
    try:
        text = str(error)
        return clean(text, MOST_MESSAGE)
    except BaseException as worse:  # noqa: BLE001 - __str__ is foreign code
        return f"(its str() raised {name_of(type(worse))})"


def name_of(kind: type[BaseException]) -> str:
    """Return the name of an error's class, with its module unless it is built in."""
    try:
        module = str(kind.__module__)
        return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
    except BaseException:  # noqa: BLE001 - a metaclass is foreign code as well
        return "an error without a name"


def trace_of(error: BaseException) -> str:
    """Return the traceback as text, the errors behind it first, each bounded."""
    parts: list[str] = []
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen and len(seen) < _CHAIN:
        seen.add(id(at))
        parts.append(_one_trace(at))
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return clean("\nThen:\n\n".join(reversed(parts)), MOST_TRACEBACK)


def _one_trace(error: BaseException) -> str:
    try:
        frames = traceback.extract_tb(error.__traceback__, limit=-_FRAMES)
        # The runner's own frames say nothing to the task's author.
        lines = traceback.format_list([frame for frame in frames if "/taskflow_queue/runner" not in frame.filename])
    except BaseException:  # noqa: BLE001 - reading sources for it may fail in any way
        lines = ["  (no traceback could be made)\n"]
    return f"{''.join(lines)}{name_of(type(error))}: {message_of(error)}\n"


def _seconds(error: RetryLater) -> float | None:
    try:
        seconds = float(error.seconds)
    except (TypeError, ValueError, AttributeError):
        return None
    return min(max(seconds, 0.0), _LONGEST_LATER) if seconds == seconds else None  # noqa: PLR0124 - NaN is not itself


def _asks(gives_up: Callable[[BaseException], bool] | None, error: BaseException) -> bool:
    try:
        return gives_up is not None and bool(gives_up(error))
    except BaseException:  # noqa: BLE001 - __instancecheck__ is foreign code
        return False
