"""Many observations at once are those of one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from core.samples import observe_all

BUCKETS = (0.001, 0.5, 1.0, 60.0)
EDGES = st.sampled_from([-0.001, 0.0, 0.001, 0.25, 0.5, 1.0, 59.0, 60.0, 61.0, 1e9])


@given(st.lists(EDGES, max_size=50))
def test_the_histogram_is_the_same(values: list[float]) -> None:
    texts = []
    for at_once in (True, False):
        registry = CollectorRegistry()
        histogram = Histogram("h", "H.", ["q"], registry=registry, buckets=BUCKETS).labels("x")
        if at_once:
            observe_all(histogram, values)
        else:
            for value in values:
                histogram.observe(value)
        texts.append([line for line in generate_latest(registry).splitlines() if b"_created" not in line])
    counts = [[line for line in text if b"_sum" not in line] for text in texts]
    assert counts[0] == counts[1]
