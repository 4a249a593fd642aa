"""`make image-test`: the images of `make images` are there, and are looked into."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ASKED = os.environ.get("TASKFLOW_IMAGE_TESTS", "") not in {"", "0"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(600))
            if not ASKED:
                item.add_marker(pytest.mark.skip(reason="needs built images: make image-test"))
