"""What builds and runs images here, docker, podman or buildah, behind one face. deploy/images.sh chooses."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy/images.sh"
ROLES = ("api", "scheduler", "worker", "operator")
# As deploy/images.sh and ../shared/cluster/cluster set them.
BUILDAH = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay"}


def said(*words: str, within: float = 300.0) -> str:
    """Run a command that has to succeed, and return what it printed."""
    ran = subprocess.run(
        words, cwd=ROOT, env={**BUILDAH, **os.environ}, capture_output=True, text=True, timeout=within, check=False
    )
    assert ran.returncode == 0, f"{' '.join(words)}: {ran.stdout[-2000:]}{ran.stderr[-4000:]}"
    return ran.stdout


@functools.cache
def builder() -> str:
    return said(str(SCRIPT), "builder").strip()


def docker() -> bool:
    return builder() in {"docker", "podman"}


@functools.cache
def names() -> dict[str, str]:
    """The images that `make images` makes, by role."""
    return dict(zip(ROLES, said(str(SCRIPT), "names").split(), strict=True))


def build(image: str, folder: Path) -> str:
    """Build the Dockerfile of a folder, and return the image's name."""
    file = str(folder / "Dockerfile")
    match builder():
        case "docker" | "podman" as program:
            said(program, "build", "-t", image, "-f", file, str(folder))
        case "cluster":
            said(str(ROOT / "../shared/cluster/cluster"), "build-image", image, file, str(folder))
        case _:
            said("buildah", "bud", "--layers", "-t", image, "-f", file, str(folder))
    return image


def config(image: str) -> dict[str, Any]:
    """How an image says that it is run: User, Entrypoint, Env, Labels."""
    if docker():
        found: dict[str, Any] = json.loads(said(builder(), "image", "inspect", image))[0]["Config"]
    else:
        found = json.loads(said("buildah", "inspect", "--type", "image", image))["OCIv1"]["config"]
    return found


def run(image: str, *command: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in place of the image's own, as the image's user, and wait for its end."""
    with _prepared(image, env or {}) as words:
        return subprocess.run(
            [*words, *command], env={**BUILDAH, **os.environ}, capture_output=True, text=True, timeout=120, check=False
        )


@contextmanager
def started(image: str, env: Mapping[str, str]) -> Iterator[None]:
    """Run an image's own command, with the host's network, until the end of the block.

    Prints what it says, which pytest shows when the test fails.
    """
    command = config(image)["Entrypoint"]
    with (
        _prepared(image, env) as words,
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            [*words, *command], env={**BUILDAH, **os.environ}, stdout=log, stderr=log, start_new_session=True
        ) as process,
    ):
        try:
            yield
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(60)
            log.seek(0)
            print(log.read()[-5000:])


@contextmanager
def _prepared(image: str, env: Mapping[str, str]) -> Iterator[list[str]]:
    """The words before a command that run it in a container of an image."""
    said_env = [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
    if docker():
        # The command's first word is an entry point too, by `env`: so the image's own does not come before it.
        more = ["--rm", "--init=false", "--read-only", "--tmpfs", "/tmp", "--network", "host"]
        yield [builder(), "run", *more, *said_env, "--entrypoint", "/usr/bin/env", image]
        return
    container = said("buildah", "from", "--pull-never", image).strip()
    try:
        yield ["buildah", "run", *said_env, container, "--"]
    finally:
        said("buildah", "rm", container)
