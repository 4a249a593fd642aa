"""The table of SECURITY.md: what a task reaches that is not its own, from what tests/cluster/inside/reach.py found."""

from __future__ import annotations

import re
from typing import Any

from tests.kid import ROOT

PAGE = ROOT / "SECURITY.md"
INSIDE = ROOT / "tests/cluster/inside"
VERSION = "REACH_LANDLOCK"  # see sitecustomize.py in that folder
READS = (
    "environ",
    "payload in memory",
    "password in memory",
    "process_vm_readv",
    "descriptors",
    "pidfd_getfd",
    "trace",
)
SIGNALS = ("signal", "signal by pidfd")
ROWS = {
    "Read the worker's environment, memory and descriptors, or trace it": ("supervisor", READS),
    "Send the worker a signal": ("supervisor", SIGNALS),
    "Read or trace the fork server, which holds no password and no payload": ("fork server", READS),
    "Send the fork server a signal": ("fork server", SIGNALS),
    "Read another child's memory with its tasks' payloads, or trace it": ("other child", READS),
    "Send another child a signal": ("other child", SIGNALS),
    "Read and stop what the task has started itself": ("own child", ("environ", "signal")),
    "Rename and link its files; be the first to go when memory runs out": (
        "own files",
        ("rename", "oom_score_adj", "comm", "goes first"),
    ),
}
AS_ROOT, AS_USER, OLD_LANDLOCK, LANDLOCK = COLUMNS = (
    "as root with all capabilities",
    "as another user, no Landlock",
    "in a pod, Landlock 2 to 5",
    "in a pod, Landlock 6 or newer",
)
NO_CALL = "no such call here"  # a container's seccomp profile refuses it, whatever it is used on
FOUND = "open, found"  # and what was looked for is there


def cells(answers: dict[str, dict[str, str]]) -> dict[str, str]:
    """One cell a row: all attempts of it must have ended alike."""
    found = {}
    for row, (target, attempts) in ROWS.items():
        said = {answers[target][attempt].partition(",")[0] for attempt in attempts} - {NO_CALL}
        assert len(said) == 1, (row, answers[target])
        found[row] = said.pop()
    return found


def column(name: str) -> dict[str, str]:
    """A column of the page, by row."""
    return {row: found[COLUMNS.index(name)] for row, found in table().items()}


def table() -> dict[str, list[str]]:
    """The cells of the page by row."""
    text = PAGE.read_text(encoding="utf-8")
    assert f"| A task tries to | {' | '.join(COLUMNS)} |" in text
    lines = re.findall(r"^\| (.+?) \|(.+)\|$", text, re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split("|")] for name, rest in lines if name in ROWS}


def rewrite(name: str, found: dict[str, str]) -> None:
    """Write a column into the page."""
    text, said = PAGE.read_text(encoding="utf-8"), table()
    for row, cell in found.items():
        said[row][COLUMNS.index(name)] = cell
        text = re.sub(rf"^\| {re.escape(row)} \|.+$", f"| {row} | {' | '.join(said[row])} |", text, flags=re.MULTILINE)
    PAGE.write_text(text, encoding="utf-8")


def as_markdown(found: dict[str, dict[str, Any]]) -> str:
    """What was found in several places, by place, as a table for people."""
    lines = [f"| A task tries to | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    said = {place: cells(answers) for place, answers in found.items()}
    return "\n".join([*lines, *(f"| {row} | {' | '.join(said[place][row] for place in found)} |" for row in ROWS)])
