"""Synthetic whole images: views of detectors, and images on which an incorrect placement fails."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import DTypeLike

from glam_deploy.records import Mammogram, View

DETECTOR = (3328, 2560)
"""Rows and columns of a full-field detector with pixels of 70 um."""


def breast(
    rng: np.random.Generator,
    *,
    view: View,
    shape: tuple[int, int] = DETECTOR,
    dtype: DTypeLike = np.uint16,
    reach: float = 0.6,
    height: float = 0.4,
) -> Mammogram:
    """Half an ellipse of noise with a hole, and specks around it. `reach`, `height`: half axes, shares of the sides."""
    rows, columns = shape
    y, x = (np.arange(rows)[:, None] / rows - 0.48) / height, np.arange(columns) / columns / reach
    pixels = np.where(y**2 + x**2 < 1, rng.integers(1, 250, shape, np.uint8), np.uint8(0))
    pixels[rng.integers(0, rows, 99), rng.integers(0, columns, 99)] = 255
    pixels[rows // 2, columns // 9] = 0
    turned = pixels[:, ::-1] if view.is_right else pixels
    return Mammogram(pixels=np.ascontiguousarray(turned, dtype), view=view)


def equal_parts(_: np.random.Generator) -> Mammogram:
    """Two squares of equal size, the second nearer to the chest wall."""
    pixels = np.zeros((1200, 900), np.uint16)
    pixels[50:500, 400:850] = pixels[600:1050, :450] = 77
    return Mammogram(pixels=pixels, view=View.L_CC)


def filled(_: np.random.Generator) -> Mammogram:
    """An image that the foreground fills but for one corner."""
    pixels = np.full(DETECTOR, 1000, np.uint16)
    pixels[-1, -1] = 0
    return Mammogram(pixels=pixels, view=View.L_CC)


def _constant(value: float, *odd: float) -> Mammogram:
    pixels = np.full((400, 300), value, np.float32)
    pixels[-1, : len(odd)] = odd
    return Mammogram(pixels=pixels, view=View.R_CC)


VIEWS: Mapping[str, Callable[[np.random.Generator], Mammogram]] = MappingProxyType(
    {
        "uint16, L-CC": lambda rng: breast(rng, view=View.L_CC),
        "uint16, R-MLO": lambda rng: breast(rng, view=View.R_MLO, reach=0.9, height=0.48),
        "uint8, R-CC": lambda rng: breast(rng, view=View.R_CC, shape=(2294, 1914), dtype=np.uint8),
        "float32, L-MLO": lambda rng: breast(rng, view=View.L_MLO, shape=(2001, 1777), dtype=np.float32),
        "largest": lambda rng: breast(rng, view=View.R_CC, shape=(5928, 4728), reach=0.7, height=0.45),
        "smallest": lambda rng: breast(rng, view=View.L_MLO, shape=(301, 263), reach=0.95, height=0.5),
        "equal parts": equal_parts,
        "filled": filled,
        "thin": lambda rng: breast(rng, view=View.L_CC, shape=(300, 190)),
        "empty": lambda _: _constant(0),
        "constant": lambda _: _constant(3),
        "negative": lambda _: _constant(3, -1),
        "NaN": lambda _: _constant(3, np.nan, -1),
        "infinity": lambda _: _constant(3, np.inf),
    }
)
"""Views of every type and side, with crops larger and smaller than the window, and images of every refusal."""
