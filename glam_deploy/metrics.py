"""How far two computations of one thing are apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.precision import Precision

TOLERANCE = 1e-4
"""Largest difference allowed between two FP32 computations of a probability or saliency value (both 0..1); for
representations, which have no bound, the same share of the largest value."""

ROUNDING: Mapping[Precision, float] = MappingProxyType({"fp16": 2**-11, "bf16": 2**-8})
"""Largest relative error of one rounding to a half type."""
HALF_ROUNDINGS = 50
"""How many roundings of a half type its mean difference may be worth, as a share of the reference's mean value.

No limit on the largest difference can judge a half graph: where a map falls from 1 to 0 within a pixel, one rounding
may turn that pixel over. The mean holds still: right graphs stayed below 30 roundings, and with one convolution missing
some output was off by 14 % of its mean or more, 290 roundings in fp16 but 36 in bf16 (docs/performance.md). So this
finds a wrong fp16 graph, of bf16 graphs most wrong ones; whether lesions are found is another question.
"""

INT8_SHARE = 0.5
"""The same for 8 bits, as a share of the reference's mean value.

Calibrated graphs of weights that bear 8 bits badly were off by up to 0.14 of it. The limit is for graphs that are
wrong; the gate judges the others.
"""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One output held against its reference."""

    name: str
    precision: Precision = "fp32"
    """What it was computed in."""
    max_abs: float
    """Largest absolute difference; infinite where shapes differ or a value is not finite."""
    mean_abs: float
    """Mean absolute difference, likewise."""
    limit: float
    """Of the largest difference in fp32, of the mean difference in a half precision."""
    tied: int = 0
    """Of patch places: how many lie elsewhere, where the reference could have chosen them (`patches.ties`)."""

    @property
    def judged(self) -> float:
        """The difference that the limit is for."""
        return self.max_abs if self.precision == "fp32" else self.mean_abs

    @property
    def passed(self) -> bool:
        return self.judged <= self.limit

    def as_row(self) -> dict[str, Any]:
        """JSON-ready."""
        tied = {"tied": self.tied} if self.tied else {}
        return tied | {
            "output": self.name,
            "precision": self.precision,
            "max_abs": self.max_abs if np.isfinite(self.max_abs) else None,
            "mean_abs": self.mean_abs if np.isfinite(self.mean_abs) else None,
            "limit": self.limit,
            "passed": self.passed,
        }


def compare(name: str, values: NDArray[Any], expected: NDArray[Any], *, precision: Precision = "fp32") -> Comparison:
    """Hold `values`, computed in `precision`, against the FP32 reference's `expected`.

    Integers must be equal. Else the largest difference must keep TOLERANCE in fp32, the mean one HALF_ROUNDINGS in a
    half precision.
    """
    largest = mean = np.inf
    if values.shape == expected.shape:
        difference = np.abs(values.astype(np.float64) - expected)
        if np.isfinite(difference).all():
            largest, mean = float(difference.max()), float(difference.mean())
    limit = _limit(expected, precision)
    return Comparison(name=name, precision=precision, max_abs=largest, mean_abs=mean, limit=limit)


def _limit(expected: NDArray[Any], precision: Precision) -> float:
    if np.issubdtype(expected.dtype, np.integer):
        return 0.0
    size = np.abs(expected[np.isfinite(expected)]).astype(np.float64)
    if precision == "fp32":
        return TOLERANCE * max(1.0, float(size.max(initial=0)))
    share = INT8_SHARE if precision == "int8" else HALF_ROUNDINGS * ROUNDING[precision]
    return share * float(size.sum()) / expected.size


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float | None:
    """Dice coefficient 2|A and B| / (|A| + |B|), 0..1; None where both are empty and there is nothing to agree on."""
    size = int(first.sum()) + int(second.sum())
    return None if size == 0 else 2 * int((first & second).sum()) / size
