"""What `taskflow dev` leaves under `.taskflow/`: where the client finds the server, and other commands the stores."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Final

from taskflow_queue import settings as client_settings
from taskflow_queue.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_STORES: Final = "stores.json"
_SHOWN: Final = (
    "DATABASE_URL",
    "REDIS_HOST_HIGH",
    "REDIS_PORT_HIGH",
    "REDIS_HOST_LOW",
    "REDIS_PORT_LOW",
    "TASKFLOW_REDIS",
)


def known_key(folder: Path) -> str | None:
    """Return the key of the folder's client file, if there is a readable one."""
    file = folder / client_settings.PLACE
    try:
        return client_settings.read(file).api_key
    except SettingError:
        return None


def write_client(folder: Path, url: str, key: str) -> Path:
    """Tell the SDK and the commands of this folder where the server is, and who they are."""
    return client_settings.write(folder, url, key)


def write_stores(place: Path, environment: Mapping[str, str]) -> None:
    """Tell `taskflow doctor` and `taskflow worker` of this folder where the stores are: for their owner alone."""
    new = place / f".{_STORES}.{os.getpid()}"
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        json.dump({name: environment[name] for name in _SHOWN if name in environment}, out)
    new.replace(place / _STORES)


def forget_stores(place: Path) -> None:
    """The stores are stopped: nobody shall look for them."""
    (place / _STORES).unlink(missing_ok=True)
