"""Count what a Python source file holds: lines, words, distinct identifiers.

Submit it:  taskflow task submit examples.wordcount:count path=README.md --watch
"""

from __future__ import annotations

import hashlib
import io
import tokenize
from pathlib import Path
from typing import Any

from taskflow_queue import task


@task(queue="text", max_attempts=5, timeout=60, give_up_on=(FileNotFoundError, IsADirectoryError))
def count(path: str) -> dict[str, Any]:
    """Return the lines, words, distinct identifiers and SHA-256 of a file.

    A file that is no Python is a result, not a failure: `identifiers` is then None, and `parses` says no.
    """
    content = Path(path).read_bytes()
    identifiers = names(content)
    return {
        "lines": content.count(b"\n"),
        "words": len(content.split()),
        "identifiers": identifiers,
        "parses": identifiers is not None,
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def names(content: bytes) -> int | None:
    """Return how many distinct names a Python source has, None when it cannot be read as Python."""
    try:
        tokens = tokenize.tokenize(io.BytesIO(content).readline)
        return len({token.string for token in tokens if token.type == tokenize.NAME})
    except (tokenize.TokenError, SyntaxError, UnicodeDecodeError):
        return None
