"""Which cluster the tests run on: the one that KUBECONFIG names, else the machine's own of ../shared/cluster."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.kube import command

if TYPE_CHECKING:
    import signal

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT.parent / "shared/cluster/cluster"
FULL = os.environ.get("TASKFLOW_CLUSTER_FULL", "") not in {"", "0"}
ASKED = os.environ.get("TASKFLOW_CLUSTER_TESTS", "") not in {"", "0"}
IMAGES_READY = os.environ.get("TASKFLOW_CLUSTER_IMAGES", "") == "ready"
ROLES = ("api", "scheduler", "worker", "operator")
STORES = ("docker.io/library/postgres:15-bookworm", "docker.io/library/redis:7.0-bookworm")
REGISTRY = "ghcr.io/taskflow-dev"


class Place:
    """A cluster that is up. `own` is the machine's own one, whose parts can be stopped."""

    def __init__(self, *, own: bool) -> None:
        self.own = own

    def load(self, *tags: str) -> None:
        """Make images known to the node."""
        assert self.own, "load the images yourself and set TASKFLOW_CLUSTER_IMAGES=ready"
        command(str(SCRIPT), "load", *tags, within=600)

    def build(self, tag: str, dockerfile: Path, folder: Path) -> None:
        """Build an image and make it known to the node."""
        command(str(SCRIPT), "build-image", tag, str(dockerfile), str(folder), within=600)
        self.load(tag)

    def inside(self, *words: str, within: float = 60.0) -> str:
        """Run a command in the cluster's network."""
        return command(str(SCRIPT), "run", *words, within=within)

    def kubelet(self, number: signal.Signals) -> None:
        """Send a signal to the kubelet."""
        state = Path(os.environ["KUBECONFIG"]).parent
        os.kill(int((state / "run/kubelet.pid").read_text()), number)


def find() -> Place | None:
    """Return the cluster, started when it is the machine's own; None when there is none. Raises when it does not start.

    The environment of this process speaks to it from then on.
    """
    named = os.environ.get("KUBECONFIG", "")
    if not SCRIPT.exists():
        return Place(own=False) if named else None
    lines = command(str(SCRIPT), "env").splitlines()
    said = dict(line.removeprefix("export ").partition("=")[::2] for line in lines)
    ours = shlex.split(said["KUBECONFIG"])[0]
    if named and named != ours:
        return Place(own=False)
    subprocess.run([SCRIPT, "up"], check=True, timeout=1800)
    os.environ["KUBECONFIG"] = ours
    os.environ["PATH"] = f"{shlex.split(said['PATH'])[0].removesuffix(':$PATH')}:{os.environ['PATH']}"
    return Place(own=True)
