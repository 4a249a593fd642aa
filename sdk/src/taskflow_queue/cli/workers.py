"""`taskflow worker ls`, and `taskflow worker app.tasks`, which runs one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from taskflow_queue.cli import exits, output, server
from taskflow_queue.cli.asking import client
from taskflow_queue.cli.output import As, Format


class _Group(exits.Group):
    """`taskflow worker app.tasks` is `taskflow worker run app.tasks`: whatever is no command here is a module."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `run` where it was left out."""
        if args and args[0] not in self.commands and args[0] not in {"--help", "-h"}:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    help="Run a worker (`taskflow worker app.tasks`), or list them (`taskflow worker ls`).",
)


@app.command("ls")
@app.command("list", hidden=True)
def ls(o: As = Format.TABLE) -> None:
    """List the workers."""
    found = client().workers()
    if o is Format.JSON:
        output.as_json({"workers": found})
        return
    rows = (
        [
            one.name or one.id,
            one.state,
            one.queues,
            len(one.types),
            one.running,
            _free(one.free, one.slots),
            _beat(one.last_beat_seconds),
        ]
        for one in found
    )
    output.table(["WORKER", "STATE", "QUEUES", "TYPES", "RUNNING", "FREE", "LAST BEAT"], rows, empty="no workers")


@app.command("run", no_args_is_help=True)
def run(
    modules: Annotated[list[str], typer.Argument(metavar="MODULE...", help="modules with tasks: app.tasks")],
    queue: Annotated[list[str] | None, typer.Option("--queue", "-q", help="serve this queue; may be repeated")] = None,
    children: Annotated[int, typer.Option(min=0, help="processes for tasks; 0 is one a core")] = 0,
    slots: Annotated[int | None, typer.Option(min=1, help="async tasks at once in each")] = None,
) -> None:
    """Run a worker here, on the stores of DATABASE_URL and REDIS_HOST_*. Ctrl-c lets it finish what it runs."""
    here = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    environment = {"TASKFLOW_WORKER_MODULES": ",".join(modules), "PYTHONPATH": here}
    if queue:
        environment["TASKFLOW_WORKER_QUEUES"] = ",".join(queue)
    if children:
        environment["TASKFLOW_WORKER_CHILDREN"] = str(children)
    if slots:
        environment["TASKFLOW_WORKER_SLOTS"] = str(slots)
    server.run("services.worker.main", [], environment=environment)


def _free(free: dict[str, int], slots: dict[str, int]) -> str:
    return ", ".join(f"{free.get(lane, 0)}/{most} {lane}" for lane, most in slots.items())


def _beat(seconds: float | None) -> str:
    return "-" if seconds is None else f"{output.seconds_as_words(seconds)} ago"
