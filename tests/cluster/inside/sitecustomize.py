"""Lets a worker's fork server take the kernel's Landlock for another version, where REACH_LANDLOCK names one."""

import os

if os.environ.get("REACH_LANDLOCK"):
    from taskflow_queue import runner_landlock

    runner_landlock.version = lambda: int(os.environ["REACH_LANDLOCK"])
