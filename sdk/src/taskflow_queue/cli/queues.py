"""`taskflow queue ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from taskflow_queue.cli import exits, output
from taskflow_queue.cli.asking import client
from taskflow_queue.cli.output import As, Format
from taskflow_queue.errors import NotFound

app = typer.Typer(cls=exits.Group, no_args_is_help=True, help="Look at queues, pause and limit them.")
Name = Annotated[str, typer.Argument(metavar="QUEUE")]


@app.command("ls")
@app.command("list", hidden=True)
def ls(o: As = Format.TABLE) -> None:
    """List queues with what waits and runs in them."""
    found = client().queues()
    if o is Format.JSON:
        output.as_json({"queues": found})
        return
    rows = (
        [
            one.name,
            "paused" if one.paused else "open",
            one.depth.pending,
            one.depth.queued,
            one.depth.running,
            one.depth.failed,
            output.seconds_as_words(one.oldest_queued_seconds),
            one.max_concurrent or None,
            one.max_per_key or None,
        ]
        for one in found
    )
    columns = ["QUEUE", "STATE", "PENDING", "QUEUED", "RUNNING", "FAILED", "OLDEST", "MOST", "MOST/KEY"]
    output.table(columns, rows, empty="no queues yet: the first task of one makes it")


@app.command("pause")
def pause(queue: Name) -> None:
    """Start no more tasks of a queue; those that run go on. Admins only."""
    client().pause(queue)
    output.line(f"{queue} is paused")


@app.command("resume")
def resume(queue: Name) -> None:
    """Start tasks of a queue again. Admins only."""
    client().resume(queue)
    output.line(f"{queue} is open")


@app.command("limit")
def limit(
    queue: Name,
    *,
    max_concurrent: Annotated[int | None, typer.Option(min=0, help="of its tasks at once; 0 is no limit")] = None,
    max_per_key: Annotated[int | None, typer.Option(min=0, help="of a concurrency key at once; 0 is no limit")] = None,
) -> None:
    """Limit how many tasks of a queue run at once; what is not said stays. Admins only."""
    asked = client()
    now = next((one for one in asked.queues() if one.name == queue), None)
    if now is None:
        raise NotFound(f"there is no queue {queue!r}", status=404, code="not_found", fix="taskflow queue ls")
    most = now.max_concurrent if max_concurrent is None else max_concurrent
    each = now.max_per_key if max_per_key is None else max_per_key
    asked.limit(queue, max_concurrent=most, max_per_key=each)
    output.line(f"{queue}: at once {most or 'no limit'}, per key {each or 'no limit'}")
