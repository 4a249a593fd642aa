from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.operator import world as worlds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.operator.world import World


@pytest.fixture
async def world(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with worlds.world(database_url, tmp_path, monkeypatch) as one:
        yield one
