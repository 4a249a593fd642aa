"""Whether this process is a worker's child that imports its modules: then nothing may be submitted.

A module that submits while it is imported would submit again in every child, at every start.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from taskflow_queue.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Iterator

_now: list[str] = []


@contextmanager
def importing(module: str) -> Iterator[None]:
    """Say that a worker imports `module` meanwhile."""
    _now.append(module)
    try:
        yield
    finally:
        _now.pop()


def refuse_submits() -> None:
    """Raise SettingError while a worker imports its modules; the client calls this before it sends anything."""
    if _now:
        message = f"a worker is importing {_now[-1]!r}, and that module submits a task while it is imported"
        raise SettingError(message, fix='move the call into a function, or under `if __name__ == "__main__":`')
