"""Diagnosis of a foreground that is not a breast on a background of 0; causes are checked in the order of evidence.

A wrong cause is worse than none: a user who sets the background of a mirrored view to 0 removes tissue. Therefore
values are checked first (a uniform dark layer around brighter pixels is a background, whatever its shape), then the
round side (a mirrored view), then a border of one value, then the shape, and the values at the outline.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from glam_deploy.errors import InputError, Remedy
from glam_deploy.preprocess import damage, surroundings
from glam_deploy.preprocess.byte_order import SMOOTHER, gain_of_swap
from glam_deploy.preprocess.foreground import Breast
from glam_deploy.preprocess.samples import BESIDE_STEP, DEPTH, Samples, grid_step
from glam_deploy.preprocess.surroundings import Layer, Outline, Sampled
from glam_deploy.records import Mammogram, Notice, Pixels

NOISE = 0.25
"""Share of pixels above 0 outside the breast from which they are noise; labels and markers have less (0.04 in 8
full-field views, 0.22 in 8 film scans)."""
ROUNDED = 0.05
"""Largest share of the image outside the breast that may only be corners of tissue rounded off by the erosion."""
PART = 1 / 3
"""Share of the outline that is hard (`Outline.hard`) from which the notice `hard-outline` is added; normal views have
0.08 at most."""
ALL = 0.75
"""Share of the outline that is hard from which it may be the outline of a frame of any shape."""
SOME = 0.2
"""Smallest share of the foreground without background, and of the chest wall that it reaches, that may be a breast."""


def diagnose(samples: Samples, breast: Breast, mammogram: Mammogram) -> list[Notice]:
    """Notices about the surroundings of a breast that can be used.

    `samples` and `breast` are in the upright frame: chest wall on the left.

    Raises InputError for swapped bytes, damage that `damage` refuses, a background that is not 0, a wrong laterality or
    a mirrored image, and a foreground that reaches the edge opposite to the chest wall over most of the height, unless
    the header states a partial view (notice `partial-view`).
    """
    _check_byte_order(mammogram)
    sampled = surroundings.sampled_foreground(samples, breast)
    drawn = surroundings.has_few_values(sampled)
    case = _Case(
        samples=samples,
        breast=breast,
        mammogram=mammogram,
        sampled=sampled,
        dark=surroundings.dark_layer(sampled),
        edge=surroundings.NO_OUTLINE if drawn else surroundings.measure_outline(samples, breast, sampled.level),
    )
    if case.has_dark_layer and surroundings.is_uniform(case.dark, sampled):
        raise _background(case, case.dark)
    damaged = damage.drawing(sampled, mammogram) if drawn else damage.examine(samples, breast, sampled, mammogram)
    _check_side(case)
    border = _border_value(samples.border)
    if border is not None:
        raise _background(case, _border_layer(samples.border, *border))
    noise = [*_noise(samples, breast)]
    hard = [_hard_notice(case.edge)] if case.edge.hard > PART and not noise else []
    return [*damaged, *_shape(case), *hard, *noise]


def _check_byte_order(mammogram: Mammogram) -> None:
    """Raise InputError for 16-bit pixels with swapped bytes. DICOM is checked as it is read, with its BitsStored."""
    if mammogram.source.kind == "dicom" or mammogram.pixels.dtype != np.uint16:
        return
    if (gain := gain_of_swap(mammogram.pixels)) > SMOOTHER:
        raise InputError(
            f"The two bytes of each pixel are swapped: neighbouring pixels differ {gain:.0f} times less after a byte "
            "swap. Correct the byte order where the image is written (PNG: most significant byte first)."
        )


@dataclass(frozen=True, kw_only=True)
class _Case:
    """A view, and what was measured in it."""

    samples: Samples
    breast: Breast
    mammogram: Mammogram
    sampled: Sampled
    dark: Layer
    """The thick dark layer in the foreground."""
    edge: Outline
    """`NO_OUTLINE` for a drawing, which has no skin."""

    @property
    def columns(self) -> int:
        return self.samples.shape[1]

    @property
    def has_dark_layer(self) -> bool:
        return self.dark.share > surroundings.THICK


def _shape(case: _Case) -> Iterator[Notice]:
    """Notices about the shape of the outline, if the border values of the image gave no cause. Raises InputError."""
    breast, sampled, edge = case.breast, case.sampled, case.edge
    framed = surroundings.is_straight(breast, case.columns) or surroundings.fills_its_box(breast)
    outer = surroundings.outer_layer(sampled)
    if framed and case.has_dark_layer:
        raise _background(case, case.dark)
    if _is_background(outer, sampled, framed=framed):
        raise _background(case, outer)
    graded = surroundings.graded_layer(sampled) if edge.hard >= ALL else None
    if graded is not None and graded[1].share > SOME and graded[1].at_wall > SOME:
        raise _background(case, graded[0])
    if framed:
        yield _cut_off(case)
    elif surroundings.second_bulge(breast) > surroundings.BULGE or surroundings.has_even_tip(sampled):
        message = (
            "The outline is not that of a breast alone: a strip or a label may be connected with the breast and "
            "enlarge the crop."
        )
        yield Notice(code="attached-foreground", message=message)
    if case.has_dark_layer:
        yield _dark_notice(case.dark, sampled)


def _cut_off(case: _Case) -> Notice:
    """Notice about a foreground without background that ends on a straight line. Raises InputError."""
    breast, (rows, columns) = case.breast, case.samples.shape
    ends = np.count_nonzero(breast.right >= breast.box[3] - surroundings.RIM * columns) / rows
    at_edge = np.count_nonzero(breast.right >= columns * (1 - surroundings.RIM)) / rows
    finding = (
        f"The foreground (pixels > 0) ends on a straight line opposite to the chest wall in {100 * ends:.0f} % of the "
        "rows"
    )
    if at_edge <= surroundings.STRAIGHT:
        message = f"{finding}: tissue may be cut off, or the foreground may include a background above 0."
        return Notice(code="straight-outline", message=message)
    if all(notice.code != "partial-view" for notice in case.mammogram.notices):
        raise InputError(
            f"{finding}, at the edge of the image, and background cannot be distinguished from tissue: the image shows "
            "only a part of the breast, or something else. Expected a whole breast with its outline, on a background "
            "of 0. Give the whole view; a DICOM object of a partial view must state it (PartialView YES)"
        )
    return Notice(code="tissue-at-far-edge", message=f"{finding}, which a partial view may do (PartialView is YES).")


def _is_background(outer: Layer, sampled: Sampled, *, framed: bool) -> bool:
    """Whether the layer along the outline is a uniform or dark background with other pixels inside.

    Unless `framed` (an outline that cannot be a breast), the layer must be uniform and the pixels inside must reach a
    side of the image, because a gland in uniform fat does not.
    """
    rest = surroundings.rest_of(sampled, outer)
    dark = outer.high <= surroundings.DARK_IN_FRAME * sampled.level
    uniform = surroundings.is_uniform(outer, sampled)
    if framed:
        return rest.share > surroundings.DARK and (dark or uniform)
    return rest.share > surroundings.DARK and uniform and max(rest.at_wall, rest.at_far_edge) > 0.25


def _border_value(border: Pixels) -> tuple[float, float] | None:
    """The value above 0 of more than half of the border pixels away from the chest wall, and its share; else None."""
    values, counts = np.unique(border, return_counts=True)
    common = int(counts.argmax())
    share = float(counts[common] / len(border))
    return (float(values[common]), share) if values[common] > 0 and share > 0.5 else None


def _border_layer(border: Pixels, value: float, share: float) -> Layer:
    """The background layer whose value most border pixels have."""
    least, most = surroundings.extent(border[border > 0], value, value)
    return Layer(share=share, low=value, high=value, least=least, most=most)


def _background(case: _Case, found: Layer) -> InputError:
    sampled, border = case.sampled, _border_value(case.samples.border)
    values = f"{found.low:g}" if found.low == found.high else f"{found.low:g} to {found.high:g}"
    layer = (
        f"{100 * found.share:.0f} % of the foreground (pixels > 0) is a layer of {values} around tissue of up to "
        f"{sampled.level:g}"
    )
    if border is not None:
        finding = (
            f"The background is {border[0]:g}, not 0: {100 * border[1]:.0f} % of the border away from the chest wall "
            "has this value. Expected exactly 0 around the breast."
        )
    elif _may_be_skinless(case, found):
        finding = (
            f"The background is not 0, or the skin was cut off: {layer}, directly inside a border of 0. Expected "
            "exactly 0 around the breast, and values that rise inwards from its skin. If the skin was cut off, the "
            "outline sharpened or the histogram equalized, use the image as it left the detector. Otherwise the "
            "background ends at a black rim."
        )
    else:
        finding = f"The background is not 0: {layer}. Expected exactly 0 around the breast."
    rest = surroundings.rest_of(sampled, found)
    side = (
        " The breast is at the edge opposite to the chest wall, too: laterality wrong or stored mirrored."
        if rest.at_far_edge > 2 * rest.at_wall
        else ""
    )
    return InputError(f"{finding} {_background_remedy(case.mammogram, sampled, found)}{side}")


def _may_be_skinless(case: _Case, found: Layer) -> bool:
    """Whether the layer may be fat of the breast: brighter than a background, inside a border of 0."""
    return found.high > surroundings.DARK * case.sampled.level and np.median(case.samples.border) == 0


def _background_remedy(mammogram: Mammogram, sampled: Sampled, found: Layer) -> str:
    """Remedy for a background above 0; padding values only for a uniform one, because a gradient overlaps tissue."""
    facts, inverted = mammogram.source.facts, found.low >= surroundings.BRIGHT * sampled.level
    uniform = surroundings.is_uniform(found, sampled)
    if mammogram.source.kind != "dicom":
        if inverted:
            return "The image seems to be inverted (MONOCHROME1): invert it within its stored range."
        return "Set the pixels outside the breast to 0 and do not change the others."
    if facts["photometric_interpretation"] == "MONOCHROME1":
        top = (1 << int(facts["bits_stored"])) - 1
        low, high = top - found.most, top - found.least
        return (
            f"The image is MONOCHROME1, and its stored values were inverted within {facts['bits_stored']} bits: the "
            f"background is stored as {_span(low, high)}, expected {top}. Export it with a background of {top}"
            + (f", or with {_padding(low, high)}." if uniform else ".")
        )
    if inverted:
        return (
            "The image seems to be inverted, but PhotometricInterpretation is MONOCHROME2: correct it at the source of "
            "the object."
        )
    return "Export it with a background of 0" + (f", or with {_padding(found.least, found.most)}." if uniform else ".")


def _span(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _padding(low: float, high: float) -> str:
    limit = "" if low == high else f" and PixelPaddingRangeLimit {high:g}"
    return f"PixelPaddingValue {low:g}{limit} if these values are not tissue"


def _check_side(case: _Case) -> None:
    """Raise InputError for a breast on the wrong side, or for a background around the breast that looks like one."""
    breast = case.breast
    if not _is_on_wrong_side(breast, case.columns):
        return
    is_hard_and_round = case.edge.hard >= ALL and not surroundings.is_straight(breast, case.columns)
    if is_hard_and_round or _is_beside_tissue(case.samples, breast):
        raise _background(case, surroundings.outer_layer(case.sampled))
    raise _wrong_side(breast, case.columns, case.mammogram)


def _is_on_wrong_side(breast: Breast, columns: int) -> bool:
    """Whether the breast is nearer to the edge opposite to the chest wall, or its round side is at the chest wall."""
    _, left, _, right = breast.box
    round_at_wall = surroundings.is_straight(breast, columns) and not surroundings.is_straight(
        breast.mirrored(columns), columns
    )
    return left > columns - right or round_at_wall


def _is_beside_tissue(samples: Samples, breast: Breast) -> bool:
    """Whether more than a tenth of the pixels between the edge of the chest wall and the breast are above 0.

    Then these pixels are the breast, and the detected breast is a background around it. In a mirrored view they are 0.
    """
    between = np.arange(0, samples.shape[1], BESIDE_STEP) < breast.left[::BESIDE_STEP, None]
    return bool(np.count_nonzero((samples.beside > 0) & between) > 0.1 * np.count_nonzero(between))


def _wrong_side(breast: Breast, columns: int, mammogram: Mammogram) -> InputError:
    _, left, _, right = breast.box
    gap = columns - right
    wall, other = ("right", "left") if mammogram.faces_left else ("left", "right")
    read_as = "stored mirrored" if mammogram.horizontal_flip else "stored as taken"
    fits = mammogram.source.facts.get("field_of_view_horizontal_flip") == "YES"
    return InputError(
        f"Laterality wrong or stored mirrored: the breast is {gap} pixels from the {other} edge and {left} from the "
        f"{wall} edge, where the chest wall of an {mammogram.view} view that is {read_as} is expected"
        + ("; FieldOfViewHorizontalFlip is YES, which indicates an image that is stored mirrored" if fits else ""),
        *_side_remedies(mammogram),
    )


def _side_remedies(mammogram: Mammogram) -> Iterator[Remedy]:
    """Remedies that do not contradict the tags of a DICOM object."""
    facts, codes = mammogram.source.facts, {notice.code for notice in mammogram.notices}
    is_dicom = mammogram.source.kind == "dicom"
    if not is_dicom or facts.get("laterality_from") == "option":
        yield Remedy.OTHER_VIEW
    if not is_dicom or "orientation-unknown" in codes:
        yield Remedy.NO_FLIP if mammogram.horizontal_flip else Remedy.FLIP
    if is_dicom:
        yield Remedy.CORRECT_TAGS


def _hard_notice(edge: Outline) -> Notice:
    message = (
        f"{100 * edge.hard:.0f} % of the outline does not rise like the skin of a breast: the outermost pixels are "
        f"{edge.value:.4g}, those 40 to {DEPTH} pixels inside {edge.inner:.4g}. A background above 0 may "
        "end there at a black rim, the skin may be cut off, or a constant was added to the tissue."
    )
    return Notice(code="hard-outline", message=message)


def _dark_notice(dark: Layer, sampled: Sampled) -> Notice:
    message = (
        f"{100 * dark.share:.0f} % of the detected breast is a layer of {dark.low:g} to {dark.high:g}, dark compared "
        f"with tissue of up to {sampled.level:g}: it may be a background that is not 0."
    )
    return Notice(code="dark-surroundings", message=message)


def _noise(samples: Samples, breast: Breast) -> Iterator[Notice]:
    """Notice about noise in the background, with enough pixels of 0 in between to detect the breast."""
    step = grid_step(*samples.shape)
    outside = np.ones(samples.whole.shape, np.bool_)
    rows = np.arange(0, samples.shape[0], step)
    among = (rows >= breast.top) & (rows < breast.top + len(breast.left))
    extent = rows[among] - breast.top
    column = np.arange(0, samples.shape[1], step)
    outside[among] = (column < breast.left[extent, None]) | (column >= breast.right[extent, None])
    values = samples.whole[outside]
    share = np.count_nonzero(values) / max(1, len(values))
    if share > NOISE and len(values) > ROUNDED * outside.size:
        message = (
            f"{100 * share:.0f} % of the pixels outside the breast are above 0, up to {values.max():g}; expected 0."
        )
        yield Notice(code="background-not-zero", message=message)
