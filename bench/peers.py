"""`make bench-peers PEERS=<folder>`: TaskFlow beside its peers, and the table of ratios in docs/performance.md."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.page import machine, write

ROOT = Path(__file__).parents[1]
ADAPTER = Path(__file__).parent / "peers_adapter"
BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"


def environment(venvs: Path) -> None:
    """TaskFlow's own virtual environment among the peers', with the interpreter that they have."""
    home = venvs / "taskflow"
    if not (home / "bin" / "python").exists():
        subprocess.run([venvs / "base" / "bin" / "python", "-m", "venv", home], check=True)
    pip = [home / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", ROOT / "requirements" / "dev.txt"], check=True)
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "-e", ROOT / "sdk", "-e", ROOT], check=True)


def course(peers: Path, folder: Path) -> None:
    """The harness with our contestant in it."""
    shutil.copytree(peers, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".venvs", "__pycache__"))
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.copy(ADAPTER / "ad_taskflow.py", folder / "adapters")
    shutil.copy(ADAPTER / "pairs.py", folder)
    shutil.copy(ROOT / "bench" / "ratios.py", folder)
    with (folder / "peers.toml").open("a", encoding="utf-8") as tables:
        tables.write((ADAPTER / "taskflow.toml").read_text(encoding="utf-8"))


def middle(found: list[dict[str, float]], what: str = "value") -> str:
    """The median of one figure."""
    values = sorted(row[what] for row in found if what in row)
    return f"{values[len(values) // 2]:,.1f}" if values else "–"


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The page's table."""
    head = "| item | tasks | pairs | TaskFlow | peer | | ratio (95 % interval) | target | met |"
    made = [machine(), "", head, "|---" * 9 + "|"]
    for row in rows:
        met = "–" if not row["target"] else "yes" if row["low"] >= row["target"] else "no"
        ratio = f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        made.append(
            f"| {row['name']} | {row['tasks']:,} | {len(row['ours'])} | {middle(row['ours'])} |"
            f" {row['peer']} | {middle(row['theirs'])} |"
            f" {ratio} | {row['target'] or '–'} | {met} |"
        )
    return made


def main() -> int:
    """Run the pairs and keep their table."""
    peers = Path(sys.argv[1])
    venvs = Path(os.environ.get("PEERS_VENVS", peers / ".venvs"))
    if not (venvs / "base" / "bin" / "python").exists():
        print(f"bench: there are no virtual environments in {venvs}: run the harness's setup.sh first", file=sys.stderr)
        return 2
    environment(venvs)
    with tempfile.TemporaryDirectory(prefix="taskflow-peers-") as made:
        folder, out = Path(made) / "harness", Path(made) / "pairs.jsonl"
        course(peers, folder)
        ended = subprocess.run(
            [venvs / "base" / "bin" / "python", "-W", "ignore", "pairs.py", "--out", out, *sys.argv[2:]],
            cwd=folder,
            env={**os.environ, "PEERS_VENVS": str(venvs)},
            check=False,
        ).returncode
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []
    if rows:  # what was measured until something broke is measured
        print("\n".join(lines(rows)))
        write(lines(rows), BEGIN, END)
    return ended


if __name__ == "__main__":
    sys.exit(main())
