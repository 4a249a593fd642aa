"""core and the SDK follow the very same retry rules, and neither may import the other."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_retry_rules_of_the_sdk_are_the_ones_of_core() -> None:
    ours = ROOT / "libs" / "core" / "domain" / "retry.py"
    theirs = ROOT / "sdk" / "src" / "taskflow_queue" / "retry.py"
    assert theirs.read_bytes() == ours.read_bytes(), f"copy {ours} to {theirs}"
