"""The process as it is started in life: its settings, its sockets, its end."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx2
import pytest

from core import accounts, database
from tests.conftest import SECRET_KEY
from tests.integration.api.conftest import CHEAP, PASSWORD
from tests.signals import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-I", "-u", "-m", "services.api.main"]
TASK = {"type": "a:b"}


def _run(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(COMMAND, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def process(tmp_path: Path, env: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], httpx2.Client]]:
    """A ready API and a client for it; killed at the end if it is still there."""
    log = tmp_path / "api.log"
    with log.open("wb") as out:
        api = subprocess.Popen(COMMAND, env={**env, "TASKFLOW_API_PORT": "0"}, cwd=tmp_path, stderr=out)
    try:
        ready = until(lambda: next((line for line in _lines(log) if line["event"] == "ready"), None), 30)
        with httpx2.Client(base_url=f"http://127.0.0.1:{ready['port']}", timeout=30) as client:
            yield api, client
    finally:
        api.kill()
        api.wait()


def _lines(log: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture
def key(api_database: None) -> str:
    with database.SessionLocal() as session:
        user = accounts.register(session, CHEAP, username="ada", email="a@example.org", password=PASSWORD)
        made = accounts.create_key(session, owner_id=user.id, name="k", expires_at=None)
        session.commit()
    return made.text


@pytest.mark.slow
def test_a_wrong_setting_is_one_line_and_exit_2(tmp_path: Path) -> None:
    good = {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "SECRET_KEY": SECRET_KEY, "TASKFLOW_REDIS": "off"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for wrong, named in (
            ({"SECRET_KEY": ""}, "SECRET_KEY"),
            ({"SECRET_KEY": "short"}, "SECRET_KEY"),
            ({"DATABASE_URL": "mysql://canary-password@x/x"}, "DATABASE_URL"),
            ({"ALGORITHM": "none"}, "ALGORITHM"),
            ({"TASKFLOW_REDIS": "on"}, "REDIS_HOST_HIGH"),
            ({"RATE_LIMIT_SUBMIT_PER_MINUTE": "0"}, "RATE_LIMIT_SUBMIT_PER_MINUTE"),
            ({"TASKFLOW_API_PORT": str(taken.getsockname()[1])}, "TASKFLOW_API_PORT"),
        ):
            ended = _run(tmp_path, **{**good, **wrong})
            assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
            assert len(ended.stderr.splitlines()) == 1
            assert named in ended.stderr
            assert "canary" not in ended.stderr


@pytest.mark.fault
def test_sigterm_ends_in_order_and_drops_nothing(tmp_path: Path, environment: dict[str, str], key: str) -> None:
    with process(tmp_path, environment) as (api, client):
        client.headers["x-api-key"] = key
        task = client.post("/v1/tasks", json=TASK).json()["id"]
        address = client.base_url.host, client.base_url.port or 0
        # A request that is half sent when the signal comes is still read and answered.
        with (
            socket.create_connection(address, timeout=10) as half,
            socket.create_connection(address, timeout=10) as long,
        ):
            body = json.dumps(TASK).encode()
            head = f"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
            half.sendall(head.encode() + body[:5])
            long.sendall(
                f"GET /v1/tasks/{task}/result?wait=60 HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n".encode()
            )
            until(lambda: client.get("/readyz").status_code == 200)
            api.send_signal(signal.SIGTERM)
            until(lambda: client.get("/readyz").status_code == 503, every=0.001)
            assert b" 202 " in long.recv(4096)
            half.sendall(body[5:])
            assert b" 201 " in half.recv(4096)
        assert api.wait(timeout=20) == 0
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(address, timeout=5)


def test_it_starts_before_its_stores_and_stays_without_them(tmp_path: Path) -> None:
    down = {
        "DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "SECRET_KEY": SECRET_KEY,
        "REDIS_HOST_HIGH": "127.0.0.1", "REDIS_PORT_HIGH": "1", "REDIS_HOST_LOW": "127.0.0.1", "REDIS_PORT_LOW": "1",
    }  # fmt: skip
    with process(tmp_path, down) as (api, client):
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["migrated"]) == (200, None)
        refused = client.post("/v1/tasks", json=TASK, headers={"x-api-key": f"tf_{'a' * 12}_{'b' * 43}"})
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert "retry-after" in refused.headers
        api.send_signal(signal.SIGTERM)
        assert api.wait(timeout=20) == 0


def test_broken_and_endless_requests_end(tmp_path: Path, environment: dict[str, str], key: str) -> None:
    with process(tmp_path, environment) as (api, client):
        address = client.base_url.host, client.base_url.port or 0
        for head in (
            b"\x16\x03\x01\x00garbage\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /v1/tasks HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
            b"POST /v1/tasks HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        ):
            with socket.create_connection(address, timeout=10) as connection:
                connection.sendall(head)
                assert b" 400 " in connection.recv(4096)
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n")
            with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe, whichever comes first
                _flood(connection, b"X-Endless: " + b"x" * 1000 + b"\r\n")
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(
                b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nX-API-Key: "
                + key.encode()
                + b"\r\n\r\n"
            )
            chunk = b"10000\r\n" + b"[" * 65536 + b"\r\n"
            with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe, whichever comes first
                _flood(connection, chunk)
        many = [socket.create_connection(address, timeout=10) for _ in range(500)]
        try:
            for connection in many[::2]:
                connection.sendall(b"POST /v1/tasks HTTP/1.1\r\n")
            assert client.get("/healthz").status_code == 200
        finally:
            for connection in many:
                connection.close()
        assert api.poll() is None


def test_nothing_secret_is_logged(tmp_path: Path, environment: dict[str, str], key: str) -> None:
    with process(tmp_path, environment) as (api, client):
        login = {"username": "ada", "password": PASSWORD}
        token = client.post("/v1/auth/token", json=login).json()["access_token"]
        client.get("/v1/tasks", headers={"authorization": f"Bearer {token}"})
        client.get("/v1/tasks", headers={"authorization": f"Bearer {token}x", "x-api-key": key + "x"})
        client.post("/v1/tasks", json={**TASK, "payload": "canary-payload"}, headers={"x-api-key": key})
        client.post("/v1/auth/token", json={**login, "password": "canary-wrong-password"})
        metrics = client.get("/metrics", headers={"x-api-key": key}).text
        assert "taskflow_http_requests_total" in metrics
        api.send_signal(signal.SIGTERM)
        api.wait(timeout=20)
    told = (tmp_path / "api.log").read_text() + metrics
    for secret in (PASSWORD, token, key, key[16:], SECRET_KEY, "canary", environment["DATABASE_URL"]):
        assert secret not in told


@pytest.mark.slow
@pytest.mark.fault
async def test_kill_9_while_many_submit_with_keys_makes_each_task_once(
    tmp_path: Path, environment: dict[str, str], key: str
) -> None:
    # Row 1 of reliability.md, at the size of a unit: the whole one is a system test.
    port = _free_port()
    env = {**environment, "TASKFLOW_API_PORT": str(port)}
    done: dict[int, str] = {}

    async def submit(client: httpx2.AsyncClient, number: int) -> None:
        while number not in done:
            try:
                answer = await client.post("/v1/tasks", json=TASK, headers={"Idempotency-Key": f"k{number}"})
                if answer.status_code in {200, 201}:
                    done[number] = answer.json()["id"]
                    return
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.02)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(COMMAND, env=env, cwd=tmp_path, stderr=subprocess.DEVNULL)

    api = start()
    try:
        limits = httpx2.Limits(max_connections=50)
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"x-api-key": key}, timeout=10, limits=limits
        ) as client:
            crowd = asyncio.gather(*(submit(client, number) for number in range(300)))
            for kills in (20, 150):
                while len(done) < kills:
                    await asyncio.sleep(0.005)
                api.send_signal(signal.SIGKILL)
                api.wait()
                api = start()
            await asyncio.wait_for(crowd, 60)
    finally:
        api.kill()
        api.wait()
    with database.SessionLocal() as session:
        from sqlalchemy import text

        assert session.execute(text("select count(*) from tasks")).scalar_one() == 300
    assert len(set(done.values())) == 300


def _flood(connection: socket.socket, chunk: bytes) -> None:
    for _ in range(10_000):
        connection.sendall(chunk)
    connection.recv(1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
