"""The fixtures of system tests. Each module has one world; `make test` keeps a file's tests on one xdist worker."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.conftest import _database
from tests.system.world import world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from core.embedded import Servers
    from tests.system.world import World

FULL = os.environ.get("TASKFLOW_TEST_FAULTS", "") == "full"


@pytest.fixture(scope="module")
def module_world(
    postgres: Servers, template: str, _redis_pair: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A database of the module's own and this xdist worker's two Redis, flushed; no process runs yet."""
    from tests.conftest import flush

    flush(_redis_pair)
    with (
        _database(postgres, template) as url,
        world(tmp_path_factory.mktemp("world"), _redis_pair, url) as made,
    ):
        yield made


@pytest.fixture
def history(module_world: World) -> Path:
    """A file of this test's own for handlers to write to."""
    return module_world.history()
