"""A plot of depth and replicas over time, as SVG, and a table for Markdown.

`python -m tests.cluster.plot samples.csv plot.svg "title"` writes the plot and prints the table.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 340, 56, 56, 34, 40
LINES = (("waiting", "#c2410c", 0), ("running", "#0f766e", 0), ("replicas", "#1d4ed8", 1), ("ready", "#93c5fd", 1))


def plot(rows: list[dict[str, int]], title: str) -> str:
    """Return the picture: tasks on the left axis, pods on the right one."""
    seconds = max(row["second"] for row in rows) or 1
    tops = [_round(max(row[name] for row in rows for name, _, axis in LINES if axis == side)) for side in (0, 1)]

    def x(second: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * second / seconds

    def y(value: float, axis: int) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / tops[axis]

    made = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        "<style>text {font-size: 12px}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-weight="bold">{title}</text>',
    ]
    for part in range(5):
        level, at = y(tops[0] * part / 4, 0), seconds * part / 4
        made += [
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}" stroke="#e5e7eb"/>',
            f'<text x="{LEFT - 8}" y="{level + 4:.1f}" text-anchor="end">{tops[0] * part / 4:g}</text>',
            f'<text x="{WIDTH - RIGHT + 8}" y="{level + 4:.1f}">{tops[1] * part / 4:g}</text>',
            f'<text x="{x(at):.1f}" y="{HEIGHT - 22}" text-anchor="middle">{at:.0f} s</text>',
        ]
    for number, (name, colour, axis) in enumerate(LINES):
        points = " ".join(_steps([(x(row["second"]), y(row[name], axis)) for row in rows]))
        legend = f"{name} ({'pods, right' if axis else 'tasks, left'})"
        made += [
            f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>',
            f'<text x="{LEFT + 150 * number}" y="{HEIGHT - 5}" fill="{colour}">{legend}</text>',
        ]
    return "\n".join([*made, "</svg>", ""])


def table(rows: list[dict[str, int]], every: int = 10) -> str:
    """Return a row for the beginning, each `every` seconds, and the end, as Markdown."""
    names = ("second", *(name for name, _, _ in LINES))
    chosen: list[dict[str, int]] = []
    for row in rows:
        if not chosen or row["second"] >= chosen[-1]["second"] // every * every + every:
            chosen.append(row)
    if chosen[-1] is not rows[-1]:
        chosen.append(rows[-1])
    lines = [names, ("---",) * len(names), *(tuple(row[name] for name in names) for row in chosen)]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _round(value: int) -> int:
    """The next number that four steps divide evenly."""
    return max(4, -(-value // 4) * 4)


def _steps(points: list[tuple[float, float]]) -> list[str]:
    """A line that keeps each value until the next one."""
    found = []
    for number, (x, y) in enumerate(points):
        if number:
            found.append(f"{x:.1f},{points[number - 1][1]:.1f}")
        found.append(f"{x:.1f},{y:.1f}")
    return found


def read(text: str) -> list[dict[str, int]]:
    """The rows of a table as watch.py writes it."""
    return [{name: int(value) for name, value in row.items()} for row in csv.DictReader(text.splitlines())]


if __name__ == "__main__":
    samples = read(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(plot(samples, sys.argv[3]), encoding="utf-8")
    print(table(samples), end="")
