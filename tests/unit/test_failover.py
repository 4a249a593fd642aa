"""How long a connection may live after a server refused to write."""

from __future__ import annotations

import pytest

from core.failover import AGE_SECONDS, WATCH_SECONDS, Failovers
from core.urls import for_psycopg2, hosts


def test_what_is_older_than_a_refusal_goes_and_what_is_newer_has_an_age_limit_for_a_while() -> None:
    now = 100.0
    failovers = Failovers(lambda: now)
    assert not failovers.outdated(0.0)
    failovers.noticed()
    assert failovers.outdated(99.0)
    now = 101.0
    assert not failovers.outdated(101.0)
    now = 101.0 + AGE_SECONDS
    assert failovers.outdated(101.0)
    now = 100.0 + WATCH_SECONDS
    assert not failovers.outdated(101.0)
    assert failovers.outdated(99.0)


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("u:p%40x@h/db", [("h", 5432)]),
        ("u@h:1,g:2/db?sslmode=disable", [("h", 1), ("g", 2)]),
        ("h,g/db?port=6", [("h", 6), ("g", 6)]),
        ("u@[::1]:5,[::2]/db", [("::1", 5), ("::2", 5432)]),
        ("u@/db?host=/tmp/s&port=7", [("/tmp/s", 7)]),
        ("u@/db?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
    ],
)
def test_hosts_of_a_url_are_the_same_for_both_drivers(place: str, found: list[tuple[str, int]]) -> None:
    assert hosts(f"postgresql+asyncpg://{place}") == found
    url = for_psycopg2(f"postgresql://{place}")
    if len(found) > 1:
        assert url.query["host"] == ",".join(host for host, _ in found)
        assert url.query["port"] == ",".join(str(port) for _, port in found)
    assert url.query["target_session_attrs"] == "read-write"


@pytest.mark.parametrize("place", ["h,g/db?port=1,2,3", "h:x/db"])
def test_hosts_and_ports_that_do_not_fit_are_told(place: str) -> None:
    with pytest.raises(ValueError, match=r"it (names 2 hosts and 3 ports|must look like)"):
        hosts(f"postgresql://{place}")
