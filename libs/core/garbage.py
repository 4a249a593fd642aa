"""The collector of cycles, for a process that makes thousands of small values with each batch, and none in cycles."""

from __future__ import annotations

import gc


def leave_imports() -> None:
    """Hardly look for cycles while a process imports: it makes none, and looking costs a start a sixth."""
    gc.set_threshold(200_000)


def collect_seldom() -> None:
    """Look for cycles a hundred times less often, and never among what was imported: call it once that is done."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
