"""SIGTERM ends a process 1 that has no handler of its own yet; without ours the kernel would drop it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
STARTING = "import services, os; print(os.getpid(), flush=True); import time; time.sleep(60)"


def may() -> bool:
    try:
        return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not may(), reason="needs unshare, and a kernel that lets this user make namespaces")
def test_sigterm_ends_a_service_that_is_still_starting() -> None:
    with subprocess.Popen([*NAMESPACE, sys.executable, "-c", STARTING], stdout=subprocess.PIPE, text=True) as outer:
        assert outer.stdout is not None
        assert outer.stdout.readline() == "1\n"
        inner = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()[0]
        os.kill(int(inner), signal.SIGTERM)
        assert outer.wait(30) == 128 + signal.SIGTERM
