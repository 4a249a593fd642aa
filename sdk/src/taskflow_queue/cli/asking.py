"""What the commands share: the client, and what stands for a task's id."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
import typer

from taskflow_queue import clock
from taskflow_queue.client import Client
from taskflow_queue.errors import NotFound, SettingError

PATIENCE: Final = 3.0  # a person waits; `wait` and `watch` are more patient
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

TaskId = Annotated[str, typer.Argument(help="the task's id, or @latest", metavar="ID")]


def client(patience: float = PATIENCE) -> Client:
    """Return a client of the settings."""
    return Client(patience=patience)


def task_id(asked: Client, given: str) -> str:
    """Return the id that was meant: @latest is the task submitted last. Raises NotFound."""
    if given != "@latest":
        return given
    page = asked.tasks(limit=1)
    if not page.tasks:
        fix = "submit one: taskflow task submit examples.hello:hello name=you"
        raise NotFound("there is no task yet", status=404, code="not_found", fix=fix)
    return page.tasks[0].id


def seconds(text: str | None) -> float | None:
    """Return a length of time in seconds: 90, 90s, 15m, 2h, 7d. Raises SettingError."""
    if text is None:
        return None
    number, unit = (text[:-1], _UNITS[text[-1]]) if text and text[-1] in _UNITS else (text, 1)
    try:
        return float(number) * unit
    except ValueError:
        raise SettingError(f"{text!r} is no length of time", fix="write 90, 90s, 15m, 2h or 7d") from None


def moment(text: str | None) -> datetime | None:
    """Return a time: RFC 3339, or how long ago as in 15m. Raises SettingError."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return clock.now() - timedelta(seconds=seconds(text) or 0)
    return found if found.tzinfo is not None else found.astimezone()


def value(text: str) -> Any:
    """Return what an argument on the command line stands for: JSON when it is JSON, else the text itself."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
