"""Commands that run parts of the server: `taskflow dev`, `taskflow doctor`, `taskflow verify`, and a worker.

The SDK imports nothing of the server; these become one of its processes, when it is installed.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Final, NoReturn
from uuid import UUID  # noqa: TC003 - typer reads the annotations

import typer

from taskflow_queue.cli.output import As, Format
from taskflow_queue.errors import SettingError

SERVER: Final = "taskflow-server"
EMBEDDED: Final = "embedded"


def dev(
    modules: Annotated[list[str] | None, typer.Argument(metavar="[MODULE]...", help="modules with tasks")] = None,
    *,
    port: Annotated[int, typer.Option(help="of the API; 0 takes any that is free")] = 8080,
    children: Annotated[int, typer.Option(min=0, help="processes for tasks; 0 is one a core")] = 0,
    reload: Annotated[bool, typer.Option(help="restart the worker when its modules change")] = True,
) -> None:
    """Run everything here: PostgreSQL, Redis, API, scheduler and worker, until ctrl-c.

    Without modules, it takes the *.py files of this folder that use `@task`, and TaskFlow's examples. Data stays in
    `.taskflow/`; DATABASE_URL and REDIS_HOST_HIGH, REDIS_HOST_LOW use your own servers instead.
    """
    arguments = [*(modules or []), "--port", str(port), "--children", str(children)]
    run("services.dev.main", [*arguments, *([] if reload else ["--no-reload"])], extra=EMBEDDED)


def doctor(o: As = Format.TABLE) -> None:
    """Check stores, schema, clocks, leader, workers and the newest tasks. Exit code 1 when something is wrong."""
    run("core.doctor", ["-o", o.value])


def verify(
    o: As = Format.TABLE,
    after: Annotated[UUID | None, typer.Option(help="id of the last task not to be read, to continue a run")] = None,
) -> None:
    """Read all tasks and events, and prove that they agree. Exit code 1, and the ids, when they do not.

    Needs DATABASE_URL, with the login of the migrations or of the API. It changes nothing and keeps no snapshot open.
    """
    run("core.verify", ["-o", o.value, *(["--after", str(after)] if after else [])])


def run(
    module: str, arguments: list[str], *, extra: str | None = None, environment: dict[str, str] | None = None
) -> NoReturn:
    """Replace this process by a module of the server: signals and the exit code are that one's.

    Raises SettingError when the server is not installed. `-I`: neither the folder nor PYTHONPATH may shadow it.
    """
    try:
        metadata.distribution(SERVER)
    except metadata.PackageNotFoundError:
        name = f"'{SERVER}[api,scheduler,worker,embedded]'" if extra else f"'{SERVER}[worker]'"
        raise SettingError("this command needs the server, which is not installed", fix=f"pip install {name}") from None
    # `dev` brings the stores itself: those of one that was killed must not look like the user's own.
    environment = ({} if extra == EMBEDDED else _stores()) | os.environ | (environment or {})
    command = [sys.executable, "-I", "-u", "-m", module, *arguments]
    # This process becomes the other one: as its parent it would keep the stores' passwords where tasks can read them.
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, command, environment)  # noqa: S606 - a command of our own


def _stores() -> dict[str, str]:
    """Return where the stores of a running `taskflow dev` are, of this folder or one above it.

    What the environment says comes first, and one database with another one's Redis would be no installation.
    """
    if "DATABASE_URL" in os.environ:
        return {}
    for folder in (Path.cwd(), *Path.cwd().parents):
        file = folder / ".taskflow" / "stores.json"
        try:
            return {str(name): str(value) for name, value in json.loads(file.read_text(encoding="utf-8")).items()}
        except (OSError, ValueError, AttributeError):
            continue
    return {}
