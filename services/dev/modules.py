"""Which modules a folder's worker imports, and whether their files changed. Imports none of them."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES: Final = ("examples.hello", "examples.wordcount")
_TASK: Final = re.compile(r"^[ \t]*@(\w+\.)*task\b", re.MULTILINE)
_IMPORT: Final = re.compile(r"^[ \t]*(?:import|from)[ \t]+(?P<name>\w+)", re.MULTILINE)
_MOST_FILES: Final = 2_000
_SKIPPED: Final = {"__pycache__", "node_modules", "site-packages"}


def found_in(folder: Path) -> list[str]:
    """Return the modules of a folder's own *.py files that make tasks with taskflow_queue, and our examples."""
    own = [file.stem for file in sorted(folder.glob("*.py")) if file.stem.isidentifier() and _has_tasks(file)]
    return own + [name for name in EXAMPLES if _is_ours(name, folder)]


def stamps(modules: list[str], folder: Path) -> dict[Path, int]:
    """Return when each source file behind these modules was last written, what they import of the folder included.

    A script that only submits is none of them: to change it does not disturb the worker.
    """
    found: dict[Path, int] = {}
    for file in _behind({name.partition(".")[0] for name in modules}, folder):
        try:
            found[file] = file.stat().st_mtime_ns
        except FileNotFoundError:  # an editor that replaces a file removes it for a moment
            found[file] = 0
        if len(found) >= _MOST_FILES:
            break
    return found


def _behind(names: set[str], folder: Path) -> list[Path]:
    """Return the files of these top-level names in the folder, and of those that they import, and so on."""
    files: list[Path] = []
    waiting, seen = sorted(names), set(names)
    while waiting:
        name = waiting.pop()
        own = [folder / f"{name}.py"] if (folder / f"{name}.py").is_file() else []
        own += _sources(folder / name) if (folder / name).is_dir() else []
        files += own
        fresh = {found for file in own[:_MOST_FILES] for found in _imported(file)} - seen
        seen |= fresh
        waiting += fresh
    return files


def _imported(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    return [match["name"] for match in _IMPORT.finditer(text)]


def _sources(place: Path) -> list[Path]:
    return [
        file
        for file in place.rglob("*.py")
        if not any(part in _SKIPPED or part.startswith(".") for part in file.relative_to(place).parts)
    ]


def _has_tasks(file: Path) -> bool:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return "taskflow_queue" in text and _TASK.search(text) is not None


def _is_ours(name: str, folder: Path) -> bool:
    """An `examples` of the user's own comes first on the path, and hides ours."""
    package, _, stem = name.partition(".")
    if (folder / package).is_dir() or (folder / f"{package}.py").exists():
        return (folder / package / f"{stem}.py").is_file()
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
