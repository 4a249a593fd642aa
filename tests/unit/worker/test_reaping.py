"""Orphans are waited for; children of our own are left to who started them."""

from __future__ import annotations

import subprocess
import sys

# In a process of its own, which is given orphans as process 1 is: pytest must not adopt those of other tests.
ADOPTS = """
import ctypes, os, subprocess, time
from services.worker.reaping import reap

assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
own = subprocess.Popen(["/bin/sh", "-c", "sleep 0.01 & sleep 0.01 & exit 7"])
os.waitid(os.P_PID, own.pid, os.WEXITED | os.WNOWAIT)
orphans = reap({own.pid})
status = own.wait()
while orphans < 2:
    time.sleep(0.01)
    orphans += reap(set())
print(status, orphans, reap(set()))
"""


def test_orphans_are_reaped_and_the_status_of_an_own_child_is_kept() -> None:
    ran = subprocess.run([sys.executable, "-c", ADOPTS], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.split() == ["7", "2", "0"]
