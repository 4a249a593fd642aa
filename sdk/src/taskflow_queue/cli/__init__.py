"""The command `taskflow`. Exit codes: see exits.py."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from taskflow_queue.cli import exits, keys, output, queues, server, tasks, workers

EXIT_CODES = (
    "Exit codes: 0 done; 1 the task or a check failed; 2 wrong usage, setting or request; 3 server cannot be reached; "
    "4 not found; 5 out of time; 6 not allowed; 7 not in this state; 130 interrupted."
)

app = typer.Typer(
    cls=exits.Group,
    name="taskflow",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
app.command("dev")(server.dev)
app.add_typer(tasks.app, name="task")
app.add_typer(queues.app, name="queue")
app.add_typer(workers.app, name="worker")
app.add_typer(keys.app, name="key")
app.command("login")(keys.login)
app.command("register")(keys.register)
app.command("doctor")(server.doctor)
app.command("verify")(server.verify)


def _version(asked: bool) -> None:  # noqa: FBT001 - so a callback is called
    if asked:
        output.line(f"taskflow {metadata.version('taskflow-queue')}")
        raise typer.Exit


@app.callback()
def _taskflow(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """TaskFlow: a task queue that loses nothing."""


def main() -> None:
    """Run the command of sys.argv."""
    app()
