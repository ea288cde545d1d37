"""What is wrong with the image itself, whatever lies around the breast: `integrity` measures it, here it is worded."""

from collections.abc import Iterator

import numpy as np

from glam_deploy.errors import InputError
from glam_deploy.preprocess import integrity, surroundings
from glam_deploy.preprocess.foreground import Breast
from glam_deploy.preprocess.integrity import Run
from glam_deploy.preprocess.surroundings import Sampled
from glam_deploy.records import Mammogram, Notice, Pixels

LINES = ("row", "column")
AGAIN = "export the image again from where it comes from"


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
        lines = integrity.lines_of(pixels, breast, axis)
        if integrity.is_wrapped(pixels, lines, axis):
            raise _wrapped(name)
        runs += integrity.lost_lines(lines, axis)
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
    share = integrity.clipped_share(sampled)
    if share >= integrity.CLIPPED:
        told = (
            f"{100 * share:.0f} % of the breast has its highest value, {sampled.values[sampled.inside].max():g}: it is "
            "clipped there, as by an implant, an overexposure or a conversion, and nothing can be seen in it."
        )
        yield Notice(code="saturated", message=told)


def _upside_down(breast: Breast, pixels: Pixels, mammogram: Mammogram) -> Iterator[Notice]:
    if mammogram.view.is_mlo and integrity.is_upside_down(breast, pixels.shape[0]):
        told = (
            "The breast goes on to the lower edge of the image as the axilla of an MLO view does to the upper one: it "
            "may be stored upside down. Nothing is turned here."
        )
        yield Notice(code="upside-down", message=told)
