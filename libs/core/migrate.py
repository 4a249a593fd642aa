"""Migrations: `python -m core.migrate` brings the database to this code's head and waits for locks with a bound.

`python -m core.migrate --wait` is for all others: it comes back when that has been done.

A database that is ahead of this code counts as ready: old and new code run side by side during an upgrade.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from core import clock, functions, pid1, roles
from core.config import settings
from core.errors import Invalid, SettingError, TaskFlowError, Unavailable
from core.process_protection import protect
from core.urls import MIGRATION, for_psycopg2

_LOOK_SECONDS: Final = 1.0
_TELL_SECONDS: Final = 5.0
_HERE = Path(__file__).resolve().parent
_PLACES = (_HERE / "migrations", _HERE.parents[1] / "alembic")  # in a wheel, in the repository


def config(url: str) -> Config:
    """Return Alembic's configuration for the database at `url`."""
    made = Config()
    made.set_main_option("script_location", str(next(place for place in _PLACES if place.is_dir())))
    made.attributes["url"] = for_psycopg2(url, MIGRATION)
    return made


def upgrade(url: str, revision: str = "head", *, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Bring the database at `url` to `revision`. Safe to run from several processes at once.

    With the newest schema come the functions that workers call. While another process migrates, `meanwhile` is called
    now and then; it may raise to end the wait.
    """
    asked = config(url)
    asked.attributes["meanwhile"] = meanwhile
    command.upgrade(asked, revision)
    if revision == "head":
        _make_functions(url)


def downgrade(url: str, revision: str) -> None:
    """Take the database at `url` back to `revision`, which has no use for this code's functions."""
    functions.remove(url)
    command.downgrade(config(url), revision)


def _make_functions(url: str) -> None:
    functions.make(url, role=roles.WORKER)


def current(url: str) -> str | None:
    """Return the revision of the database at `url`, None when it is empty. Raises Unavailable."""
    with _connected(url) as connection:
        return MigrationContext.configure(connection).get_current_revision()


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    engine = create_engine(for_psycopg2(url), connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            yield connection
    except OperationalError as error:
        message = "PostgreSQL does not answer"
        raise Unavailable(message) from error
    finally:
        engine.dispose()


def is_ready(url: str) -> bool:
    """Tell whether the database at `url` is at this code's schema, or ahead of it. Raises Unavailable.

    The worker functions of this code tell: they are made last, and every role may see that they exist.
    """
    with _connected(url) as connection:
        return functions.are_there(connection)


def _is_newer(url: str, revision: str) -> bool:
    """Tell whether newer code made a revision: this code does not know it."""
    try:
        ScriptDirectory.from_config(config(url)).get_revision(revision)
    except CommandError:
        return True
    return False


def wait(url: str, seconds: float, *, tell: Callable[[str], None] = print) -> bool:
    """Wait until the database at `url` is ready, `seconds` at most; `tell` gets a line now and then. True when it is.

    Whatever PostgreSQL says meanwhile is waited out: it may be starting, and our role or its rights may be still to
    come.
    """
    began = clock.monotonic()
    told = -_TELL_SECONDS
    while True:
        try:
            if is_ready(url):
                return True
            why = "the migrations have not run"
        except Unavailable as away:
            why = _line(away.__cause__ or away)
        except SQLAlchemyError as refused:
            why = _line(refused)
        waited = clock.monotonic() - began
        if waited >= seconds:
            tell(f"not ready within {seconds:.0f} s: {why}")
            return False
        if waited - told >= _TELL_SECONDS:
            told = waited
            tell(f"waiting, {waited:.0f} of {seconds:.0f} s: {why}")
        clock.pause(min(_LOOK_SECONDS, seconds - waited))


def _line(error: BaseException) -> str:
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__


def main(arguments: Sequence[str] = ()) -> int:
    """Run the migrations of DATABASE_URL, and what belongs to them: rights of the services' roles, an administrator.

    Returns 0 when it is done, 1 when it is not, 2 for a wrong setting. With `--wait` it changes nothing: it waits until
    somebody else has done it.
    """
    pid1.end_on_sigterm()
    parser = argparse.ArgumentParser(prog="python -m core.migrate", description="bring the database to this schema")
    parser.add_argument("--wait", action="store_true", help="change nothing, wait until another process has done it")
    parser.add_argument(
        "--worker-rights",
        type=roles.WorkerRights,
        choices=list(roles.WorkerRights),
        help="then leave taskflow_worker its functions only, or give it back the rights on tables that workers of"
        " earlier versions need; `functions` is refused while such a worker lives (default: leave as it is)",
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="how long to wait (%(default).0f)")
    asked = parser.parse_args(arguments)
    try:
        protect()
        if asked.wait:
            return 0 if wait(settings.database_url, asked.seconds, tell=_tell) else 1
        _check_administrator()
        if _upgraded(settings.database_url):
            _grant()
        _make_administrator()
        if asked.worker_rights is not None:
            roles.set_worker_rights(settings.database_url, asked.worker_rights)
            _tell(f"{roles.WORKER} has its {asked.worker_rights.value}")
    except SettingError as error:
        print(error, file=sys.stderr)
        return 2
    except DBAPIError as error:
        print(f"the migrations did not run: {str(error.orig).strip()}", file=sys.stderr)
        return 1
    except TaskFlowError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _upgraded(url: str) -> bool:
    """Bring the database to this code's head; False when newer code has been there, and knows its rights as well.

    This code's workers may come back all the same, so the functions that they call are made in either case.
    """
    try:
        upgrade(url)
    except CommandError:
        revision = current(url)
        if revision is None or not _is_newer(url, revision):
            raise
        _make_functions(url)
        _tell(f"the schema is {revision}, made by newer code: it stays as it is")
        return False
    return True


def _grant() -> None:
    roles.grant(settings.database_url)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _check_administrator() -> None:
    """Complain about the administrator's settings before anything is changed. Raises SettingError."""
    if not settings.admin_username:
        return
    from core import auth  # noqa: PLC0415 - who only waits needs no argon2, and most images have none

    if settings.admin_password is None:
        message = "TASKFLOW_ADMIN_PASSWORD is not set, and TASKFLOW_ADMIN_USERNAME is"
        raise SettingError(message, fix="set both, or neither", field="admin_password")
    try:
        auth.normal_password(settings.admin_password.get_secret_value())
    except Invalid as wrong:
        message = f"TASKFLOW_ADMIN_PASSWORD is wrong: {wrong}"
        raise SettingError(message, field="admin_password") from None
    if settings.admin_api_key is not None and auth.split_key(settings.admin_api_key.get_secret_value()) is None:
        message = "TASKFLOW_ADMIN_API_KEY is wrong: it must be tf_, 12 of a-z0-9, _, 43 of A-Za-z0-9_-"
        raise SettingError(message, fix="make one that looks so", field="admin_api_key")


def _make_administrator() -> None:
    if not settings.admin_username or settings.admin_password is None:
        return
    from core import accounts, database  # noqa: PLC0415 - as above
    from core.auth import Passwords  # noqa: PLC0415 - as above

    key = settings.admin_api_key
    with database.SessionLocal() as session:
        changed = accounts.ensure_admin(
            session,
            Passwords(),
            username=settings.admin_username,
            password=settings.admin_password.get_secret_value(),
            api_key=key.get_secret_value() if key else None,
        )
        session.commit()
    if changed:
        _tell(f"the administrator {settings.admin_username} has an account")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
