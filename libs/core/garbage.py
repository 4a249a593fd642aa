"""The collector of cycles, for a process that makes thousands of small values with each batch, and none in cycles."""

from __future__ import annotations

import gc


def collect_seldom() -> None:
    """Look for cycles a hundred times less often, and never among what was imported: call it once that is done."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()
