"""One DATABASE_URL for both drivers: unix sockets and `?sslmode=` included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

# Seconds, seconds, probes, milliseconds, as libpq has them. A server that is gone without a word is noticed within half
# a minute; the kernel's own defaults hold a thread, and with it the end of the process, for a quarter of an hour.
_KEEPALIVES: Final = {
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}


def plain(url: str) -> str:
    """Return `url` as libpq and asyncpg read it: scheme `postgresql://`, no driver name.

    Raises ValueError when it is not the URL of a PostgreSQL database.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.split("+")[0] not in {"postgres", "postgresql"}:
        message = "it must look like postgresql://user:password@host:5432/name"
        raise ValueError(message)
    return f"postgresql://{rest}"


def for_psycopg2(url: str) -> URL:
    """Return `url` for a synchronous SQLAlchemy engine, which notices soon when a server falls silent."""
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - a worker starts faster without SQLAlchemy

    made = make_url(plain(url)).set(drivername="postgresql+psycopg2")
    return made.set(query={**_KEEPALIVES, **made.query})
