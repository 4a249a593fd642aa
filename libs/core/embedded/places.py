"""Where embedded servers keep their files, and as whom they run.

PostgreSQL refuses root, and a unix socket's path must be short. So a part may have to lie outside the directory,
in a folder of its own under the temporary one: `outside` is its name, kept in the directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from core.clock import monotonic, pause
from core.embedded.processes import Process, load, save
from core.errors import SettingError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LOCK_SECONDS: Final = 120.0  # longer than initdb and a first start on a slow disk
_SOCKET_PATH_BYTES: Final = 100  # the kernel takes 107 (103 on macOS)
_SOCKET_NAME: Final = ".s.PGSQL.5432.lock"

_OWN_FOLDERS: Final = ("postgres", "socket", "redis-high", "redis-low")
_OWN_FILES: Final = ("outside", "owner.json", "secret-key", "redis-server", "lock")


@dataclass(frozen=True, slots=True)
class User:
    """Whom a server runs as."""

    uid: int
    gid: int


def server_user() -> User | None:
    """None means as whoever we are; root gives way to `postgres`, else `nobody`."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return User(found.pw_uid, found.pw_gid)
    message = "PostgreSQL refuses to run as root, and there is no user postgres or nobody"
    raise SettingError(message, fix="set DATABASE_URL, or run as another user")


def reachable(path: Path) -> bool:
    """Whether another user can get to this path: each folder above it lets everyone through."""
    return all(parent.stat().st_mode & 0o001 for parent in path.parents if parent.exists())


class Place:
    """One directory of embedded servers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.expanduser().resolve()
        self.user = server_user()

    @contextmanager
    def locked(self, meanwhile: Callable[[], None] = lambda: None) -> Iterator[None]:
        """One process at a time starts or stops servers here; who waits calls `meanwhile`, which may raise."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            file = (self.directory / "lock").open("a")
        except OSError as refused:
            message = f"{self.directory} cannot be written ({refused.strerror})"
            raise SettingError(message, fix="change to a folder of your own, or set DATABASE_URL") from refused
        with file:
            end = monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as held:
                    if monotonic() > end:
                        message = f"another process has been starting the servers in {self.directory} for too long"
                        raise Unavailable(message, fix="end it, then try again") from held
                    meanwhile()
                    pause(0.05)
            yield

    def owner(self) -> Process | None:
        """The living process that had the servers started."""
        owner, _ = load(self.directory / "owner.json")
        return owner if owner and owner.alive() else None

    def own(self) -> None:
        """Become the owner, unless a living one is there."""
        if self.owner() is None:
            save(self.directory / "owner.json", Process.me())

    def disown(self) -> None:
        """Nobody owns the servers any more."""
        (self.directory / "owner.json").unlink(missing_ok=True)

    def database_folder(self) -> Path:
        """Where the database lies: in the directory, unless the server's user cannot get there."""
        folder = self.directory / "postgres"
        if self.user and not reachable(folder):
            folder = self.outside() / "postgres"
        return self._made(folder)

    def socket_folder(self) -> Path:
        """Where the unix socket lies; its path must be short."""
        folder = self.directory / "socket"
        too_long = len(os.fsencode(folder / _SOCKET_NAME)) >= _SOCKET_PATH_BYTES
        # A comma separates folders in unix_socket_directories, and a URL cannot carry the rest as they are.
        odd = any(sign in str(folder) for sign in ", '\"\\&#?%")
        if too_long or odd or (self.user and not reachable(folder)):
            folder = self.outside() / "socket"
        return self._made(folder)

    def outside(self) -> Path:
        """A folder that anyone can get to, made once for this directory."""
        note = self.directory / "outside"
        with contextlib.suppress(OSError, ValueError):
            folder = Path(note.read_text(encoding="utf-8"))
            # The temporary folder is everyone's: use only what is ours.
            if folder.stat().st_uid == os.geteuid() and not folder.is_symlink():
                return folder
        folder = Path(tempfile.mkdtemp(prefix="taskflow-"))
        folder.chmod(0o711)
        note.write_text(str(folder), encoding="utf-8")
        return folder

    def delete(self) -> None:
        """Remove what the servers wrote, and nothing else that may lie in the directory."""
        if (self.directory / "outside").exists():
            shutil.rmtree(self.outside(), ignore_errors=True)
        for name in _OWN_FOLDERS:
            shutil.rmtree(self.directory / name, ignore_errors=True)
        for name in _OWN_FILES:
            (self.directory / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: something of somebody else's is in it
            self.directory.rmdir()

    def _made(self, folder: Path) -> Path:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.user:
            os.chown(folder, self.user.uid, self.user.gid)
        return folder
