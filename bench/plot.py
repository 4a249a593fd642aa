"""Bars as SVG, without a library: a histogram, a few rates, or bars made of parts."""

from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 300, 56, 20, 54, 36
COLOURS = ("#1d4ed8", "#0f766e", "#c2410c", "#7c3aed", "#be123c", "#4d7c0f")
STEPS = 4


def bars(title: str, unit: str, columns: Mapping[str, Sequence[tuple[str, float]]]) -> str:
    """A column for each name, of parts (name, value) that stand on one another; parts of one name share a colour."""
    names = list(dict.fromkeys(name for parts in columns.values() for name, _ in parts))
    top = _nice(max(sum(value for _, value in parts) for parts in columns.values()))
    made = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        "<style>text {font-size: 12px}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-weight="bold">{title}</text>',
    ]
    for number, name in enumerate(names if len(names) > 1 else ()):
        colour = COLOURS[number % len(COLOURS)]
        made.append(f'<text x="{LEFT + 100 * number}" y="38" fill="{colour}">{name}</text>')
    for step in range(STEPS + 1):
        level = top * step / STEPS
        at = _y(level, top)
        made += [
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#e5e7eb"/>',
            f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{level:,.0f}</text>',
        ]
    made.append(f'<text x="4" y="{TOP - 8}">{unit}</text>')
    room = (WIDTH - LEFT - RIGHT) / len(columns)
    for place, (name, parts) in enumerate(columns.items()):
        at, below = LEFT + room * place + room * 0.15, 0.0
        for part, value in parts:
            colour = COLOURS[names.index(part) % len(COLOURS)]
            height = _y(below, top) - _y(below + value, top)
            made.append(
                f'<rect x="{at:.1f}" y="{_y(below + value, top):.1f}" width="{room * 0.7:.1f}" height="{height:.1f}"'
                f' fill="{colour}"/>'
            )
            below += value
        middle = at + room * 0.35
        made.append(f'<text x="{middle:.1f}" y="{HEIGHT - 14}" text-anchor="middle">{name}</text>')
    return "\n".join([*made, "</svg>", ""])


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top


def _nice(value: float) -> float:
    """The next number of one digit and zeros, or half of one, that is not below `value`."""
    size = 1.0
    while size * 10 < value:
        size *= 10
    return next(size * factor for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if size * factor >= value)
