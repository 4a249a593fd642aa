"""`taskflow key ...`, `taskflow login`, `taskflow register`."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from taskflow_queue import clock, settings
from taskflow_queue.cli import exits, output
from taskflow_queue.cli.asking import client, seconds
from taskflow_queue.cli.output import As, Format
from taskflow_queue.client import Client

app = typer.Typer(cls=exits.Group, no_args_is_help=True, help="Make and revoke API keys.")


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="what it is for")],
    expires_in: Annotated[str | None, typer.Option(help="it is good for this long: 7d")] = None,
    o: As = Format.TABLE,
) -> None:
    """Make an API key. It is shown once."""
    lasting = seconds(expires_in)
    at = None if lasting is None else clock.now() + timedelta(seconds=lasting)
    made = client().create_key(name, expires_at=at)
    if o is Format.JSON:
        output.as_json(made)
        return
    output.line(made.key or "")
    output.note(f"this is key {made.id}, and it is not shown again; use it as TASKFLOW_API_KEY")


@app.command("ls")
@app.command("list", hidden=True)
def ls(o: As = Format.TABLE) -> None:
    """List API keys, without their secrets."""
    found = client().keys()
    if o is Format.JSON:
        output.as_json({"api_keys": found})
        return
    rows = (
        [
            one.id,
            one.name,
            one.prefix,
            "active" if one.is_active else "revoked",
            one.created_at,
            one.last_used_at,
            one.expires_at,
        ]
        for one in found
    )
    output.table(["ID", "NAME", "PREFIX", "STATE", "CREATED", "LAST USED", "EXPIRES"], rows, empty="no keys yet")


@app.command("revoke")
def revoke(key: Annotated[str, typer.Argument(metavar="ID", help="the number of `key ls`")]) -> None:
    """Make an API key useless, everywhere within 5 seconds."""
    client().revoke_key(key)
    output.line(f"key {key} is revoked")


def login(
    *,
    url: Annotated[str | None, typer.Option(help="the server; by default the one of the settings")] = None,
    username: Annotated[str, typer.Option(prompt=True)] = "",
    password: Annotated[str, typer.Option(prompt=True, hide_input=True)] = "",
    here: Annotated[bool, typer.Option(help="for this folder and those below, not for the whole account")] = False,
) -> None:
    """Log in: makes an API key and keeps it in `.taskflow/client.json`, which only you can read."""
    found = settings.resolve(url)
    asked = Client(found.url, patience=3)
    token = asked.token(username, password)
    made = asked.create_key(f"taskflow login on {socket.gethostname()}", token=token)
    file = settings.write(Path.cwd() if here else Path.home(), found.url, made.key or "")
    output.line(f"logged in to {found.url} as {username}; the key is in {file}")


def register(
    url: Annotated[str | None, typer.Option(help="the server; by default the one of the settings")] = None,
    username: Annotated[str, typer.Option(prompt=True)] = "",
    email: Annotated[str, typer.Option(prompt=True)] = "",
    password: Annotated[str, typer.Option(prompt=True, hide_input=True, confirmation_prompt=True)] = "",
) -> None:
    """Make an account."""
    found = settings.resolve(url)
    Client(found.url, patience=3).register(username, email, password)
    output.line(f"registered {username} at {found.url}; now: taskflow login")
