"""Many observations of a histogram at once.

`Histogram.observe` takes some microseconds: where thousands of tasks a second come in batches, a cost of its own.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import Histogram


def observe_all(histogram: Histogram, values: Sequence[float]) -> None:
    """Do what `histogram.observe` does with each of `values`; a histogram with labels is given with them filled in."""
    bounds = histogram._upper_bounds  # noqa: SLF001 - the library has no observation of many; a test compares the two
    histogram._sum.inc(sum(values))  # noqa: SLF001 - as above
    for place, number in Counter(bisect_left(bounds, value) for value in values).items():
        histogram._buckets[place].inc(number)  # noqa: SLF001 - as above


def observe_each(histogram: Callable[[str], Histogram], found: Iterable[tuple[str, float]]) -> None:
    """Observe values that come with their label, those of one label at once."""
    values: dict[str, list[float]] = {}
    for label, value in found:
        values.setdefault(label, []).append(value)
    for label, together in values.items():
        observe_all(histogram(label), together)
