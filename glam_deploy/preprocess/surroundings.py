"""Measurements around the breast: evidence of a background that is not 0, a mirrored image, and cut-off tissue.

The published preprocessing treats every pixel above 0 as tissue. If the background is above 0, the detected breast
includes the background, and the window is misplaced. No single criterion is reliable: a black rim separates the
background from the border of the image, and a large breast reaches the border itself. Therefore values and shape are
measured separately here; `diagnosis` decides what they mean.

All arrays are in the upright frame: chest wall on the left.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from glam_deploy.preprocess.foreground import Breast, Mask
from glam_deploy.preprocess.samples import BEYOND, DEPTH, Samples, grid_step, outline_rows
from glam_deploy.records import Float32, Pixels

PARTS = 12
"""Number of parts of the outline that are assessed separately, to detect a background beside one part of the breast."""
HARD = 0.82
"""Smallest ratio of the value inside the outline to the value 40 to 90 pixels deeper that makes a part hard.

Normal parts: up to 0.12 in 8 views of two full-field devices, up to 0.61 in 8 film scans, up to 0.55 in phantoms.
Inside a rim: 0.85 to 1.3.
"""
HIGH = 0.4
"""The same limit as a ratio to the level of tissue: up to 0.03 in the same views, up to 0.27 in phantoms."""
EVEN = 0.93
"""Smallest ratio of the value inside the outline to the value 8 to 16 pixels deeper if the first pixels are a band."""
STEADY = 0.95
"""The same limit for the value 24 to 32 pixels deeper."""

_FEWEST = 24
"""Smallest number of rows for a measurement."""
_DEPTHS = ((1, 3), (1, 5), (8, 16), (24, 32), (40, DEPTH))
"""Depth ranges in pixels inside the outline, half-open: first pixels, skin, two ranges of a band, interior."""


RIM = 0.01
"""Tolerance of a straight side, as a share of the columns of the image."""
STRAIGHT = 0.5
"""Share of rows that end on one straight line (or filled share of a corner) above which the shape is not a breast."""
FULL = 0.92
"""Share of its bounding box above which a foreground is not a breast; half an ellipse fills 0.79."""
DARK = 0.1
"""Largest value of a background, as a share of the level of tissue (95th percentile)."""
DARK_IN_FRAME = 0.35
"""The same limit for a foreground with the shape of a frame."""
BRIGHT = 0.9
"""Smallest value of the background of an inverted image, as a share of the level of tissue."""
THICK = 0.05
"""Share of the foreground above which a dark layer is thicker than skin."""
UNIFORM = 0.03
"""Largest spread (10th to 90th percentile) of a background, as a share of the level of tissue; fat varies more."""
RARE = 0.01
"""Relative frequency below which a value does not belong to a background."""
MOST = 0.7
"""Share of the layer along the outline that a background fills if the breast reaches the outline, too."""
GRADED = 0.03
"""Largest distance of this share of a gradient from a plane, as a share of the level of tissue.

Tissue with cut-off skin has 0.045 to 0.08, in 100 views that were cut in this way.
"""
BULGE = 0.3
"""Largest `second_bulge` of a breast without attached objects."""
FEW = 4
"""Largest number of different values above 0 in a mask."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """Measurements of the outline opposite to the chest wall, without the parts at the edge of the image."""

    hard: float
    """Share of the outline, 0..1, whose values do not rise as at the skin; 0 if the outline is too short."""
    value: float
    """Median of the outermost pixels."""
    inner: float
    """Median of the values 40 to 90 pixels deeper."""


NO_OUTLINE = Outline(hard=0, value=0, inner=0)
"""Value for an image with too little outline, or without skin."""


def measure_outline(samples: Samples, breast: Breast, level: float) -> Outline:
    """Measure the outline of `breast`; `level`: level of tissue, as `Sampled.level`."""
    values = _values_behind(samples, breast)
    if len(values) < _FEWEST:
        return NO_OUTLINE
    hard = [_is_hard(np.median(part, axis=0), level) for part in np.array_split(values, PARTS)]
    middle = np.median(values, axis=0)
    return Outline(hard=float(np.mean(hard)), value=float(middle[1]), inner=float(middle[-1]))


def _values_behind(samples: Samples, breast: Breast) -> Float32:
    """Mean value of each of `_DEPTHS` in each row, counted from the last pixel above 0 inwards: float32 [rows, 5].

    Only of rows that end before the edge of the image, not where the erosion has rounded off tissue at the edge.
    """
    values, right = samples.outline, breast.right[outline_rows(breast)]
    beyond = values[:, BEYOND + 1 :: -1] == 0
    first_zero = right - 1 + beyond.argmax(axis=1)
    ends = beyond.any(axis=1) & (first_zero < samples.shape[1])
    last = (right + BEYOND - first_zero + 1)[ends]
    profiles = np.take_along_axis(values[ends], last[:, None] + np.arange(DEPTH), axis=1)
    return np.stack([profiles[:, first:end].mean(axis=1, dtype=np.float32) for first, end in _DEPTHS], axis=1)


def _is_hard(medians: Float32, level: float) -> bool:
    """Whether a part of the outline begins with values as deeper inside, or with a band of one value.

    The band has 32 pixels, or 16 pixels followed by values that are at most half or at least twice as high.
    """
    first, near, band, deeper, inner = (float(value) for value in medians)
    even = EVEN * band <= first <= band / EVEN
    ends = STEADY * first <= deeper <= first / STEADY or not 0.5 * band < inner < 2 * band
    return near >= HARD * inner or near >= HIGH * level or (even and ends)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """An outer part of the foreground, around the rest."""

    share: float
    """Share of the foreground, 0..1."""
    low: float
    """10th percentile of its values."""
    high: float
    """90th percentile of its values."""
    least: float
    """Smallest value of the contiguous range below `low`: see `extent`."""
    most: float
    """Largest value of the contiguous range above `high`."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """The foreground on a coarse grid of its bounding box."""

    values: Pixels
    """[rows, columns], values of the image."""
    inside: Mask
    """bool [rows, columns]: above 0 and part of the detected breast."""
    level: float
    """95th percentile of the values inside: the level of tissue, unless tissue is less than 1/20 of the foreground."""


@dataclass(frozen=True, kw_only=True)
class Rest:
    """The foreground without a background layer."""

    share: float
    """Share of the foreground, 0..1."""
    at_wall: float
    """Share of the rows in which it is within 1/20 of the columns from the side of the chest wall."""
    at_far_edge: float
    """The same at the opposite side."""


def sampled_foreground(samples: Samples, breast: Breast) -> Sampled:
    """The foreground on the grid of `samples`."""
    top, left, bottom, right = breast.box
    step, values = grid_step(bottom - top, right - left), samples.grid
    column = np.arange(left, right, step)
    within = (column >= breast.left[::step, None]) & (column < breast.right[::step, None])
    inside = within & (values > 0)
    return Sampled(values=values, inside=inside, level=float(np.percentile(values[inside], 95)))


def has_few_values(sampled: Sampled) -> bool:
    """Whether the `FEW` most common values fill 99 % of the foreground, as in a mask.

    In 16 real views and in phantoms they fill 5 % at most; in a view with a saturated implant, the area of the implant.
    """
    values = sampled.values[sampled.inside]
    counts = np.unique(values[:: max(1, len(values) // 4096)], return_counts=True)[1]
    return bool(np.sort(counts)[-FEW:].sum() >= 0.99 * counts.sum())


def dark_layer(sampled: Sampled) -> Layer:
    """The part of the foreground that is at most `DARK` of the level of tissue and thicker than skin.

    Thicker means that a diamond of 1/25 of the columns of the foreground fits into it.
    """
    dark = sampled.inside & (sampled.values <= DARK * sampled.level)
    return layer(sampled, _opened(dark, max(2, dark.shape[1] // 50)))


def outer_layer(sampled: Sampled) -> Layer:
    """The foreground along its outline, 1/20 of its columns deep; the side of the chest wall is not outline."""
    return layer(sampled, _along_outline(sampled))


def graded_layer(sampled: Sampled) -> tuple[Layer, Rest] | None:
    """`outer_layer` if the smoothed values of `MOST` of it are a plane over the image, and the foreground without it.

    The rest of the layer may be tissue, where the breast reaches the outline. None if the values are not a plane.
    """
    smooth, where = _smoothed(sampled), _along_outline(sampled)
    terms = np.stack([np.ones_like(smooth), *np.indices(smooth.shape, np.float32)], axis=-1)
    points, values = terms[where], smooth[where]
    near = np.ones(len(values), np.bool_)
    for _ in range(6):
        plane = np.linalg.lstsq(points[near], values[near], rcond=None)[0]
        away = np.abs(values - points @ plane)
        width = np.quantile(away, MOST)
        near = away <= width
    if width > GRADED * sampled.level:
        return None
    differs = np.abs(smooth - terms @ plane) > 3 * GRADED * sampled.level
    return layer(sampled, where), _rest(sampled, sampled.inside & differs)


def _along_outline(sampled: Sampled) -> Mask:
    depth = max(2, sampled.inside.shape[1] // 20)
    bordered = np.pad(sampled.inside, 1)
    bordered[1:-1, 0] = sampled.inside[:, 0]
    distance = cv2.distanceTransform(bordered.view(np.uint8), cv2.DIST_L1, 3, dstType=cv2.CV_8U)
    return np.asarray(sampled.inside & (distance[1:-1, 1:-1] <= depth))


def _smoothed(sampled: Sampled) -> Float32:
    """Mean of the values inside, over 7 x 7 grid points."""
    weight, total = (
        cv2.boxFilter(part.astype(np.float32), -1, (7, 7), normalize=False)
        for part in (sampled.inside, np.where(sampled.inside, sampled.values, 0))
    )
    return np.asarray(total / np.maximum(weight, 1), np.float32)


def layer(sampled: Sampled, where: Mask) -> Layer:
    """The layer of the grid points in the mask `where`."""
    values = sampled.values[where]
    if not len(values):
        return Layer(share=0, low=0, high=0, least=0, most=0)
    low, high = np.percentile(values, (10, 90))
    least, most = extent(values, float(low), float(high))
    return Layer(
        share=len(values) / np.count_nonzero(sampled.inside), low=float(low), high=float(high), least=least, most=most
    )


def extent(values: Pixels, low: float, high: float) -> tuple[float, float]:
    """Smallest and largest value of a background, extended from `low` to `high` by contiguous frequent values.

    Each of these is at least `RARE` times as frequent as the values between are on average; values of tissue are not.
    """
    levels, counts = np.unique(values, return_counts=True)
    inside = np.flatnonzero((levels >= low) & (levels <= high))
    if not len(inside):
        return low, high
    rare = np.flatnonzero(counts < RARE * counts[inside].mean())
    first = rare[rare < inside[0]].max(initial=-1) + 1
    last = rare[rare > inside[-1]].min(initial=len(levels)) - 1
    return float(levels[first]), float(levels[last])


def is_uniform(found: Layer, sampled: Sampled) -> bool:
    """Whether the values of a layer vary as little as a background (`UNIFORM`)."""
    return found.high - found.low <= UNIFORM * sampled.level


def rest_of(sampled: Sampled, background: Layer) -> Rest:
    """The part of the foreground with values outside the range of `background`."""
    margin = UNIFORM * sampled.level
    differs = (sampled.values < background.low - margin) | (sampled.values > background.high + margin)
    return _rest(sampled, sampled.inside & differs)


def _rest(sampled: Sampled, rest: Mask) -> Rest:
    width = max(1, rest.shape[1] // 20)
    wall, far = (float(side.any(axis=1).mean()) for side in (rest[:, :width], rest[:, -width:]))
    return Rest(share=np.count_nonzero(rest) / np.count_nonzero(sampled.inside), at_wall=wall, at_far_edge=far)


def is_straight(breast: Breast, columns: int) -> bool:
    """Whether the side opposite to the chest wall is straight or has a filled corner, like a frame.

    `columns`: of the image. A breast is round there, also if it is cut off by the edge of the image in some rows.
    """
    right = breast.box[3]
    on_line = float(np.mean(breast.right >= right - RIM * columns))
    return on_line > STRAIGHT or max(_far_corners(breast)) > STRAIGHT


def fills_its_box(breast: Breast) -> bool:
    """Whether the foreground is a rectangle, upright or slightly rotated."""
    top, left, bottom, right = breast.box
    return float(np.sum(breast.right - breast.left)) > FULL * (bottom - top) * (right - left)


def second_bulge(breast: Breast) -> float:
    """Distance by which the outline returns towards the side opposite to the chest wall after leaving it, 0..1.

    As a share of the columns of the bounding box. A breast returns slightly at the axilla and at the fold below it.
    """
    left, right = breast.box[1], breast.box[3]
    tip = int(breast.right.argmax())
    above, below = breast.right[tip::-1], breast.right[tip:]
    returned = max(float((side - np.minimum.accumulate(side)).max()) for side in (above, below))
    return returned / (right - left)


def has_even_tip(sampled: Sampled) -> bool:
    """Whether one value fills most of the 1/20 of the foreground opposite to the chest wall, but not the foreground."""
    columns = sampled.inside.shape[1]
    first = columns - max(1, columns // 20)
    values, counts = np.unique(sampled.values[:, first:][sampled.inside[:, first:]], return_counts=True)
    common = values[counts.argmax()]
    return bool(2 * counts.max() > counts.sum() and np.mean(sampled.values[sampled.inside] == common) < STRAIGHT)


def _far_corners(breast: Breast) -> tuple[float, float]:
    """Filled shares of the upper and lower corner (1/10) of the bounding box opposite to the chest wall."""
    top, left, bottom, right = breast.box
    rows, width = max(1, (bottom - top) // 10), max(1, (right - left) // 10)
    filled = np.clip(breast.right - np.maximum(breast.left, right - width), 0, None) / width
    return float(filled[:rows].mean()), float(filled[-rows:].mean())


def _opened(mask: Mask, radius: int) -> Mask:
    """Morphological opening of a mask with a diamond of that radius, in grid points; outside the mask is background."""
    bordered = np.pad(mask, 1).view(np.uint8)
    core = cv2.distanceTransform(bordered, cv2.DIST_L1, 3, dstType=cv2.CV_8U) > radius
    away = cv2.distanceTransform((~core).view(np.uint8), cv2.DIST_L1, 3, dstType=cv2.CV_8U)
    return np.asarray((away <= radius)[1:-1, 1:-1])
