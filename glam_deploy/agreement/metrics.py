"""How far an array is from its reference, and the Dice coefficient of two masks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.agreement.limits import HALF_ROUNDINGS, INT8_SHARE, ROUNDING, TOLERANCE
from glam_deploy.bundle import ParityRow
from glam_deploy.precision import Precision


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One output compared with its reference."""

    name: str
    precision: Precision = "fp32"
    """What it was computed in."""
    max_abs: float
    """Largest absolute difference; infinite where shapes differ or a value is not finite."""
    mean_abs: float
    """Mean absolute difference, likewise."""
    limit: float
    """Of the largest difference in fp32, of the mean difference in a reduced precision."""
    tied: int = 0
    """Of patch places: how many lie elsewhere but are tied with the reference's (`ties.are_tied`)."""

    @property
    def judged(self) -> float:
        """The difference that the limit is for."""
        return self.max_abs if self.precision == "fp32" else self.mean_abs

    @property
    def passed(self) -> bool:
        return self.judged <= self.limit

    def as_row(self) -> ParityRow:
        """As a manifest holds it."""
        return ParityRow(
            output=self.name,
            precision=self.precision,
            max_abs=self.max_abs if np.isfinite(self.max_abs) else None,
            mean_abs=self.mean_abs if np.isfinite(self.mean_abs) else None,
            limit=self.limit,
            passed=self.passed,
            tied=self.tied,
        )


def compare(name: str, values: NDArray[Any], expected: NDArray[Any], *, precision: Precision = "fp32") -> Comparison:
    """Compare `values`, computed in `precision`, with the FP32 reference's `expected`.

    Integers must be equal. In fp32 the largest difference must keep TOLERANCE; in a reduced precision the mean
    difference must keep HALF_ROUNDINGS or INT8_SHARE.
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
    """Dice coefficient 2|A and B| / (|A| + |B|), 0..1; None where both masks are empty."""
    size = int(first.sum()) + int(second.sum())
    return None if size == 0 else 2 * int((first & second).sum()) / size
