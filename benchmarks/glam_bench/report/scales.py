"""From values to pixels along one axis, and the round values to mark."""

from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log10
from typing import Protocol


class Scale(Protocol):
    """Value -> pixel."""

    def __call__(self, value: float, /) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Linear:
    """`low` lies at pixel `start`, `high` at `end`; the two must differ."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Multiples of 1, 2, 2.5 or 5 times a power of ten, at most `most` of them (which is 2 or more)."""
        step = next(s for s in _steps((self.high - self.low) / most) if self._count(s) <= most)
        first = ceil(self.low / step - 1e-9)
        return [(first + i) * step for i in range(self._count(step))]

    def _count(self, step: float) -> int:
        return floor(self.high / step + 1e-9) - ceil(self.low / step - 1e-9) + 1


@dataclass(frozen=True, kw_only=True)
class Log:
    """As Linear for logarithms; `low` and `high` are positive."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + log10(value / self.low) / log10(self.high / self.low) * (self.end - self.start)

    def ticks(self, gap: float) -> list[float]:
        """Round values on the scale that lie at least `gap` pixels apart: the densest of a few series."""
        decade = abs(self(10 * self.low) - self(self.low))
        series = ((1, (1, 2, 5)), (1, (1, 3)), *((stride, (1,)) for stride in range(1, 100)))
        fits = ((stride, factors) for stride, factors in series if _closest(stride, factors) * decade >= gap)
        stride, factors = next(fits, (100, (1,)))
        first, last = floor(log10(self.low)), ceil(log10(self.high))
        marks = (factor * 10.0**n for n in range(first - first % stride, last + 1, stride) for factor in factors)
        return [mark for mark in marks if self.low <= mark <= self.high]


def _closest(stride: int, factors: tuple[int, ...]) -> float:
    """Decades between the two nearest marks of a series."""
    return min(log10(b / a) for a, b in pairwise((*factors, 10**stride)))


def spread(places: list[float], gap: float, low: float, high: float) -> list[float]:
    """Places of labels, at least `gap` apart and as near as may be to where they belong, in ascending order.

    Those that run past `high` are pushed back, at most to `low`.
    """
    moved: list[float] = []
    for place in sorted(places):
        moved.append(max(place, moved[-1] + gap) if moved else max(place, low))
    limit = high
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - gap
    return moved


def _steps(least: float) -> list[float]:
    decade = 10.0 ** floor(log10(least))
    return [decade * factor for factor in (1, 2, 2.5, 5, 10, 20, 25, 50)]
