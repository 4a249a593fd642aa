"""The pages of figures: what a benchmark writes between its markers, and where it was measured."""

import platform
import subprocess
from pathlib import Path

import psutil

DOCS = Path(__file__).parents[1] / "docs"
PAGE, SCALING = DOCS / "performance.md", DOCS / "scaling.md"


def machine() -> str:
    """What this ran on."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"commit `{commit.stdout.strip() or 'unknown'}`, {psutil.cpu_count()} cores, {memory:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def write(lines: list[str], begin: str, end: str, page: Path = PAGE) -> None:
    """Put lines between two markers of a page."""
    text = page.read_text(encoding="utf-8")
    head, _, rest = text.partition(begin)
    tail = rest.partition(end)[2]
    page.write_text(f"{head}{begin}\n" + "\n".join(lines) + f"\n{end}{tail}", encoding="utf-8")
