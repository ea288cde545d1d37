"""Many measurements of one thing in a few numbers."""

from collections.abc import Sequence

import numpy as np

SETTLING = 0.2
"""Share of a long run at its beginning in which memory may still grow: pools fill, libraries load on first use."""


def spread(milliseconds: Sequence[float]) -> dict[str, float]:
    """{"p50", "p90", "p99", "best", "runs"} of one thing measured often; percentiles interpolated linearly."""
    p50, p90, p99 = (float(p) for p in np.percentile(milliseconds, (50, 90, 99)))
    return {"p50": p50, "p90": p90, "p99": p99, "best": min(milliseconds), "runs": len(milliseconds)}


def growth(done: Sequence[int], used: Sequence[float]) -> float | None:
    """How much `used` grew over a whole run, by a straight line through what was seen after it had settled.

    `done`: units of work done at each reading, rising; `used`: what was read there. In units of `used`; None where too
    few readings are left to say.
    """
    settled = [(d, u) for d, u in zip(done, used, strict=True) if d >= SETTLING * done[-1]] if done else []
    if len(settled) < 3:
        return None
    x, y = np.array(settled, np.float64).T
    slope = np.polyfit(x - x.mean(), y, 1)[0]
    return float(slope * (x[-1] - x[0]))
