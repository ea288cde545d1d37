"""Mammogram -> PlacedView -> NetworkInput: the complete published preprocessing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from glam_deploy.errors import InputError, Remedy
from glam_deploy.networks import PUBLISHED_FRAME
from glam_deploy.preprocess import diagnosis, foreground, frame, samples, window
from glam_deploy.preprocess.foreground import Breast, Mask
from glam_deploy.preprocess.samples import Samples
from glam_deploy.preprocess.standardize import TOLERANCE, standardize
from glam_deploy.records import (
    Box,
    CropFacts,
    Float32,
    Mammogram,
    NetworkInput,
    Notice,
    Pixels,
    PlacedView,
    Placement,
)

LARGEST = 2.0**32
"""Largest pixel of a float image: more than that of 32-bit integers. Sums of squares of larger ones, which the
preprocessing needs, may leave the range of float32."""

DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))


def check_pixels(pixels: Pixels, network_shape: tuple[int, int] = PUBLISHED_FRAME) -> None:
    """Raise InputError unless `pixels` are uint8, uint16 or float32 [rows, columns], 0..LARGEST and not constant."""
    check_type(pixels)
    check_raw(pixels, network_shape)
    _check_range(pixels.min(), pixels.max())


def check_type(pixels: Pixels) -> None:
    """Raise InputError unless `pixels` are uint8, uint16 or float32 [rows, columns], with at least one pixel."""
    if pixels.ndim != 2 or pixels.dtype not in DTYPES:
        raise InputError(
            f"The image is {pixels.dtype} of shape {pixels.shape}; expected uint8, uint16 or float32 (native byte "
            "order) of shape [rows, columns], one grey channel. Convert it without changing its values."
        )
    if not pixels.size:
        raise InputError(f"The image has shape {pixels.shape}, so no pixels. Check the file for damage.")


def check_raw(pixels: Pixels, network_shape: tuple[int, int] = PUBLISHED_FRAME) -> None:
    """Raise InputError for an array with shape, type and moments of a network input, because it is standardized."""
    if pixels.shape != network_shape or pixels.dtype.kind != "f" or not pixels.min() < 0:
        return
    mean, deviation = pixels.mean(dtype=np.float64), pixels.std(dtype=np.float64)
    if abs(mean) <= TOLERANCE and abs(deviation - 1) <= TOLERANCE:
        raise InputError(
            f"The array is {pixels.dtype} {list(pixels.shape)} with mean 0 and standard deviation 1: this is a "
            "standardized input, but it was given as a raw image",
            Remedy.STANDARDIZED,
        )


def _check_range(low: float, high: float) -> None:
    # min and max propagate NaN; infinity appears in one of them
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(
            "The image has pixels that are NaN or infinite; expected finite numbers >= 0. "
            "Find the cause and write the image again."
        )
    if low < 0:
        raise InputError(
            f"The smallest pixel is {low:g}; expected values >= 0 with a background of exactly 0. "
            "Undo the subtraction, such as a standardization or a rescale intercept."
        )
    if high > LARGEST:
        raise InputError(
            f"The largest pixel is {high:g}; expected values up to {LARGEST:g}. Divide all pixels by one power of two, "
            "which changes no result, or write the image again if it is damaged."
        )
    if high == 0:
        raise InputError("The image is empty: no pixel is above 0. Check the file for damage.")
    if low == high:
        raise InputError(f"Every pixel is {high:g}: a constant image. Check the file for damage.")


@dataclass(frozen=True, kw_only=True)
class Located:
    """Positions of the breast and of the window in a view, and the samples for its diagnosis."""

    breast: Breast
    """In the upright frame."""
    samples: Samples
    placement: Placement
    crop_facts: CropFacts
    tissue_in_crop: int
    tissue_in_window: int
    """Number of pixels above 0 in the crop, and in its part inside the window."""


def prepare(mammogram: Mammogram, *, network_shape: tuple[int, int] = PUBLISHED_FRAME) -> NetworkInput:
    """The network input of a raw view: `place`, then `network_input`."""
    return network_input(place(mammogram, network_shape=network_shape))


def place(mammogram: Mammogram, *, network_shape: tuple[int, int] = PUBLISHED_FRAME) -> PlacedView:
    """Find the position of the network window in a raw view.

    `mammogram.pixels`: uint8, uint16 or float32 [rows, columns], >= 0, background exactly 0, source frame.
    `network_shape`: rows and columns of the network frame.

    Raises InputError for another dtype or shape; NaN, infinite or negative pixels; an empty or constant image; a
    foreground so thin that no pixel remains after 100 erosions; and for what `diagnosis.diagnose` refuses: a divided
    breast, a background that is not 0, a wrong laterality or a mirrored image, a foreground that reaches the edge
    opposite to the chest wall.

    Adds these notices after those of the mammogram: `8-bit` (8 bits per pixel; the network was trained on 12 to 16),
    `off-chest-wall` (the breast does not touch the edge of the chest wall), `tissue-outside-window` (part of the
    foreground in the crop is outside the window), `few-values`, `lost-lines`, `saturated` and `upside-down` (see
    `damage`), `tissue-at-far-edge` (a partial view that reaches the far edge), `straight-outline` and
    `attached-foreground` (the outline is not that of a breast), `dark-surroundings` (a thick dark layer around the
    tissue), `hard-outline` (values do not rise as at the skin) and `background-not-zero` (noise outside the breast).
    """
    with _naming_padding(mammogram):
        check_pixels(mammogram.pixels, network_shape)
    contiguous = replace(mammogram, pixels=np.ascontiguousarray(mammogram.pixels))
    return _place_turned(contiguous, network_shape) if mammogram.half_turn else _placed(contiguous, network_shape)


@contextmanager
def _naming_padding(mammogram: Mammogram) -> Iterator[None]:
    """Context that names in an InputError which pixels the header made background, because they may be the cause."""
    try:
        yield
    except InputError as error:
        if not (padding := mammogram.source.facts.get("padding")):
            raise
        raise InputError(
            f"{padding}: correct the tags if these are no padding. Without these pixels: {error.args[0]}",
            *error.remedies,
        ) from error


def _placed(mammogram: Mammogram, network_shape: tuple[int, int]) -> PlacedView:
    return judge(mammogram, locate(mammogram, network_shape=network_shape))


def _place_turned(stored: Mammogram, network_shape: tuple[int, int]) -> PlacedView:
    """Place a view that is stored rotated by 180 degrees: as the turned view, with positions in the stored image."""
    turned = replace(stored, pixels=np.ascontiguousarray(stored.pixels[::-1, ::-1]), half_turn=False)
    placed = _placed(turned, network_shape)
    return replace(placed, pixels=stored.pixels, placement=frame.half_turned(placed.placement))


def locate(mammogram: Mammogram, *, network_shape: tuple[int, int] = PUBLISHED_FRAME) -> Located:
    """Find the breast and the window in a view that is not stored rotated, whose pixels passed `check_pixels`.

    Raises InputError if no pixel of the foreground remains after the erosion.
    """
    bordered = foreground.bordered_mask(mammogram.pixels)
    with _naming_padding(mammogram):
        breast = foreground.find_breast(bordered)
    breast = breast.mirrored(mammogram.pixels.shape[1]) if mammogram.faces_left else breast
    mask = bordered[1:-1, 1:-1]
    placement, facts = _place(mask, breast, mammogram, network_shape)
    top, bottom, left, right = placement.crop_window
    return Located(
        breast=breast,
        samples=samples.take(mammogram.upright, breast),
        placement=placement,
        crop_facts=facts,
        tissue_in_crop=int(np.count_nonzero(mask[top:bottom, left:right])),
        tissue_in_window=int(np.count_nonzero(frame.seen(placement).read(mask))),
    )


def judge(mammogram: Mammogram, located: Located) -> PlacedView:
    """The placed view, with its notices, from what `locate` found. Raises InputError as `place` does."""
    surroundings = diagnosis.diagnose(located.samples, located.breast, mammogram)
    return PlacedView(
        pixels=mammogram.pixels,
        placement=located.placement,
        source=mammogram.source,
        view=mammogram.view,
        notices=(*mammogram.notices, *_notices(mammogram.pixels.dtype, located), *surroundings),
        crop_facts=located.crop_facts,
    )


def network_input(placed: PlacedView) -> NetworkInput:
    """The window of a placed view, standardized over all of its pixels."""
    return NetworkInput(
        image=_image(placed.pixels, placed.placement),
        placement=placed.placement,
        source=placed.source,
        view=placed.view,
        notices=placed.notices,
        crop_facts=placed.crop_facts,
    )


def _place(
    mask: Mask, breast: Breast, mammogram: Mammogram, network_shape: tuple[int, int]
) -> tuple[Placement, CropFacts]:
    rows, columns = mask.shape
    mirrored, is_mlo = mammogram.faces_left, mammogram.view.is_mlo
    top, left, bottom, right = box = window.crop_box(breast, (rows, columns))
    facts = window.crop_facts(breast, box, faces_left=mirrored)
    tissue = (mask[:, ::-1] if mirrored else mask)[top:bottom, left:right]
    center = window.best_center(tissue, facts, is_mlo=is_mlo, window=network_shape)
    crop_shape = (bottom - top, right - left)
    row_shift, column_shift = window.window_shift(center, crop_shape, is_mlo=is_mlo, window=network_shape)
    return placement_of(mammogram, box, center, (row_shift, column_shift), network_shape), facts


def placement_of(
    mammogram: Mammogram,
    crop: Box,
    center: tuple[int, int],
    shift: tuple[int, int],
    network_shape: tuple[int, int],
) -> Placement:
    """The placement of a view from its crop, an upright box, the best centre in it and the shift of the window."""
    rows, columns = mammogram.pixels.shape
    return Placement(
        source_shape=(rows, columns),
        crop_window=crop_window(crop, columns, mirrored=mammogram.faces_left),
        mirrored=mammogram.faces_left,
        row_shift=shift[0],
        column_shift=shift[1],
        best_center=center,
        network_shape=network_shape,
    )


def crop_window(box: Box, width: int, *, mirrored: bool) -> tuple[int, int, int, int]:
    """An upright box as (top, bottom, left, right) in the source frame."""
    top, left, bottom, right = box
    return (top, bottom, width - right, width - left) if mirrored else (top, bottom, left, right)


def _image(pixels: Pixels, placement: Placement) -> Float32:
    part = frame.seen(placement)
    top, left, bottom, right = part.network
    image = np.zeros(placement.network_shape, np.float32)
    image[top:bottom, left:right] = part.read(pixels)
    standardize(image)
    return image


def _notices(dtype: np.dtype[Any], located: Located) -> Iterator[Notice]:
    if dtype == np.uint8:
        yield Notice(code="8-bit", message="The image has 8 bits per pixel; the network was trained on 12 to 16.")
    distance = located.crop_facts.distance_from_starting_side
    if distance:
        message = f"The breast is {distance} pixels from the chest-wall edge of the image; expected 0."
        yield Notice(code="off-chest-wall", message=message)
    lost = 1 - located.tissue_in_window / located.tissue_in_crop
    if lost:
        rows, columns = located.placement.network_shape
        message = f"{100 * lost:.2g} % of the foreground is outside the {rows} x {columns} window."
        yield Notice(code="tissue-outside-window", message=message)
