"""What lies around the breast: evidence of a background that is not 0, of a mirrored image, and of cut-off tissue.

The published preprocessing takes every pixel above 0 for tissue. Where the background is above 0 the breast that it
finds is the breast and the background, and the window is put in the wrong place. No single sign of that is safe: a
black rim hides the background from the image's border, and a large breast reaches the border itself. So values and
shape are looked at apart, here as measurements; `diagnosis` decides what they mean.

All arrays are in the upright frame: chest wall on the left.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from glam_deploy.preprocess.foreground import Breast, Mask
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


RIM = 0.01
"""Share of the image's columns by which points of one straight side may differ."""
STRAIGHT = 0.5
"""Share of the rows that end on one straight line (or of a corner that is filled) above which no breast ends there."""
FULL = 0.92
"""Share of its bounding box above which a foreground is no breast: half an ellipse fills 0.79."""
DARK = 0.1
"""Share of the tissue's level (its 95th percentile) up to which a value can be background."""
DARK_IN_FRAME = 0.35
"""The same where the foreground has the shape of a frame."""
BRIGHT = 0.9
"""Share of the tissue's level from which a background is that of an inverted image."""
VEIL = 0.05
"""Share of the foreground above which a dark layer is more than the thin skin."""
UNIFORM = 0.03
"""Spread (10th to 90th percentile) of a background, as a share of the tissue's level; fat varies by more."""
RARE = 0.01
"""Frequency of a value, relative to those of a background, below which it is none of them."""
MOST = 0.7
"""Share of the layer along the outline that a background fills where the breast reaches the outline, too."""
GRADED = 0.03
"""How far that share of a gradient is from a plane at most, as a share of the tissue's level.

Tissue whose skin was cut off is 0.045 to 0.08 away, in 100 views that were cut so.
"""
BULGE = 0.3
"""What `second_bulge` is at most in a breast that nothing is attached to."""
_GRID = 512
"""Points along the longer side of the foreground at which its values are looked at."""
FEW = 4
"""Values of which a mask may consist beside 0."""


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


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A part of the foreground that lies around the rest of it."""

    share: float
    """Of the foreground, 0..1."""
    low: float
    """10th percentile of its values."""
    high: float
    """90th percentile."""
    least: float
    """Smallest value that goes on from `low`: see `extent`."""
    most: float
    """Largest value that goes on from `high`."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """The foreground on a coarse grid of its bounding box."""

    values: Pixels
    """[rows, columns], as the image's."""
    inside: Mask
    """bool [rows, columns]: above 0, and part of what was taken for the breast."""
    level: float
    """95th percentile of the values inside: that of tissue, unless tissue is less than a twentieth."""


@dataclass(frozen=True, kw_only=True)
class Rest:
    """What is not background in a foreground."""

    share: float
    """Of the foreground, 0..1."""
    at_wall: float
    """Share of the rows in which it comes within a twentieth of the columns to the chest wall's side."""
    at_far_edge: float
    """The same at the opposite side."""


def sample(pixels: Pixels, breast: Breast) -> Sampled:
    """`pixels`: [rows, columns], the whole image."""
    top, left, bottom, right = breast.box
    step = max(1, max(bottom - top, right - left) // _GRID)
    values = np.ascontiguousarray(pixels[top:bottom:step, left:right:step])
    column = np.arange(left, right, step)
    within = (column >= breast.left[::step, None]) & (column < breast.right[::step, None])
    inside = within & (values > 0)
    return Sampled(values=values, inside=inside, level=float(np.percentile(values[inside], 95)))


def has_few_values(sampled: Sampled) -> bool:
    """Whether the `FEW` most common values fill 99 % of the foreground, as in a mask.

    In 16 real views and in phantoms they fill 5 % at most, in a view whose implant is saturated as much as that does.
    """
    values = sampled.values[sampled.inside]
    counts = np.unique(values[:: max(1, len(values) // 4096)], return_counts=True)[1]
    return bool(np.sort(counts)[-FEW:].sum() >= 0.99 * counts.sum())


def dark_layer(sampled: Sampled) -> Layer:
    """The part of the foreground that is at most `DARK` of the tissue's level and thicker than skin.

    Thick is what a diamond of a 25th of the foreground's columns fits into.
    """
    dark = sampled.inside & (sampled.values <= DARK * sampled.level)
    return layer(sampled, _opened(dark, max(2, dark.shape[1] // 50)))


def outer_layer(sampled: Sampled) -> Layer:
    """The foreground along its outline, a twentieth of its columns deep; the chest wall's side is no outline."""
    return layer(sampled, _along_outline(sampled))


def graded_layer(sampled: Sampled) -> tuple[Layer, Rest] | None:
    """`outer_layer` where `MOST` of it, without noise, has the values of a plane over the image, and what differs.

    The rest of the layer may be tissue, where the breast reaches the outline. None where it is no plane.
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
    margin = 3 * max(width, GRADED * sampled.level)
    return layer(sampled, where), _rest(sampled, sampled.inside & (np.abs(smooth - terms @ plane) > margin))


def _along_outline(sampled: Sampled) -> Mask:
    depth = max(2, sampled.inside.shape[1] // 20)
    bordered = np.pad(sampled.inside, 1)
    bordered[1:-1, 0] = sampled.inside[:, 0]
    distance = cv2.distanceTransform(bordered.view(np.uint8), cv2.DIST_L1, 3, dstType=cv2.CV_8U)
    return np.asarray(sampled.inside & (distance[1:-1, 1:-1] <= depth))


def _smoothed(sampled: Sampled) -> Float32:
    """The mean of what is inside, over 7 x 7 grid points."""
    weight, total = (
        cv2.boxFilter(part.astype(np.float32), -1, (7, 7), normalize=False)
        for part in (sampled.inside, np.where(sampled.inside, sampled.values, 0))
    )
    return np.asarray(total / np.maximum(weight, 1), np.float32)


def layer(sampled: Sampled, where: Mask) -> Layer:
    """The part of the foreground that `where`, a mask of the grid, says."""
    values = sampled.values[where]
    if not len(values):
        return Layer(share=0, low=0, high=0, least=0, most=0)
    low, high = np.percentile(values, (10, 90))
    least, most = extent(values, float(low), float(high))
    return Layer(
        share=len(values) / np.count_nonzero(sampled.inside), low=float(low), high=float(high), least=least, most=most
    )


def extent(values: Pixels, low: float, high: float) -> tuple[float, float]:
    """Smallest and largest of the values that a background from `low` to `high` goes on to.

    Each of them is at least `RARE` times as frequent as those between are on average; tissue is not.
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
    """Whether a layer varies as little as a background does."""
    return found.high - found.low <= UNIFORM * sampled.level


def rest_of(sampled: Sampled, background: Layer) -> Rest:
    """The part of the foreground whose values are not those of `background`."""
    margin = UNIFORM * sampled.level
    differs = (sampled.values < background.low - margin) | (sampled.values > background.high + margin)
    return _rest(sampled, sampled.inside & differs)


def _rest(sampled: Sampled, rest: Mask) -> Rest:
    width = max(1, rest.shape[1] // 20)
    wall, far = (float(side.any(axis=1).mean()) for side in (rest[:, :width], rest[:, -width:]))
    return Rest(share=np.count_nonzero(rest) / np.count_nonzero(sampled.inside), at_wall=wall, at_far_edge=far)


def is_straight(breast: Breast, columns: int) -> bool:
    """Whether the side opposite to the chest wall is that of a frame: straight, or with a filled corner.

    `columns`: the image's. A breast is round there, also one that is cut off by the image's edge in some rows.
    """
    right = breast.box[3]
    on_line = float(np.mean(breast.right >= right - RIM * columns))
    return on_line > STRAIGHT or max(_far_corners(breast)) > STRAIGHT


def fills_its_box(breast: Breast) -> bool:
    """Whether the foreground is a rectangle, upright or a little rotated."""
    top, left, bottom, right = breast.box
    return float(np.sum(breast.right - breast.left)) > FULL * (bottom - top) * (right - left)


def second_bulge(breast: Breast) -> float:
    """How far the outline comes back towards the side opposite to the chest wall after it has left it, 0..1.

    As a share of the bounding box's columns. A breast comes back at the axilla and at the fold below it, by little.
    """
    left, right = breast.box[1], breast.box[3]
    tip = int(breast.right.argmax())
    above, below = breast.right[tip::-1], breast.right[tip:]
    returned = max(float((side - np.minimum.accumulate(side)).max()) for side in (above, below))
    return returned / (right - left)


def has_even_tip(sampled: Sampled) -> bool:
    """Whether one value fills most of the foreground's twentieth opposite to the chest wall, and not the foreground."""
    columns = sampled.inside.shape[1]
    first = columns - max(1, columns // 20)
    values, counts = np.unique(sampled.values[:, first:][sampled.inside[:, first:]], return_counts=True)
    common = values[counts.argmax()]
    return bool(2 * counts.max() > counts.sum() and np.mean(sampled.values[sampled.inside] == common) < STRAIGHT)


def _far_corners(breast: Breast) -> tuple[float, float]:
    """How much of the upper and lower tenth of the bounding box, at the side opposite to the chest wall, is filled."""
    top, left, bottom, right = breast.box
    rows, width = max(1, (bottom - top) // 10), max(1, (right - left) // 10)
    filled = np.clip(breast.right - np.maximum(breast.left, right - width), 0, None) / width
    return float(filled[:rows].mean()), float(filled[-rows:].mean())


def _opened(mask: Mask, radius: int) -> Mask:
    """The union of all diamonds of that radius, in grid points, that fit into the mask; outside it is background."""
    bordered = np.pad(mask, 1).view(np.uint8)
    core = cv2.distanceTransform(bordered, cv2.DIST_L1, 3, dstType=cv2.CV_8U) > radius
    away = cv2.distanceTransform((~core).view(np.uint8), cv2.DIST_L1, 3, dstType=cv2.CV_8U)
    return np.asarray((away <= radius)[1:-1, 1:-1])
