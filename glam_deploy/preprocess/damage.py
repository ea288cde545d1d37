"""Damage of the image itself: lost lines, a shift around the borders, clipping, an upside-down view, a drawing."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from glam_deploy.errors import InputError
from glam_deploy.preprocess import surroundings
from glam_deploy.preprocess.foreground import Breast, Mask
from glam_deploy.preprocess.surroundings import Sampled
from glam_deploy.records import Float32, Mammogram, Notice, Pixels

STEP = 32
"""Every how many-th pixel of a line is looked at."""
WIDE = 0.1
"""Share of a line that is above 0 where it crosses the breast, and not its tip or a label."""
FILLED = (0.9, 1)
"""Most of the image's first row, and of its first column, that is above 0 in a view: a breast leaves a part of each row
0, but may fill the chest wall's column."""
ALIKE = 0.8
"""Share of what two lines cover together that both cover, from which one can be the other's neighbour."""
FEWEST = 8
"""Pixels of a line, as thinned, that say anything."""
REPEATED = 8
"""Lines that hold the same values one after another, from which they are no picture."""
CONTINUES = 0.06
"""Mean difference of two neighbours, smoothed, as a share of their mean."""
JUMPS = 0.25
"""The same, not smoothed, from which they are none."""
CLIPPED = 0.02
"""Share of the breast's pixels at its highest value from which the notice `saturated` is added; in 16 real views it is
0.0003 at most."""


LINES = ("row", "column")
AGAIN = "export the image again from where it comes from"


@dataclass(frozen=True, kw_only=True)
class Run:
    """Neighbouring lines that hold no picture, between two that do."""

    axis: int
    """0: rows, 1: columns."""
    first: int
    last: int
    """Inclusive."""
    value: float | None
    """That of all their pixels above 0, 0 where there are none; None where they repeat a line."""


def lines_of(pixels: Pixels, breast: Breast, axis: int) -> Pixels:
    """[lines, length / STEP]: the image's rows or columns, thinned, as far as the breast's bounding box goes."""
    top, left, bottom, right = breast.box
    return np.ascontiguousarray(pixels[top:bottom:STEP].T if axis else pixels[:, left:right:STEP])


def lost_lines(lines: Pixels, axis: int) -> Iterator[Run]:
    """Runs of lines that are empty, or of one value, or the same; `lines`: from `lines_of`."""
    tissue, highest = lines > 0, lines.max(axis=1)
    filled = np.count_nonzero(tissue, axis=1)
    wide = filled >= max(FEWEST, WIDE * lines.shape[1])
    even = wide & (np.count_nonzero(lines == highest[:, None], axis=1) == filled)
    same = np.zeros(len(lines), np.bool_)
    same[1:] = wide[1:] & (lines[1:] == lines[:-1]).all(axis=1)
    if 2 * np.count_nonzero(even | same) > np.count_nonzero(wide):
        return  # a drawing: it has no lines of its own to tell others from
    shows = wide & ~even
    for lost, fewest in ((highest == 0, 1), (even, 1), (same & ~even, REPEATED - 1)):
        for first, end in _runs(lost):
            before, after = first - 1, end
            inside = before >= 0 and after < len(lines) and shows[before] and shows[after]
            if end - first >= fewest and inside and _overlap(tissue[before], tissue[after]) >= ALIKE:
                value = None if fewest > 1 else float(highest[first])
                yield Run(axis=axis, first=first, last=end - 1, value=value)


def is_wrapped(pixels: Pixels, lines: Pixels, axis: int) -> bool:
    """Whether the last line continues the first, and tissue breaks off in between: the image is shifted cyclically.

    `lines`: from `lines_of`. A breast that reaches both borders alone does not break off.
    """
    first, last = (pixels[:, i] if axis else pixels[i] for i in (0, -1))
    both = (first > 0) & (last > 0)
    if not WIDE <= np.mean(both) <= FILLED[axis] or _overlap(first > 0, last > 0) < ALIKE:
        return False
    return _continue(_smoothed(first)[both], _smoothed(last)[both]) and _breaks_off(lines)


def _breaks_off(lines: Pixels) -> bool:
    """Whether some line within the first's extent is all but empty, or is no neighbour of the next."""
    within = lines[:, lines[0] > 0].astype(np.float32)
    if not within.size:
        return False
    filled = np.count_nonzero(within, axis=1)
    level = np.maximum(within.mean(axis=1), 1e-9)
    jump = np.abs(np.diff(within, axis=0)).mean(axis=1) / level[1:]
    return bool(np.any(filled <= 0.02 * within.shape[1]) or np.any(jump > JUMPS))


def clipped_share(sampled: Sampled) -> float:
    """Share of the breast that has its highest value."""
    values = sampled.values[sampled.inside]
    return float(np.mean(values == values.max()))


def is_upside_down(breast: Breast, rows: int) -> bool:
    """Whether an MLO view goes on to the lower edge of the image, as the axilla belongs to the upper one.

    `rows`: the image's. Either it does not reach the upper edge, or it is far wider at the lower one.
    """
    top, left, bottom, right = breast.box
    few = max(1, rows // 50)
    upper, lower = (float(side.mean()) - left for side in (breast.right[:few], breast.right[-few:]))
    wider = lower - upper > 0.3 * (right - left)
    return bottom == rows and (wider or (top > few and lower > 0.1 * (right - left)))


def _runs(where: Mask) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.pad(where, 1).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _overlap(one: Mask, other: Mask) -> float:
    return int(np.count_nonzero(one & other)) / max(1, int(np.count_nonzero(one | other)))


def _continue(one: Float32, other: Float32) -> bool:
    """Whether two lines, smoothed, are neighbours in a picture: nearly equal, and neither the same nor of one value."""
    apart, varies = float(np.abs(one - other).mean()), float(np.abs(one - one.mean()).mean())
    return 0 < apart <= min(CONTINUES * float(one.mean()), 0.5 * varies)


def _smoothed(line: Pixels) -> Float32:
    return np.asarray(cv2.blur(line.astype(np.float32)[None], (31, 1))[0], np.float32)


def drawing(sampled: Sampled, mammogram: Mammogram) -> list[Notice]:
    """`few-values` of a foreground that is drawn in a few, in a file; an array may be a drawing on purpose."""
    if mammogram.source.kind == "array":
        return []
    values, counts = np.unique(sampled.values[sampled.inside], return_counts=True)
    shown = ", ".join(f"{value:g}" for value in sorted(values[np.argsort(counts)[-surroundings.FEW :]]))
    told = (
        f"99 % of what is above 0 has one of these values: {shown}. The tissue of a mammogram has hundreds: the file "
        "may be a mask or a drawing, whose scores mean nothing."
    )
    return [Notice(code="few-values", message=told)]


def examine(pixels: Pixels, breast: Breast, sampled: Sampled, mammogram: Mammogram) -> list[Notice]:
    """What a reader must know of an image that can be used: `lost-lines`, `saturated`, `upside-down`.

    All but the mammogram is in the upright frame. Raises InputError for empty rows or columns through the breast, and
    for an image that is shifted around its borders: the breast is cut in two, and only one part would be found.
    """
    runs: list[Run] = []
    for axis, name in enumerate(LINES):
        lines = lines_of(pixels, breast, axis)
        if is_wrapped(pixels, lines, axis):
            raise _wrapped(name)
        runs += lost_lines(lines, axis)
    for run in runs:
        if run.value == 0:
            raise InputError(f"{_told(run, mammogram)} The breast is cut in two there. Expected a whole one: {AGAIN}.")
    return [*_lost(runs, mammogram), *_clipped(sampled), *_upside_down(breast, pixels, mammogram)]


def _wrapped(name: str) -> InputError:
    return InputError(
        f"The last {name} continues the first, and the breast breaks off between them: the image is shifted around its "
        f"borders by some {name}s, and the breast is cut in two. Expected a whole one: undo the shift, or {AGAIN}."
    )


def _told(run: Run, mammogram: Mammogram) -> str:
    first, last = run.first, run.last
    if run.axis and mammogram.faces_left:
        columns = mammogram.pixels.shape[1]
        first, last = columns - 1 - last, columns - 1 - first
    name, one = LINES[run.axis], first == last
    where = f"{name.capitalize()} {first}" if one else f"{name.capitalize()}s {first} to {last}"
    values = "the same values one after another" if run.value is None else f"the one value {run.value:g}"
    what = f"{'holds' if one else 'hold'} {values if run.value != 0 else 'nothing above 0'}"
    return f"{where} {what}, between {name}s that show the breast: lost when it was read out, sent or converted."


def _lost(runs: list[Run], mammogram: Mammogram) -> Iterator[Notice]:
    if runs:
        more = f" So do {len(runs) - 1} other runs." if len(runs) > 1 else ""
        yield Notice(code="lost-lines", message=f"{_told(runs[0], mammogram)}{more}")


def _clipped(sampled: Sampled) -> Iterator[Notice]:
    share = clipped_share(sampled)
    if share >= CLIPPED:
        told = (
            f"{100 * share:.0f} % of the breast has its highest value, {sampled.values[sampled.inside].max():g}: it is "
            "clipped there, as by an implant, an overexposure or a conversion, and nothing can be seen in it."
        )
        yield Notice(code="saturated", message=told)


def _upside_down(breast: Breast, pixels: Pixels, mammogram: Mammogram) -> Iterator[Notice]:
    if mammogram.view.is_mlo and is_upside_down(breast, pixels.shape[0]):
        told = (
            "The breast goes on to the lower edge of the image as the axilla of an MLO view does to the upper one: it "
            "may be stored upside down. Nothing is turned here."
        )
        yield Notice(code="upside-down", message=told)
