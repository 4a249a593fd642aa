"""One DATABASE_URL for both drivers, Unix sockets and `?sslmode=` included, and the settings of every session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import URL

LOOKS: Final = "it must look like postgresql://user:password@host:5432/name"
# Settings of the server, for every session. A client whose host vanished, or whose process is frozen, must not keep
# its locks: a session that sends nothing within its transaction is ended, and so is one whose client does not take what
# was sent. Over a Unix socket the server ignores the last four: there nothing ends a send to a frozen client.
IN_TRANSACTION: Final = "idle_in_transaction_session_timeout"
SESSION: Final = {
    IN_TRANSACTION: "5s",
    "tcp_keepalives_idle": "5",  # seconds
    "tcp_keepalives_interval": "5",  # seconds
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",  # milliseconds
}
TARGET: Final = "read-write"  # of libpq's target_session_attrs: no connection stays on a server that takes no writes
# A migration may work outside the database for a while between two statements.
MIGRATION: Final = {name: value for name, value in SESSION.items() if name != IN_TRANSACTION}

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
        raise ValueError(LOOKS)
    return f"postgresql://{rest}"


def hosts(url: str) -> list[tuple[str, int]]:
    """Return the hosts and ports that `url` names, in its order; a folder of a Unix socket is a host as well.

    Raises ValueError when a port is no number, or when the numbers of hosts and ports differ.
    """
    parts = urlsplit(plain(url))
    said = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    places = []
    for spec in unquote(parts.netloc.rpartition("@")[2]).split(","):
        host, _, port = spec.rpartition(":") if ":" in spec and not spec.endswith("]") else (spec, "", "")
        places.append((host.strip("[]"), port))
    if said.get("host"):
        places = [(host, "") for host in said["host"].split(",")]
    ports = said["port"].split(",") if said.get("port") else []
    if len(ports) > 1 and len(ports) != len(places):
        message = f"it names {len(places)} hosts and {len(ports)} ports: name one port for each host, or one for all"
        raise ValueError(message)
    ports = ports * len(places) if len(ports) == 1 else ports or [""] * len(places)
    try:
        return [(host, int(own or port or 5432)) for (host, own), port in zip(places, ports, strict=True)]
    except ValueError:
        raise ValueError(LOOKS) from None


def for_psycopg2(url: str, session: Mapping[str, str] = SESSION) -> URL:
    """Return `url` for a synchronous SQLAlchemy engine, which notices soon when a server falls silent.

    `session` holds the server settings of each session; migrations take MIGRATION. Raises ValueError as `plain` does.
    """
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - a worker starts faster without SQLAlchemy

    made = make_url(_hosts_in_query(plain(url))).set(drivername="postgresql+psycopg2")
    theirs = made.query.get("options", ())
    ours = (f"-c {name}={value}" for name, value in session.items())  # the last one of two counts
    options = " ".join([theirs] if isinstance(theirs, str) else theirs) + " " + " ".join(ours)
    return made.set(query={**_KEEPALIVES, **made.query, "options": options.strip(), "target_session_attrs": TARGET})


def _hosts_in_query(url: str) -> str:
    """Return `url` with several hosts named as SQLAlchemy reads them: it takes one only before the path."""
    parts = urlsplit(url)
    login, separator, place = parts.netloc.rpartition("@")
    if "," not in place:
        return url
    found = hosts(url)
    named = {"host": ",".join(host for host, _ in found), "port": ",".join(str(port) for _, port in found)}
    rest = [(name, value) for name, value in parse_qsl(parts.query) if name not in named]
    return f"{parts.scheme}://{login}{separator}{parts.path}?{urlencode([*rest, *named.items()])}"
