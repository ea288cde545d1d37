"""How far two computations of one thing are apart."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-4
"""Largest difference allowed between two FP32 computations of a probability or saliency value (both 0..1); for
representations, which have no bound, the same share of the largest value."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One output held against its reference."""

    name: str
    max_abs: float
    """Largest absolute difference; infinite where shapes differ or a value is not finite."""
    limit: float

    @property
    def passed(self) -> bool:
        return self.max_abs <= self.limit

    def as_row(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "output": self.name,
            "max_abs": self.max_abs if np.isfinite(self.max_abs) else None,
            "limit": self.limit,
            "passed": self.passed,
        }


def compare(name: str, values: NDArray[Any], expected: NDArray[Any]) -> Comparison:
    """Hold `values` against `expected`: exactly where they are integers, else within TOLERANCE."""
    exact = np.issubdtype(expected.dtype, np.integer)
    largest = float(np.abs(expected).max())
    limit = 0.0 if exact else TOLERANCE * max(1.0, largest if np.isfinite(largest) else 1.0)
    if values.shape != expected.shape:
        return Comparison(name=name, max_abs=np.inf, limit=limit)
    difference = float(np.abs(values.astype(np.float64) - expected).max())
    return Comparison(name=name, max_abs=difference if np.isfinite(difference) else np.inf, limit=limit)


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float | None:
    """Dice coefficient 2|A and B| / (|A| + |B|), 0..1; None where both are empty and there is nothing to agree on."""
    size = int(first.sum()) + int(second.sum())
    return None if size == 0 else 2 * int((first & second).sum()) / size
