"""What the repository holds: the files that git knows or would add."""

from __future__ import annotations

import ast
import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


@functools.cache
def committed() -> tuple[str, ...]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return tuple(sorted(name for name in set(listed.stdout.split("\0")) if name and (ROOT / name).is_file()))


def python(*folders: str) -> list[str]:
    return [name for name in committed() if name.endswith(".py") and name.startswith(tuple(f"{f}/" for f in folders))]


@functools.cache
def text(name: str) -> str:
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:  # a picture
        return ""


@functools.cache
def tree(name: str) -> ast.Module:
    return ast.parse(text(name), filename=name)


def imports(name: str) -> set[str]:
    """Modules that a file names in its import statements, wherever they stand."""
    found = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found
