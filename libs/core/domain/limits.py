"""Rate limits: the generic cell rate algorithm, as arithmetic.

One number per key is kept, `tat`, the theoretical arrival time: the moment, in seconds, at which the whole allowance
would be there again. `core/lua/rate.lua` is the same rule inside Redis, `core/sql/try_login.sql` inside PostgreSQL; a
test holds them together.
"""

from dataclasses import dataclass

_ALMOST = 1e-6  # a float just below a whole unit is that unit


@dataclass(frozen=True, slots=True)
class Rate:
    """`limit` units in each `period` seconds; up to `limit` of them at once."""

    limit: int
    period: float = 60.0

    @property
    def interval(self) -> float:
        """Seconds that one unit takes to come back."""
        return self.period / self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`granted` units were taken (0: refused). `tat` is to be kept. `reset` is the seconds until all is back.

    `retry_after` is the seconds after which the same cost would be granted, when nobody else takes any.
    """

    granted: int
    tat: float
    remaining: int
    reset: float
    retry_after: float


def take(rate: Rate, tat: float, now: float, *, cost: int, want: int = 0) -> Verdict:
    """Decide on `cost` units at the time `now`; when there is more, take up to `want` of them in advance."""
    start = min(max(tat, now), now + rate.period)
    credit = now + rate.period - start
    free = int(credit / rate.interval + _ALMOST)
    if cost > free:
        wait = cost * rate.interval - credit
        return Verdict(granted=0, tat=start, remaining=free, reset=start - now, retry_after=wait)
    granted = min(max(cost, want), free)
    after = start + granted * rate.interval
    return Verdict(granted=granted, tat=after, remaining=free - granted, reset=after - now, retry_after=0.0)


def told(rate: Rate, *, granted: bool, reset: float) -> Verdict:
    """Return the verdict on one unit of a store that keeps this rule by itself; `reset` as it is afterwards."""
    credit = rate.period - min(max(reset, 0.0), rate.period)
    return Verdict(
        granted=int(granted),
        tat=0.0,
        remaining=int(credit / rate.interval + _ALMOST),
        reset=reset,
        retry_after=0.0 if granted else max(rate.interval - credit, 0.0),
    )
