"""Shows, at the terminal of `taskflow dev`, what its processes log that a person should see: warnings and errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from services.dev.fleet import Member

_SHOWN: Final = {"warning", "error", "critical"}
_LEFT_OUT: Final = {"event", "level", "at", "service", "logger", "exception"}
_MOST_BYTES: Final = 256 * 1024  # of a log in one look: what was written faster than that is skipped
_MOST_TEXT: Final = 400


class Tail:
    """Reads the ends of log files."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._read: dict[Path, int] = {}

    def look(self, members: Iterable[Member]) -> None:
        """Show what is new."""
        for member in members:
            for line in self._new(member.log):
                if shown := as_text(line):
                    self._say(f"{member.name}: {shown}")

    def _new(self, log: Path) -> list[str]:
        at = self._read.get(log, 0)
        size = log.stat().st_size
        if size == at:
            return []
        with log.open("rb") as file:
            file.seek(max(at, size - _MOST_BYTES))
            text = file.read()
        whole = text.rfind(b"\n") + 1
        self._read[log] = size - (len(text) - whole)
        return text[:whole].decode(errors="replace").splitlines()


def as_text(line: str) -> str | None:
    """Return a log line as a person reads it, None when it is not for a person."""
    try:
        said: Any = json.loads(line)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        return line[:_MOST_TEXT] if line.strip() else None
    if said.get("level") not in _SHOWN:
        return None
    facts = " ".join(f"{name}={value}" for name, value in said.items() if name not in _LEFT_OUT)
    text = f"{said['level']}: {said.get('event', '')} {facts}".strip()
    if said.get("exception"):
        text = f"{text}\n{str(said['exception']).strip().splitlines()[-1]}"
    return text[:_MOST_TEXT]
