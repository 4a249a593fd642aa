"""kopf watches, in a thread of its own, and hands over what it sees; it writes nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import kopf
import pytest

from services.operator.cluster import DEPLOYMENTS, PODS, TASKQUEUES
from services.operator.kopf_app import Watches
from tests.integration.operator.world import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.operator.api_server import ApiServer

OURS = {"app.kubernetes.io/managed-by": "taskflow"}


class Heard:
    """What came, in order; waits for more."""

    def __init__(self) -> None:
        self.all: list[tuple[Any, str, bool]] = []
        self._news = asyncio.Event()

    def __call__(self, kind: Any, body: dict[str, Any], gone: bool) -> None:  # noqa: FBT001 - the shape of a change
        self.all.append((kind, body["metadata"]["name"], gone))
        self._news.set()

    async def until(self, *wanted: tuple[Any, str, bool]) -> None:
        async with asyncio.timeout(20):
            while not set(wanted) <= set(self.all):
                self._news.clear()
                await self._news.wait()


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiServer]:
    async with served(tmp_path, monkeypatch) as one:
        yield one


def _thing(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "team", "labels": labels}, "spec": {}}


async def test_what_is_there_what_comes_and_what_goes(api: ApiServer) -> None:
    api.put("taskqueues", _thing("early"))
    heard = Heard()
    watches = Watches(["team"], heard)
    watches.start()
    try:
        await heard.until((TASKQUEUES, "early", False))
        api.put("taskqueues", _thing("late"))
        api.put("pods", _thing("ours", **OURS))
        api.put("pods", _thing("foreign"))
        api.put("deployments", _thing("ours", **OURS))
        await heard.until((TASKQUEUES, "late", False), (PODS, "ours", False), (DEPLOYMENTS, "ours", False))
        api.delete("pods", "team", "ours")
        await heard.until((PODS, "ours", True))
    finally:
        await watches.stop()
    assert watches.ended.done()
    watches.ended.result()
    assert (PODS, "foreign", False) not in heard.all
    assert {method for method, _ in api.requests} == {"GET"}, "no finalizer, no annotation, no event"
    asked = {path.partition("?")[0] for _, path in api.requests}
    assert not {path for path in asked if path.endswith(("/namespaces", "/customresourcedefinitions"))}


async def test_our_finalizer_is_not_taken_for_kopfs(api: ApiServer) -> None:
    held = _thing("held")
    held["metadata"]["finalizers"] = ["taskflow.dev/drain"]
    api.put("taskqueues", held)
    heard = Heard()
    watches = Watches(None, heard)
    watches.start()
    try:
        api.delete("taskqueues", "team", "held")
        await heard.until((TASKQUEUES, "held", False))
        api.put("taskqueues", _thing("next"))
        await heard.until((TASKQUEUES, "next", False))
    finally:
        await watches.stop()
    assert api.get("taskqueues", "team", "held")["metadata"]["finalizers"] == ["taskflow.dev/drain"]


async def test_a_thread_that_dies_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(**_: Any) -> None:
        raise RuntimeError("kopf is out of order")

    monkeypatch.setattr(kopf, "operator", broken)
    watches = Watches(["team"], Heard())
    watches.start()
    async with asyncio.timeout(30):
        with pytest.raises(RuntimeError, match="out of order"):
            await watches.ended
