"""Whose word holds for a task: its own, its definition's, its queue's, the product's."""

from __future__ import annotations

import pytest

from services.worker.catalogue import Catalogue
from taskflow_queue.protocol import Definition
from tests.unit.worker.made import TASK


@pytest.fixture
def catalogue() -> Catalogue:
    made = Catalogue()
    made.learn(
        [
            Definition("m:plain", "default", 3, None, None, 1.0, 2.0, 300.0, is_async=False),
            Definition("m:says", "default", 7, 20.0, 5.0, 1.0, 2.0, 300.0, is_async=False),
        ]
    )
    return made


@pytest.mark.parametrize(
    ("kind", "own", "default", "attempts"),
    [
        ("m:plain", None, None, 3),
        ("m:plain", None, 5, 5),
        ("m:plain", 1, 5, 1),
        ("m:says", None, 5, 7),
        ("m:says", 1, 5, 1),
        ("m:unknown", None, 5, 5),
    ],
)
def test_attempts(catalogue: Catalogue, kind: str, own: int | None, default: int | None, attempts: int) -> None:
    task = TASK._replace(type=kind, max_attempts=own, default_max_attempts=default)
    assert catalogue.terms(task).policy.max_attempts == attempts


@pytest.mark.parametrize(
    ("kind", "own", "default", "limits"),
    [
        ("m:plain", None, None, (None, None)),
        ("m:plain", None, 60.0, (60.0, None)),
        ("m:plain", None, 0.0, (None, None)),
        ("m:plain", 0.0, 60.0, (None, None)),
        ("m:says", None, 60.0, (20.0, 5.0)),
        ("m:says", 0.0, 60.0, (None, 5.0)),
        ("m:unknown", None, 60.0, (60.0, None)),
    ],
)
def test_limits(
    catalogue: Catalogue, kind: str, own: float | None, default: float | None, limits: tuple[float | None, float | None]
) -> None:
    terms = catalogue.terms(TASK._replace(type=kind, timeout_seconds=own, default_timeout_seconds=default))
    assert (terms.timeout, terms.soft_timeout) == limits
