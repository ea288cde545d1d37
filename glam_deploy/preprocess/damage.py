"""Detection of image damage: lost lines, a cyclic shift, clipping, an upside-down view, a mask or drawing."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from glam_deploy.errors import InputError
from glam_deploy.preprocess import surroundings
from glam_deploy.preprocess.foreground import Breast, Mask
from glam_deploy.preprocess.samples import Samples
from glam_deploy.preprocess.surroundings import Sampled
from glam_deploy.records import Float32, Mammogram, Notice, Pixels

WIDE = 0.1
"""Smallest share of pixels above 0 in a line that crosses the breast, not only its tip or a label."""
FILLED = (0.9, 1)
"""Largest share of pixels above 0 in the first row, and in the first column, of a view: a breast leaves a part of each
row 0, but may fill the column of the chest wall."""
ALIKE = 0.8
"""Smallest ratio of intersection to union of the pixels above 0 in two neighbouring lines."""
FEWEST = 8
"""Smallest number of sampled pixels above 0 for a decision about a line."""
REPEATED = 8
"""Smallest number of successive lines with the same values that are not image content."""
CONTINUES = 0.06
"""Largest mean difference of two neighbouring lines, smoothed, as a share of their mean."""
JUMPS = 0.25
"""Mean difference of two lines, not smoothed, as a share of their mean, above which they are not neighbours."""
CLIPPED = 0.02
"""Share of the pixels of the breast at its highest value from which the notice `saturated` is added; at most 0.0003 in
16 real views."""


LINES = ("row", "column")
EXPORT_AGAIN = "export the image again from its source"


@dataclass(frozen=True, kw_only=True)
class Run:
    """Successive lines without image content, between two lines with image content."""

    axis: int
    """0: rows, 1: columns."""
    first: int
    """First line."""
    last: int
    """Last line, inclusive."""
    value: float | None
    """Value of all their pixels above 0, 0 if there are none; None if they repeat a line."""


def lost_lines(lines: Pixels, axis: int) -> Iterator[Run]:
    """Runs of lines that are empty, have one value, or repeat each other.

    `lines`: [lines, n], `Samples.row_lines` for axis 0 and `Samples.column_lines` for axis 1.
    """
    tissue, highest = lines > 0, lines.max(axis=1)
    filled = np.count_nonzero(tissue, axis=1)
    wide = filled >= max(FEWEST, WIDE * lines.shape[1])
    even = wide & (np.count_nonzero(lines == highest[:, None], axis=1) == filled)
    same = np.zeros(len(lines), np.bool_)
    same[1:] = wide[1:] & (lines[1:] == lines[:-1]).all(axis=1)
    if 2 * np.count_nonzero(even | same) > np.count_nonzero(wide):
        return  # a drawing: most of its lines have one value or repeat each other
    shows = wide & ~even
    for lost, fewest in ((highest == 0, 1), (even, 1), (same & ~even, REPEATED - 1)):
        for first, end in _runs(lost):
            before, after = first - 1, end
            inside = before >= 0 and after < len(lines) and shows[before] and shows[after]
            if end - first >= fewest and inside and _overlap(tissue[before], tissue[after]) >= ALIKE:
                value = float(highest[first]) if fewest == 1 else None
                yield Run(axis=axis, first=first, last=end - 1, value=value)


def is_wrapped(first: Pixels, last: Pixels, lines: Pixels, axis: int) -> bool:
    """Whether the image is shifted cyclically: the last line continues the first, and the breast is interrupted.

    `first`, `last`: the lines at the edges of the image, whole; `lines` as in `lost_lines`. A breast that only reaches
    both edges is not interrupted.
    """
    both = (first > 0) & (last > 0)
    if not WIDE <= np.mean(both) <= FILLED[axis] or _overlap(first > 0, last > 0) < ALIKE:
        return False
    return _continue(_smoothed(first)[both], _smoothed(last)[both]) and _is_interrupted(lines)


def _is_interrupted(lines: Pixels) -> bool:
    """Whether a line, within the extent of the first, is nearly empty or differs too much from the next."""
    within = lines[:, lines[0] > 0].astype(np.float32)
    if not within.size:
        return False
    filled = np.count_nonzero(within, axis=1)
    level = np.maximum(within.mean(axis=1), 1e-9)
    jump = np.abs(np.diff(within, axis=0)).mean(axis=1) / level[1:]
    return bool(np.any(filled <= 0.02 * within.shape[1]) or np.any(jump > JUMPS))


def clipped_share(sampled: Sampled) -> float:
    """Share of the sampled pixels of the breast that have its highest value."""
    values = sampled.values[sampled.inside]
    return float(np.mean(values == values.max()))


def is_upside_down(breast: Breast, rows: int) -> bool:
    """Whether an MLO view is upside down: it reaches the lower edge of the image as the axilla reaches the upper one.

    `rows`: number of rows of the image. Either it does not reach the upper edge, or it is far wider at the lower edge.
    """
    top, left, bottom, right = breast.box
    few = max(1, rows // 50)
    upper, lower = (float(side.mean()) - left for side in (breast.right[:few], breast.right[-few:]))
    wider = lower - upper > 0.3 * (right - left)
    return bottom == rows and (wider or (top > few and lower > 0.1 * (right - left)))


def _runs(where: Mask) -> list[list[int]]:
    """First index of each run of True, and the index after its last."""
    bordered = np.pad(where, 1)
    return np.flatnonzero(bordered[1:] != bordered[:-1]).reshape(-1, 2).tolist()


def _overlap(one: Mask, other: Mask) -> float:
    """Ratio of intersection to union, which is not empty."""
    return int(np.count_nonzero(one & other)) / int(np.count_nonzero(one | other))


def _continue(one: Float32, other: Float32) -> bool:
    """Whether two smoothed lines are neighbours in an image: nearly equal, but not identical and not constant."""
    apart, varies = float(np.abs(one - other).mean()), float(np.abs(one - one.mean()).mean())
    return 0 < apart <= min(CONTINUES * float(one.mean()), 0.5 * varies)


def _smoothed(line: Pixels) -> Float32:
    return np.asarray(cv2.blur(line.astype(np.float32)[None], (31, 1))[0], np.float32)


def drawing(sampled: Sampled, mammogram: Mammogram) -> list[Notice]:
    """Notice `few-values` for a file whose foreground has few values; none for an array, which may be a test image."""
    if mammogram.source.kind == "array":
        return []
    values, counts = np.unique(sampled.values[sampled.inside], return_counts=True)
    shown = ", ".join(f"{value:g}" for value in sorted(values[np.argsort(counts)[-surroundings.FEW :]]))
    message = (
        f"99 % of the pixels above 0 have one of these values: {shown}. The tissue of a mammogram has hundreds of "
        "values: the file may be a mask or a drawing, and then its scores are meaningless."
    )
    return [Notice(code="few-values", message=message)]


def examine(samples: Samples, breast: Breast, sampled: Sampled, mammogram: Mammogram) -> list[Notice]:
    """Notices about damage of an image that can be used: `lost-lines`, `saturated`, `upside-down`.

    All arguments except the mammogram are in the upright frame. Raises InputError for empty rows or columns through the
    breast and for a cyclically shifted image, because only one part of the divided breast would be found.
    """
    runs: list[Run] = []
    edges = (samples.first_row, samples.last_row), (samples.first_column, samples.last_column)
    for axis, lines in enumerate((samples.row_lines, samples.column_lines)):
        if is_wrapped(*edges[axis], lines, axis):
            raise _wrapped(LINES[axis])
        runs += lost_lines(lines, axis)
    for run in runs:
        if run.value == 0:
            raise InputError(
                f"{_describe(run, mammogram)} They divide the breast. Expected an undivided breast: {EXPORT_AGAIN}."
            )
    return [*_lost(runs, mammogram), *_clipped(sampled), *_upside_down(breast, samples.shape[0], mammogram)]


def _wrapped(name: str) -> InputError:
    return InputError(
        f"The last {name} continues the first, and the breast is interrupted between them: the image is shifted "
        f"cyclically by some {name}s, and the breast is divided. Expected an undivided breast: undo the shift, or "
        f"{EXPORT_AGAIN}."
    )


def _describe(run: Run, mammogram: Mammogram) -> str:
    first, last = run.first, run.last
    if run.axis and mammogram.faces_left:
        columns = mammogram.pixels.shape[1]
        first, last = columns - 1 - last, columns - 1 - first
    name, one = LINES[run.axis], first == last
    where = f"{name.capitalize()} {first}" if one else f"{name.capitalize()}s {first} to {last}"
    values = "identical values" if run.value is None else f"only the value {run.value:g}"
    content = f"{'has' if one else 'have'} {values if run.value != 0 else 'no pixels above 0'}"
    return f"{where} {content}, between {name}s that show the breast: lost at readout, transfer or conversion."


def _lost(runs: list[Run], mammogram: Mammogram) -> Iterator[Notice]:
    if runs:
        more = f" There are {len(runs) - 1} more such runs." if len(runs) > 1 else ""
        yield Notice(code="lost-lines", message=f"{_describe(runs[0], mammogram)}{more}")


def _clipped(sampled: Sampled) -> Iterator[Notice]:
    share = clipped_share(sampled)
    if share >= CLIPPED:
        message = (
            f"{100 * share:.0f} % of the breast has its highest value, {sampled.values[sampled.inside].max():g}: these "
            "pixels are clipped, for example by an implant, overexposure or a conversion, and show no tissue."
        )
        yield Notice(code="saturated", message=message)


def _upside_down(breast: Breast, rows: int, mammogram: Mammogram) -> Iterator[Notice]:
    if mammogram.view.is_mlo and is_upside_down(breast, rows):
        message = (
            "The breast reaches the lower edge of the image as the axilla of an MLO view reaches the upper edge: the "
            "image may be stored upside down. It was not rotated."
        )
        yield Notice(code="upside-down", message=message)
