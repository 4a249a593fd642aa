"""The scheduler as a process, chosen by a Kubernetes Lease that it reaches through KUBECONFIG."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.kid import ROOT
from tests.kubeapi import KubeApi, kube_api
from tests.lookout import happens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAME = "release-scheduler"


def kubeconfig(folder: Path, url: str) -> str:
    file = folder / "kubeconfig.json"
    file.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
            }
        )
    )
    return str(file)


@asynccontextmanager
async def scheduler(environment: dict[str, str], **more: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A scheduler and the address of its probes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-u", "-m", "services.scheduler.main"),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment, "TASKFLOW_METRICS_PORT": str(port), **more},
    )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ready(base: str) -> bool:
    try:
        async with httpx2.AsyncClient() as client:
            return (await client.get(f"{base}/readyz")).status_code == 200
    except httpx2.TransportError:
        return False


async def leads(base: str) -> bool:
    async with httpx2.AsyncClient() as client:
        return 'taskflow_leader{component="scheduler"} 1.0' in (await client.get(f"{base}/metrics")).text


@pytest.fixture
async def server() -> AsyncIterator[KubeApi]:
    async with kube_api() as running:
        yield running


async def test_one_leads_by_the_lease_the_other_is_ready_and_takes_over(
    environment: dict[str, str], server: KubeApi, tmp_path: Path
) -> None:
    more = {
        "KUBECONFIG": kubeconfig(tmp_path, server.url),
        "TASKFLOW_ELECTION": "kubernetes",
        "TASKFLOW_NAMESPACE": "here",
        "TASKFLOW_LEASE_NAME": NAME,
    }
    async with scheduler(environment, **more, TASKFLOW_POD_NAME="one") as (first, one):
        await happens(lambda: ready(one), within=40)
        await happens(lambda: leads(one), within=20)
        assert (server.holder(NAME) or "").startswith("one_")
        async with scheduler(environment, **more, TASKFLOW_POD_NAME="two") as (second, two):
            await happens(lambda: ready(two), within=40)
            assert not await leads(two)
            first.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(first.wait(), 20) == 0
            await happens(lambda: leads(two), within=20)
            assert (server.holder(NAME) or "").startswith("two_")
            second.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(second.wait(), 20) == 0
        assert server.holder(NAME) == ""


async def test_no_kubernetes_is_one_line_and_exit_2(environment: dict[str, str], tmp_path: Path) -> None:
    more = {"KUBECONFIG": str(tmp_path / "none"), "TASKFLOW_ELECTION": "kubernetes", "HOME": str(tmp_path)}
    async with scheduler(environment, **more) as (process, _):
        assert await asyncio.wait_for(process.wait(), 40) == 2
