"""Statistics of runs that were timed window by window: percentiles, stability, noise, ratios."""

from collections.abc import Sequence
from statistics import median

from glam_bench.clock import percentiles
from glam_bench.schema import Latency

COUNTED = 3
"""The figures are those of the last so many windows; earlier ones are a warm-up."""
STABLE = 0.10
"""How far the medians of those may lie apart, as a share of the smallest."""
LEAST_NOISE = 0.02
"""No claim is made below this: another process may get other memory, and another clock."""
HOW = (
    "twice the largest distance of a counted window's median from the median of all counted runs, at least 2 %; two "
    "runs agree where they differ by less than both noises together"
)
PERCENTILES = (50, 90, 95, 99)

Windows = Sequence[Sequence[float]]


def latency(windows: Windows) -> Latency:
    """Statistics of runs in milliseconds, over the counted windows; percentiles are interpolated linearly."""
    runs = [run for window in counted(windows) for run in window]
    p50, p90, p95, p99 = percentiles(runs, PERCENTILES)
    kept = [list(window) for window in windows]
    return Latency(
        p50=p50, p90=p90, p95=p95, p99=p99, n=len(runs), windows=kept, stable=is_stable(windows), noise=noise(windows)
    )


def counted(windows: Windows) -> Windows:
    """The windows that count."""
    return windows[-COUNTED:]


def is_stable(windows: Windows) -> bool:
    """At least three windows, and the medians of the last three close together."""
    medians = [median(window) for window in counted(windows)]
    return len(medians) == COUNTED and max(medians) <= (1 + STABLE) * min(medians)


def noise(windows: Windows) -> float:
    """How far the p50 of another such run may be off, as a share; see HOW.

    With three windows the largest distance is about one standard deviation of a window's median, and two runs differ
    by less than 1.6 of those in 95 of 100 cases: both noises together are about four.
    """
    chosen = counted(windows)
    middle = median(run for window in chosen for run in window)
    return max(LEAST_NOISE, 2 * max(abs(median(window) / middle - 1) for window in chosen))


def times_as_fast(windows: Windows, baseline: Windows) -> float:
    """Baseline's time over this one's: the median of the ratios of windows of one round, so that a drift meets both."""
    pairs = zip(counted(windows), counted(baseline), strict=True)
    return median(median(theirs) / median(ours) for ours, theirs in pairs)
