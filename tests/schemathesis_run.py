"""`make schemathesis`: five minutes of made-up requests against a real API, with a user's credentials.

    python -m tests.schemathesis_run [SECONDS]

Exit 0 when nothing was answered with a 5xx, and every answer was as /openapi.json says. It brings its own PostgreSQL
and Redis, and shows the last lines of the API's log when something failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx2

from core import accounts, config, database, embedded, migrate
from core.auth import Passwords
from tests.signals import until

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "response_headers_conformance,ignored_auth"
)
SECRET_KEY = "a-key-for-made-up-requests-only-0123456789"
# Waiting for results takes what it takes: not here. `TASKFLOW_REDIS` and all limits stay as they are in life.
CONFIG = "[parameters]\nwait = 0.05\n"
LIMITS = {"RATE_LIMIT_AUTH_PER_MINUTE": "1000000", "ACCESS_TOKEN_EXPIRE_MINUTES": "1440"}


def main(arguments: list[str]) -> int:
    seconds = int(arguments[0]) if arguments else 300
    with tempfile.TemporaryDirectory(prefix="taskflow-schemathesis-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with embedded.running(folder / "servers", postgres=True, redis=True, delete=True) as servers:
            migrate.upgrade(servers.database_url)
            os.environ |= {**servers.env(), **LIMITS, "SECRET_KEY": SECRET_KEY, "TASKFLOW_API_PORT": "0"}
            config.reload()
            return _against(folder, seconds)


def _against(folder: Path, seconds: int) -> int:
    log = folder / "api.log"
    with log.open("wb") as out:
        api = subprocess.Popen([sys.executable, "-I", "-u", "-m", "services.api.main"], stderr=out, cwd=folder)
    try:
        url = until(lambda: _url(log), 30)
        code = _run(folder, url, _token(url), seconds)
    finally:
        api.terminate()
        api.wait(timeout=30)
    if code:
        print("\n".join(line for line in log.read_text().splitlines() if '"level":"error"' in line)[-5000:])
    print(f"schemathesis: {'failed' if code else 'no 5xx'} in {seconds} s")
    return code


def _url(log: Path) -> str | None:
    ready = [told for told in map(json.loads, log.read_text().splitlines()) if told["event"] == "ready"]
    return f"http://127.0.0.1:{ready[0]['port']}" if ready else None


def _token(url: str) -> str:
    """A token, not a key: the run revokes all keys that it can think of."""
    with database.SessionLocal() as session:
        accounts.register(session, Passwords(), username="fuzz", email="fuzz@example.org", password="fuzz fuzz fuzz")
        session.commit()
    answer = httpx2.post(f"{url}/v1/auth/token", json={"username": "fuzz", "password": "fuzz fuzz fuzz"})
    return str(answer.json()["access_token"])


def _run(folder: Path, url: str, token: str, seconds: int) -> int:
    (folder / "schemathesis.toml").write_text(CONFIG)
    command = [
        str(Path(sys.executable).with_name("st")), "run", f"{url}/openapi.json", "--max-time", str(seconds),
        "--checks", CHECKS, "--header", f"Authorization: Bearer {token}", "--workers", "1", "--no-shrink",
        "--continue-on-failure", "--request-timeout", "30", "--warnings", "off",
    ]  # fmt: skip
    return subprocess.run(command, cwd=folder, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
