"""What a command prints: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from taskflow_queue import clock

if TYPE_CHECKING:
    from collections.abc import Iterable

_COLOURS: Final = {
    "COMPLETED": "green",
    "FAILED": "red",
    "QUARANTINED": "red",
    "CANCELLED": "yellow",
    "EXPIRED": "yellow",
    "CANCELLING": "yellow",
    "IN_PROGRESS": "cyan",
}
_PIPE_WIDTH: Final = 1_000
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


class Format(StrEnum):
    """How a command answers."""

    TABLE = "table"
    JSON = "json"


As = Annotated[Format, typer.Option("-o", "--output", help="table for people, json for programs")]


def console() -> Console:
    """Return where answers go. Made anew for each command: its width and colours are those of stdout now."""
    wide = None if sys.stdout.isatty() else _PIPE_WIDTH  # `taskflow task ls | grep ...` wants whole lines
    return Console(file=sys.stdout, highlight=False, width=wide)


def as_json(value: Any) -> None:
    """Print a value as JSON: for programs."""
    encoded = msgspec.json.format(msgspec.json.encode(value), indent=2)
    print(encoded.decode(), file=sys.stdout)  # noqa: T201 - it is what the command is for


def line(text: str) -> None:
    """Print a line as it is."""
    print(text, file=sys.stdout, flush=True)  # noqa: T201 - it is what the command is for


def note(text: str) -> None:
    """Tell the person something that is not the answer."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(escape(text), style="dim")


def problem(message: str, *, fix: str | None = None, code: str | None = None) -> None:
    """Tell what is wrong and what to do about it, on stderr."""
    said = Console(stderr=True, highlight=False, soft_wrap=True)
    said.print(Text.assemble(("error: ", "bold red"), message, (f" [{code}]" if code else "", "dim")))
    if fix:
        said.print(Text.assemble(("  fix: ", "bold"), fix))


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]], *, empty: str) -> None:
    """Print rows under column names; `empty` is said when there are none."""
    found = [[cell(one) for one in row] for row in rows]
    if not found:
        note(empty)
        return
    made = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        made.add_column(name, overflow="fold", no_wrap=index == 0)
    for row in found:
        made.add_row(*row)
    console().print(made)


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print names and values, one a line; what is None is left out."""
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None and value != "":
            made.add_row(name, cell(value))
    console().print(made)


def cell(value: Any) -> Text:
    """Return a value as a table shows it."""
    match value:
        case None:
            return Text("-", style="dim")
        case Text():
            return value
        case bool():
            return Text("yes" if value else "no")
        case datetime():
            return Text(f"{value.astimezone():%Y-%m-%d %H:%M:%S} ({age(value)})")
        case str():
            return Text(value, style=_COLOURS.get(value, ""))
        case int() | float():
            return Text(f"{value:,}")
        case list() | tuple():
            return Text(", ".join(map(str, value)))
        case _:
            return Text(msgspec.json.encode(value).decode())


def age(moment: datetime | None) -> str:
    """Return how long ago, or in how long, as a person says it."""
    if moment is None:
        return "-"
    seconds = (clock.now() - moment).total_seconds()
    return f"{seconds_as_words(seconds)} ago" if seconds >= 0 else f"in {seconds_as_words(-seconds)}"


def seconds_as_words(seconds: float | None) -> str:
    """Return a length of time with one unit: 4s, 12m, 3h, 9d."""
    if seconds is None:
        return "-"
    for unit, size in (("d", _DAY), ("h", _HOUR), ("m", _MINUTE)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
