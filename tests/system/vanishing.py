"""A host of its own for some processes of a test, whose cable can be pulled: a network namespace on a virtual link."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shlex
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from core.embedded.places import Place
from core.embedded.postgres import _OPTIONS, Postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from core.embedded import Servers

CLONE_NEWNET = 0x40000000
PORT = 5432
HERE, THERE = "198.18.213.1", "198.18.213.2"  # of the range that RFC 2544 keeps for tests
POSSIBLE = os.geteuid() == 0 and shutil.which("ip") is not None


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=20)


class Host:
    """A network namespace. What is started `inside` reaches this machine at HERE, and comes from THERE."""

    def __init__(self) -> None:
        self.name = f"taskflow-{secrets.token_hex(3)}"
        self._link = f"tf{secrets.token_hex(4)}"

    def __enter__(self) -> Self:
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "address", "add", f"{HERE}/30", "dev", self._link)
        run("ip", "link", "set", self._link, "up")
        for words in (("address", "add", f"{THERE}/30", "dev", "eth0"), ("link", "set", "eth0", "up")):
            run("ip", "-n", self.name, *words)
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for words in (("link", "del", self._link), ("netns", "del", self.name)):
            with contextlib.suppress(subprocess.CalledProcessError):
                run("ip", *words)

    def vanish(self) -> None:
        """Pull the cable: no packet arrives any more, in neither direction, and nobody is told."""
        run("ip", "-n", self.name, "link", "set", "eth0", "down")

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread starts meanwhile lives on this host."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/proc/thread-self/ns/net").open() as home, Path("/run/netns", self.name).open() as there:
            self._enter(libc, there.fileno())
            try:
                yield
            finally:
                self._enter(libc, home.fileno())

    def _enter(self, libc: ctypes.CDLL, namespace: int) -> None:
        if libc.setns(namespace, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def listen_here(servers: Servers) -> str:
    """Let the PostgreSQL of `servers` take connections from THERE; the URL for processes of that host."""
    server = Postgres(Place(servers.directory))
    with (server._data / "pg_hba.conf").open("a") as rules:
        rules.write(f"host all all {THERE}/32 trust\n")
    server.stop("fast")
    options = dict(_OPTIONS, listen_addresses=HERE, unix_socket_directories=str(server._socket), port=str(PORT))
    spelled = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in options.items())
    started = server._run(
        server._binaries() / "pg_ctl", "start", "-D", server._data, "-w", "-s", "-l", server._log, "-o", spelled,
        seconds=70,
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    return f"postgresql://taskflow@{HERE}:{PORT}/taskflow?sslmode=disable"
