"""Where the server is, and who is asking: from the environment, else from the nearest `.taskflow/client.json`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from taskflow_queue.errors import SettingError

DEFAULT_URL: Final = "http://127.0.0.1:8080"
PLACE: Final = Path(".taskflow") / "client.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """A server's address and the key to it. `api_key` stays out of the repr: that ends up in logs."""

    url: str
    api_key: str | None
    source: str

    def __repr__(self) -> str:
        return f"Settings(url={self.url!r}, source={self.source!r})"


def resolve(url: str | None = None, api_key: str | None = None, *, start: Path | None = None) -> Settings:
    """Return the settings: what is given, else TASKFLOW_URL and TASKFLOW_API_KEY, else the file, else this machine.

    The key of a file is used only for the URL of that file: a key goes to no other server. Raises SettingError.
    """
    given, source = url, "arguments"
    if given is None:
        given, source = os.environ.get("TASKFLOW_URL") or None, "TASKFLOW_URL"
    api_key = api_key or os.environ.get("TASKFLOW_API_KEY") or None
    given = None if given is None else _checked(given, source)
    if given is not None and api_key is not None:
        return Settings(given, api_key, source)
    file = find(start or Path.cwd())
    there = None if file is None else read(file)
    if given is not None:
        key = there.api_key if there is not None and there.url == given else None
        return Settings(given, key, source)
    if there is not None:
        return Settings(there.url, api_key or there.api_key, there.source)
    return Settings(DEFAULT_URL, api_key, "default")


def find(start: Path) -> Path | None:
    """Return the client file of `start`, of the nearest folder above it that has one, or of the home folder."""
    for folder in (start, *start.parents, Path.home()):
        if (folder / PLACE).is_file():
            return folder / PLACE
    return None


def read(file: Path) -> Settings:
    """Return what a client file says. Raises SettingError when it cannot be read."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        url, key = said["url"], said.get("api_key")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise SettingError(f"{file} cannot be read: {wrong!r}", fix="remove it, or run `taskflow login`") from wrong
    return Settings(_checked(url, str(file)), key, str(file))


def write(folder: Path, url: str, api_key: str) -> Path:
    """Write the client file of a folder, readable by its owner alone, in one step; return its path."""
    file = folder / PLACE
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(f".{os.getpid()}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        json.dump({"url": url, "api_key": api_key}, out)
    new.replace(file)
    return file


def _checked(url: object, source: str) -> str:
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise SettingError(
            f"the server's URL of {source} is wrong: {url!r}", fix="it must begin with http:// or https://"
        )
    return url.rstrip("/")
