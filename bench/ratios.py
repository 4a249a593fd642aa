"""The mean of ratios, and how sure it is. Only the standard library: the peers' interpreter reads this file, too."""

import math
import statistics

# Student's t for 95 %, from two pairs on.
T_95 = (
    12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09
)  # fmt: skip


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Lower end, geometric mean and upper end of the 95 % interval; one ratio alone is all three."""
    if len(ratios) < 2:
        return ratios[0], ratios[0], ratios[0]
    logs = [math.log(ratio) for ratio in ratios]
    mean = statistics.fmean(logs)
    half = T_95[min(len(logs), len(T_95) + 1) - 2] * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean - half), math.exp(mean), math.exp(mean + half)
