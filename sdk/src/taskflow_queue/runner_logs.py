"""What a task prints and logs, brought into the log of its attempt. What no task says goes on to stderr."""

from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING

from taskflow_queue.context import running

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

    from typing_extensions import Buffer


class _Bytes(io.RawIOBase):
    """`sys.stdout.buffer`, for code that writes bytes."""

    def __init__(self, text: Capture) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        raw = bytes(data)
        self._text.write(raw.decode(errors="replace"))
        return len(raw)


class Capture(io.TextIOBase):
    """A text stream whose lines belong to the task that writes them."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, otherwise: TextIO) -> None:
        self._otherwise = otherwise
        self.buffer = _Bytes(self)

    def writable(self) -> bool:
        """It takes text."""
        return True

    def write(self, text: str, /) -> int:
        """Give `text` to the running task's log, or to the stream that was there before."""
        context = running.get(None)
        if context is not None:
            context.write(text)
            return len(text)
        return self._otherwise.write(text)

    def writelines(self, lines: Iterable[str], /) -> None:  # type: ignore[override]  # typeshed says bytes or text
        """Write them all."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Nothing is held back here."""
        self._otherwise.flush()


class Handler(logging.Handler):
    """Log records, one line each, into the running task's log."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Pass on one record, without the lock that handlers take: one write needs none.

        logging takes it outside of its `try`. A sync task that is interrupted between the two would keep it for ever,
        and the thread that speaks with the supervisor would wait for it.
        """
        passed: object = self.filter(record)  # since Python 3.12 it may be another record
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            line = self.format(record) + "\n"
        except Exception:  # noqa: BLE001 - arguments that do not fit their format must not fail the task
            line = f"(a log record of {record.name} could not be formatted)\n"
        sys.stderr.write(line)


def install() -> None:
    """Capture stdout, stderr and logging of this process."""
    otherwise = sys.__stderr__ or sys.stderr
    sys.stdout = Capture(otherwise)
    sys.stderr = Capture(otherwise)
    handler = Handler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
