"""How the values begin at the outline of the breast: at the skin they rise from near 0, behind a rim they do not.

A compressed breast is thin at its skin, so the values rise inwards over some ten to hundred pixels. Where a background
above 0 ends at a black rim, at a mask or at the edge of a film, the full value stands in the outermost pixel already.
This holds whatever the rim's shape and whatever the background's values: constant, a gradient, noise, or text.

All arrays are in the upright frame: chest wall on the left.
"""

from dataclasses import dataclass

import numpy as np

from glam_deploy.preprocess.foreground import Breast
from glam_deploy.records import Float32, Pixels

DEPTH = 90
"""Pixels from the outermost one inwards that are looked at; beyond, the breast's own structure counts."""
PARTS = 12
"""Parts of the outline that are judged apart, so that a background beside one part of the breast is seen, too."""
HARD = 0.82
"""Value behind the outline, as a share of the value 40 to 90 pixels inside, from which a part is hard.

Sound parts: up to 0.12 in 8 views of two full-field devices, up to 0.61 in 8 film scans, up to 0.55 in phantoms.
Behind a rim: 0.85 to 1.3.
"""
HIGH = 0.4
"""The same as a share of the tissue's level: up to 0.03 in the same views, up to 0.27 in phantoms."""
EVEN = 0.93
"""Value behind the outline, as a share of that 8 to 16 pixels inside, from which the first pixels are a band."""
STEADY = 0.95
"""The same of the value 24 to 32 pixels inside."""

_SEARCH = 40
"""Pixels by which the foreground may go on beyond the opened outline."""
_ROWS = 300
"""About how many rows are looked at, 25 in each part."""
_FEWEST = 24
"""Fewest rows that say anything."""
_DEPTHS = ((1, 3), (1, 5), (8, 16), (24, 32), (40, DEPTH))
"""Pixels behind the outline, half-open: the first ones, those of the skin, two of a band, the inside."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What the outline opposite to the chest wall is, where it is not the image's own edge."""

    hard: float
    """Share of the outline, 0..1, whose values do not begin as at a skin; 0 where there is too little of it."""
    value: float
    """Median of the outermost pixels."""
    inner: float
    """Median of the values 40 to 90 pixels inside."""


NOTHING = Outline(hard=0, value=0, inner=0)
"""Of an image that shows too little of an outline, or none that is a skin's."""


def look_at(pixels: Pixels, breast: Breast, level: float) -> Outline:
    """The outline of `breast` in `pixels`, [rows, columns]; `level`: the tissue's, as `Sampled.level`."""
    values = _values_behind(pixels, breast)
    if len(values) < _FEWEST:
        return NOTHING
    hard = [_is_hard(np.median(part, axis=0), level) for part in np.array_split(values, PARTS)]
    middle = np.median(values, axis=0)
    return Outline(hard=float(np.mean(hard)), value=float(middle[1]), inner=float(middle[-1]))


def _values_behind(pixels: Pixels, breast: Breast) -> Float32:
    """float32 [rows, 5]: in each row the mean of `_DEPTHS`, counted from the last pixel above 0 to the chest wall.

    Only of rows that end before the image does: not where the erosion has rounded off tissue that goes on to the edge.
    """
    columns, step = pixels.shape[1], max(1, len(breast.right) // _ROWS)
    row, right = np.arange(len(breast.right))[::step] + breast.top, breast.right[::step]
    column = right[:, None] + _SEARCH - np.arange(_SEARCH + DEPTH + 2)
    values = np.where(column < columns, pixels[row[:, None], np.clip(column, 0, columns - 1)], 0)
    beyond = values[:, _SEARCH + 1 :: -1] == 0
    first_zero = right - 1 + beyond.argmax(axis=1)
    ends = beyond.any(axis=1) & (first_zero < columns)
    last = (right + _SEARCH - first_zero + 1)[ends]
    profiles = np.take_along_axis(values[ends], last[:, None] + np.arange(DEPTH), axis=1)
    return np.stack([profiles[:, first:end].mean(axis=1, dtype=np.float32) for first, end in _DEPTHS], axis=1)


def _is_hard(medians: Float32, level: float) -> bool:
    """Whether the values of a part begin with those further inside, or with a band of one value.

    That is a band of 32 pixels, or one of 16 behind which the values are half or twice as high.
    """
    first, near, band, deeper, inner = (float(value) for value in medians)
    even = EVEN * band <= first <= band / EVEN
    ends = STEADY * first <= deeper <= first / STEADY or not 0.5 * band < inner < 2 * band
    return near >= HARD * inner or near >= HIGH * level or (even and ends)
