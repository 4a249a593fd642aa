"""`taskflow task submit`."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec
import typer

from taskflow_queue.cli import output, watching
from taskflow_queue.cli.asking import client, seconds, value
from taskflow_queue.cli.output import As, Format
from taskflow_queue.errors import SettingError

if TYPE_CHECKING:
    from taskflow_queue.options import Priority


def submit(  # each is an option of its own
    type: Annotated[str, typer.Argument(metavar="TYPE", help="the task's name: module:function")],  # noqa: A002 - shown
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]...", help="arguments; a value is JSON if it reads as JSON"),
    ] = None,
    *,
    payload: Annotated[str | None, typer.Option("--payload", "-p", help="JSON; @FILE, or - for stdin")] = None,
    queue: Annotated[str | None, typer.Option("--queue", "-q")] = None,
    priority: Annotated[str | None, typer.Option(help="LOW, NORMAL or HIGH")] = None,
    title: Annotated[str | None, typer.Option(help="a name for people")] = None,
    delay: Annotated[str | None, typer.Option(help="start it this much later: 90, 15m, 2h")] = None,
    expires_in: Annotated[str | None, typer.Option(help="do not start it later than this")] = None,
    timeout: Annotated[str | None, typer.Option(help="the longest that an attempt may take")] = None,
    max_attempts: Annotated[int | None, typer.Option(min=1)] = None,
    concurrency_key: Annotated[str | None, typer.Option(help="tasks of one key are limited together")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="submitting it twice makes one task")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="follow it until it ends")] = False,
    o: As = Format.TABLE,
) -> None:
    """Submit a task by its name.

    taskflow task submit examples.wordcount:count path=README.md

    taskflow task submit examples.wordcount:count --payload '{"path": "README.md"}' --watch
    """
    expires = seconds(expires_in)
    handle = client().submit(
        type,
        _payload(payload, arguments or []),
        queue=queue,
        priority=cast("Priority | None", priority.upper() if priority else None),
        title=title,
        delay=seconds(delay),
        expires_at=None if expires is None else timedelta(seconds=expires),
        timeout=seconds(timeout),
        max_attempts=max_attempts,
        concurrency_key=concurrency_key,
        idempotency_key=idempotency_key,
    )
    if watch:
        watching.watch(handle.id, o=o)
    elif o is Format.JSON:
        output.as_json({"id": handle.id})
    else:
        output.line(handle.id)
        output.note("follow it: taskflow task watch @latest")


def _payload(payload: str | None, arguments: list[str]) -> Any:
    """Return the payload that was meant. Raises SettingError."""
    if payload is not None and arguments:
        raise SettingError("there are arguments and a --payload", fix="give one of them")
    if payload is None:
        pairs = [one.partition("=") for one in arguments]
        if wrong := next((name for name, mark, _ in pairs if not mark or not name), None):
            raise SettingError(f"{wrong!r} is no argument", fix="write name=value, or --payload JSON")
        return {name: value(text) for name, _, text in pairs} if pairs else None
    try:
        if payload == "-":
            payload = sys.stdin.read()
        elif payload.startswith("@"):
            payload = Path(payload[1:]).read_text(encoding="utf-8")
        return msgspec.json.decode(payload)
    except OSError as wrong:
        raise SettingError(f"the payload cannot be read: {wrong}") from None
    except msgspec.DecodeError as wrong:
        raise SettingError(f"the payload is no JSON: {wrong}", fix="""quote it: --payload '{"a": 1}'""") from None
