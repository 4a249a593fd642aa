"""The warden ends the groups it was told of when its supervisor dies, and no others."""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.kid import ROOT, alive
from tests.signals import until

SUPERVISOR = """
import subprocess, sys, time
from services.worker.warden import Warden
warden = Warden()
started = [subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(3)]
for one in started:
    warden.watch(one.pid)
warden.forget(started[1].pid)
print(*(one.pid for one in started), flush=True)
time.sleep(600)
"""


def test_a_killed_supervisor_takes_along_what_it_had_named() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as supervisor:
        assert supervisor.stdout is not None
        first, forgotten, last = map(int, supervisor.stdout.readline().split())
        supervisor.send_signal(signal.SIGKILL)
        supervisor.wait()
        until(lambda: not alive(first) and not alive(last))
        assert alive(forgotten)
        subprocess.run(["kill", str(forgotten)], check=True)
