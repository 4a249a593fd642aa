"""`taskflow task ...`: submit, look, wait, cancel, retry."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer

from taskflow_queue import models, verbs
from taskflow_queue.cli import exits, output, submitting, watching
from taskflow_queue.cli.asking import TaskId, client, moment, seconds, task_id
from taskflow_queue.cli.output import As, Format

app = typer.Typer(cls=exits.Group, no_args_is_help=True, help="Submit tasks and follow them.")
app.command("submit", no_args_is_help=True)(submitting.submit)
app.command("watch")(watching.watch)

Timeout = Annotated[str | None, typer.Option(help="give up after this long: 90, 15m, 2h (exit code 5)")]


@app.command("list")
@app.command("ls", hidden=True)
def list_(
    *,
    status: Annotated[str | None, typer.Option(help="QUEUED, IN_PROGRESS, COMPLETED, ...; several with commas")] = None,
    queue: Annotated[str | None, typer.Option("--queue", "-q")] = None,
    type: Annotated[str | None, typer.Option(help="module:function")] = None,  # noqa: A002 - the option's name
    since: Annotated[str | None, typer.Option(help="created after: 15m, 2h, 2030-01-31T12:00")] = None,
    until: Annotated[str | None, typer.Option(help="created before")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    o: As = Format.TABLE,
) -> None:
    """List tasks, newest first."""
    asked, found, cursor = client(), list[models.TaskInfo](), None
    while len(found) < limit:
        page = asked.tasks(
            status=status.upper().split(",") if status else None,
            queue=queue,
            type=type,
            created_after=moment(since),
            created_before=moment(until),
            limit=min(limit - len(found), 200),
            cursor=cursor,
        )
        found += page.tasks
        cursor = page.next_cursor
        if cursor is None:
            break
    if o is Format.JSON:
        output.as_json({"tasks": found, "next_cursor": cursor})
        return
    rows = ([one.id, one.type, one.queue, one.status, one.attempt, output.age(one.created_at)] for one in found)
    output.table(["ID", "TYPE", "QUEUE", "STATUS", "ATTEMPT", "CREATED"], rows, empty="no such tasks")


@app.command("get")
def get(task: TaskId, o: As = Format.TABLE) -> None:
    """Show everything about a task, also why it is still waiting."""
    asked = client()
    info = asked.get(task_id(asked, task))
    if o is Format.JSON:
        output.as_json(info)
        return
    shown = {
        name: getattr(info, name) for name in info.__struct_fields__ if name not in {"waiting", "error", "progress"}
    }
    output.facts(shown.items())
    if info.progress is not None:
        output.facts([("progress", watching.progress_as_words(info.progress))])
    if info.waiting is not None:
        output.facts([("waiting", f"{info.waiting.code}: {info.waiting.detail}")])
    if info.error is not None:
        watching.show_error(info.error)


@app.command("wait")
def wait(task: TaskId, timeout: Timeout = None, o: As = Format.TABLE) -> None:
    """Wait until a task has ended. Exit code 0 when it completed, 1 when it did not, 5 when the time is over."""
    asked = client(patience=60)
    outcome = asked.handle(task_id(asked, task)).wait(seconds(timeout))
    if o is Format.JSON:
        output.as_json(outcome)
    else:
        output.facts([("id", outcome.id), ("status", outcome.status)])
        if outcome.error is not None:
            watching.show_error(outcome.error)
    raise typer.Exit(exits.of_status(outcome.status))


@app.command("result")
def result(task: TaskId, timeout: Timeout = "0") -> None:
    """Print a task's result as JSON. Exit code 1 when it ended without one, 5 when it has not ended."""
    asked = client()
    outcome = asked.handle(task_id(asked, task)).wait(seconds(timeout))
    output.as_json(verbs.value_of(outcome))


@app.command("cancel", no_args_is_help=True)
def cancel(
    tasks: Annotated[list[str], typer.Argument(metavar="ID...", help="ids, or @latest")],
    *,
    force: Annotated[bool, typer.Option(help="do not ask first: stop it at once")] = False,
    grace: Annotated[str, typer.Option(help="how long a running task may take to stop")] = "30s",
    o: As = Format.TABLE,
) -> None:
    """Cancel tasks: waiting ones at once, running ones by asking, and by force after the grace."""
    asked = client()
    done = []
    for one in tasks:
        found = task_id(asked, one)
        done.append({"id": found, "status": asked.cancel(found, force=force, grace=seconds(grace) or 0.0)})
    _statuses(done, o)


@app.command("retry", no_args_is_help=True)
def retry(
    tasks: Annotated[list[str], typer.Argument(metavar="ID...", help="ids, or @latest")], o: As = Format.TABLE
) -> None:
    """Let tasks that failed, expired or were cancelled run again."""
    asked = client()
    infos = [asked.retry(task_id(asked, one)) for one in tasks]
    _statuses([{"id": one.id, "status": one.status} for one in infos], o)


@app.command("logs")
def logs(
    task: TaskId,
    attempt: Annotated[int | None, typer.Option(help="of this attempt alone")] = None,
    o: As = Format.TABLE,
) -> None:
    """Print what a task's attempts printed and logged."""
    asked = client()
    chunks = [one for one in asked.logs(task_id(asked, task)) if attempt in {None, one.get("attempt")}]
    if o is Format.JSON:
        output.as_json({"logs": chunks})
        return
    watching.LogPrinter(output.line).show(chunks)


@app.command("events")
def events(task: TaskId, o: As = Format.TABLE) -> None:
    """Show what happened to a task, oldest first."""
    asked = client()
    found = asked.events(task_id(asked, task))
    if o is Format.JSON:
        output.as_json({"events": found})
        return
    rows = ([_when(one), one.get("event_type"), one.get("attempt"), _said(one)] for one in found)
    output.table(["AT", "EVENT", "ATTEMPT", "WHY"], rows, empty="nothing happened yet")


def _when(event: dict[str, Any]) -> datetime | None:
    at = event.get("created_at")
    return datetime.fromisoformat(at) if isinstance(at, str) else None


def _said(event: dict[str, Any]) -> str:
    said = event.get("message") or event.get("cause") or ""
    return said if isinstance(said, str) else msgspec.json.encode(said).decode()


def _statuses(done: list[dict[str, str]], o: Format) -> None:
    if o is Format.JSON:
        output.as_json({"tasks": done})
    else:
        output.table(["ID", "STATUS"], ([one["id"], one["status"]] for one in done), empty="")
