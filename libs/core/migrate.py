"""Migrations: `python -m core.migrate` brings the database to this code's head and waits for locks with a bound.

A database that is ahead of this code counts as ready: old and new code run side by side during an upgrade.
"""

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from core.config import settings
from core.errors import SettingError, Unavailable
from core.urls import for_psycopg2

_HERE = Path(__file__).resolve().parent
_PLACES = (_HERE / "migrations", _HERE.parents[1] / "alembic")  # in a wheel, in the repository


def config(url: str) -> Config:
    """Return Alembic's configuration for the database at `url`."""
    made = Config()
    made.set_main_option("script_location", str(next(place for place in _PLACES if place.is_dir())))
    made.attributes["url"] = for_psycopg2(url)
    return made


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database at `url` to `revision`. Safe to run from several processes at once."""
    command.upgrade(config(url), revision)


def downgrade(url: str, revision: str) -> None:
    """Take the database at `url` back to `revision`."""
    command.downgrade(config(url), revision)


def current(url: str) -> str | None:
    """Return the revision of the database at `url`, None when it is empty. Raises Unavailable."""
    engine = create_engine(for_psycopg2(url), connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except OperationalError as error:
        message = "PostgreSQL does not answer"
        raise Unavailable(message) from error
    finally:
        engine.dispose()


def is_ready(url: str) -> bool:
    """Tell whether the database at `url` is at this code's head, or ahead of it. Raises Unavailable."""
    revision = current(url)
    if revision is None:
        return False
    scripts = ScriptDirectory.from_config(config(url))
    if revision == scripts.get_current_head():
        return True
    try:
        scripts.get_revision(revision)
    except CommandError:
        return True  # a revision that this code does not know was made by newer code
    return False


def main() -> int:
    """Run the migrations of DATABASE_URL."""
    try:
        upgrade(settings.database_url)
    except SettingError as error:
        print(error, file=sys.stderr)
        return 2
    except OperationalError as error:
        print(f"the migrations did not run: {str(error.orig).strip()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
