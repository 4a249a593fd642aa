"""`taskflow task watch`: status, progress and log lines of a task until it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

import msgspec
import typer
from rich.text import Text

from taskflow_queue import clock
from taskflow_queue.cli import exits, output
from taskflow_queue.cli.asking import TaskId, client, task_id
from taskflow_queue.cli.output import As, Format
from taskflow_queue.errors import ResultTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taskflow_queue.client import Client
    from taskflow_queue.models import Failure, Progress, TaskInfo

_FIRST, _EVERY, _SLOWER = 0.1, 0.5, 1.5  # seconds between two looks: soon at first, a short task is over by then


def watch(
    task: TaskId,
    timeout: Annotated[float | None, typer.Option(help="stop looking after so many seconds (exit code 5)")] = None,
    o: As = Format.TABLE,
) -> None:
    """Follow a task until it ends. Exit code 0 when it completed, 1 when it did not.

    With -o json, each line is a JSON object: {"status": ...}, {"progress": ...}, {"log": ...}, {"result": ...}.
    """
    asked = client(patience=20)
    found = task_id(asked, task)
    info: TaskInfo | None = None
    with _Screen(o) as screen:
        for info in _looks(asked, found, timeout, screen):
            screen.see(info)
    assert info is not None  # noqa: S101 - there is at least one look
    outcome = asked.handle(found).wait(timeout=10)
    screen.end(outcome.result, outcome.error, outcome.status)
    raise typer.Exit(exits.of_status(outcome.status))


def _looks(asked: Client, task: str, timeout: float | None, screen: _Screen) -> Iterator[TaskInfo]:
    """Look at a task and its log, every half second at last, until it has ended. Raises ResultTimeout."""
    start, pause = clock.monotonic(), _FIRST
    while True:
        info = asked.get(task)  # first: a log line written before the end is then there for certain
        if info.attempt > 0:
            screen.logs.show(asked.logs(task, after=screen.logs.last))
        yield info
        if info.ended:
            return
        if timeout is not None and clock.monotonic() - start >= timeout:
            raise ResultTimeout(f"task {task} has not ended after {timeout:g} s: it is {info.status}")
        clock.pause(pause)
        pause = min(pause * _SLOWER, _EVERY)


class LogPrinter:
    """Prints pieces of a log as lines. `last` is the id of the last piece that it has seen."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self.last = 0

    def show(self, pieces: list[dict[str, Any]]) -> None:
        """Print pieces; a line that two of them share stays one."""
        if pieces:
            self.last = max(piece["id"] for piece in pieces)
        for line in "".join(str(piece["text"]) for piece in pieces).splitlines():
            self._write(line)


class _Screen:
    """Lines for a person or for a program; on a terminal the last line is alive."""

    def __init__(self, o: Format) -> None:
        self._json = o is Format.JSON
        self._console = output.console()
        self._alive = None if self._json or not self._console.is_terminal else self._console.status("")
        self._last: tuple[Any, ...] = ()
        self.logs = LogPrinter(lambda line: self._say({"log": line}, Text(line)))

    def __enter__(self) -> Self:
        if self._alive is not None:
            self._alive.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._alive is not None:
            self._alive.stop()

    def see(self, info: TaskInfo) -> None:
        """Show a task as it is now, when something about it is new."""
        status = (info.status, info.attempt, info.waiting and info.waiting.code)
        if status != self._last:
            self._last = status
            why = f": {info.waiting.detail}" if info.waiting else ""
            which = f" (attempt {info.attempt} of {info.type})" if info.status == "IN_PROGRESS" else why
            words = Text.assemble((f"{clock.now().astimezone():%H:%M:%S} ", "dim"), output.cell(info.status), which)
            self._say({"status": info.status, "attempt": info.attempt}, words)
        if info.progress is not None and not info.ended:
            self._progress(info.progress)

    def _progress(self, progress: Progress) -> None:
        words = progress_as_words(progress)
        if self._alive is not None:
            self._alive.update(words)
        elif words != getattr(self, "_words", None):
            self._words = words
            self._say({"progress": progress}, Text(words))

    def end(self, result: Any, error: Failure | None, status: str) -> None:
        """Show what came out of it."""
        if self._json:
            _json_line({"result": result, "error": error, "status": status})
        elif error is not None and status != "COMPLETED":
            show_error(error)
        elif status == "COMPLETED":
            output.as_json(result)

    def _say(self, value: dict[str, Any], words: Text) -> None:
        if self._json:
            _json_line(value)
        else:
            self._console.print(words)


def _json_line(value: dict[str, Any]) -> None:
    output.line(msgspec.json.encode(value).decode())


def progress_as_words(progress: Progress) -> str:
    """Return progress as a person reads it: a bar, a percentage, the note."""
    note = progress.note or ""
    if progress.fraction is None:
        return note
    filled = round(progress.fraction * 20)
    return f"{'█' * filled}{'░' * (20 - filled)} {progress.fraction:.0%} {note}".rstrip()


def show_error(error: Failure) -> None:
    """Show the error of a task: its traceback, and the error itself unless that ends with it."""
    words = (error.traceback or "").rstrip()
    if not words or (error.message or "") not in words:
        words = f"{words}\n{error.type}: {error.message}".lstrip()
    output.console().print(Text(words, style="red"))
