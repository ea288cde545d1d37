"""The overlay picture of a result: the mammogram in its source frame, coloured saliency, patches, and a side panel."""

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from glam_deploy.errors import UsageError
from glam_deploy.outputs import panel
from glam_deploy.outputs.panel import Picture, tint
from glam_deploy.preprocess import frame
from glam_deploy.records import Box, Pixels, Placement

if TYPE_CHECKING:
    from glam_deploy.runtime.result import Result

LONGEST_SIDE = 1600
"""Maximum width and height of a picture in pixels."""

PERCENTILES = (1.0, 99.8)
"""Percentiles of the foreground in the crop window that are mapped to DARKEST_TISSUE and 255."""

DARKEST_TISSUE = 20
"""Grey value of the lower percentile, so that the skin line differs from the black background."""

THINNEST = 3
"""Minimum width and height of a box in pixels, for its three outlines."""

HATCH_PERIOD, HATCH_WIDTH = 16, 2
"""Distance of the lines of the hatching along a row, and the width of each of its two colours, in pixels."""

_LABEL_SIZE = 22
_LABEL_GAP = 4


def overlay(pixels: Pixels, result: "Result") -> Picture:
    """Draw the overlay picture of one result: uint8 [height, width, 3], RGB, at most 1600 x 1600 pixels.

    `pixels`: uint8, uint16 or float32 [rows, columns], source frame, background 0, as in `Mammogram` (for a
    standardized input: its image minus its minimum). The image keeps its aspect ratio and is never enlarged; the text
    is in a panel to its right. Foreground of the crop that lies outside the network's window is hatched. Raises
    UsageError if shape or type of `pixels` differ from those of the result's image.
    """
    _require_source_image(pixels, result)
    shape = shown_shape(pixels.shape)
    placement = result.input.placement
    picture = tint(grey(pixels, placement.crop_window, shape), result.saliency_preview(shape))
    unseen = unseen_foreground(pixels, placement, shape)
    _hatch(picture, unseen)
    return _beside_panel(_with_patches(picture, result, pixels.shape), result, hatched=bool(unseen.any()))


def to_png(picture: Picture) -> bytes:
    """Encode a picture (uint8 [height, width, 3], RGB) as PNG."""
    # measured: half the time of the default filter, and not larger
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB]
    return bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)[1])


def shown_shape(source_shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of the image in its picture, without the panel."""
    rows, columns = source_shape
    scale = min(1.0, LONGEST_SIDE / rows, (LONGEST_SIDE - panel.WIDTH) / columns)
    return max(1, round(rows * scale)), max(1, round(columns * scale))


def shown_part(overlay: Picture, shape: tuple[int, int]) -> Picture:
    """The part of a picture without the panel, of shape `shown_shape`, as a numpy view [rows, columns, 3]."""
    rows, columns = shape
    top = (len(overlay) - rows) // 2
    return overlay[top : top + rows, :columns]


def window(pixels: Pixels, low: float, high: float) -> Picture:
    """Map pixel values to greys, uint8 of the same shape: 0 to 0, `low` to DARKEST_TISSUE, `high` and above to 255."""
    values = pixels.astype(np.float32)
    dark = values * np.float32(DARKEST_TISSUE / low)
    tissue = DARKEST_TISSUE + (values - np.float32(low)) * np.float32((255 - DARKEST_TISSUE) / max(high - low, 1e-9))
    return np.clip(np.where(values < low, dark, tissue), 0, 255).astype(np.uint8)


def _require_source_image(pixels: Pixels, result: "Result") -> None:
    expected = tuple(result.input.placement.source_shape)
    if pixels.shape != expected or pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise UsageError(
            f"pixels for the overlay have shape {pixels.shape} and type {pixels.dtype}, expected shape {expected} and "
            f"uint8, uint16 or float32: pass Mammogram.pixels of the image of this result"
        )


def grey(pixels: Pixels, crop_window: Box, shape: tuple[int, int]) -> Picture:
    """The grey image under the overlay, uint8 [*shape]. `pixels`: as in `overlay`; `crop_window`: as in `Placement`."""
    rows, columns = shape
    low, high = _foreground_range(pixels, crop_window)
    return window(cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA), low, high)


def unseen_foreground(pixels: Pixels, placement: Placement, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Foreground of the crop that lies outside the network's window: bool [*shape], a picture of the whole image.

    `pixels`: as in `overlay`. It is what the notice `tissue-outside-window` counts, and film labels in the crop.
    """
    unseen = np.zeros(shape, np.bool_)
    top, bottom, left, right = placement.crop_window
    unseen[_part((top, left, bottom, right), pixels.shape, shape)] = True
    unseen[_part(frame.seen(placement).source, pixels.shape, shape)] = False
    if unseen.any():
        unseen &= cv2.resize(pixels, shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return unseen


def _part(box: Box, source_shape: tuple[int, ...], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The part of a picture of `shape` that shows this box of the source frame."""
    down, across = shape[0] / source_shape[0], shape[1] / source_shape[1]
    return slice(round(box[0] * down), round(box[2] * down)), slice(round(box[1] * across), round(box[3] * across))


def _hatch(picture: Picture, where: NDArray[np.bool_]) -> None:
    """Draw diagonal lines, white beside black so that they are visible on every grey, into the pixels `where`."""
    rows, columns = np.nonzero(where)
    phase = (rows + columns) % HATCH_PERIOD
    for colour, first in ((255, 0), (0, HATCH_WIDTH)):
        line = (phase >= first) & (phase < first + HATCH_WIDTH)
        picture[rows[line], columns[line]] = colour


def _foreground_range(pixels: Pixels, crop_window: Box) -> NDArray[np.float64]:
    """PERCENTILES of the foreground in the crop window, which excludes most film labels; every fourth pixel is used."""
    top, bottom, left, right = crop_window
    sample = pixels[top:bottom:4, left:right:4]
    foreground = sample[sample > 0]
    return np.percentile(foreground, PERCENTILES) if foreground.size else np.array([1.0, 2.0])


def _with_patches(picture: Picture, result: "Result", source_shape: tuple[int, ...]) -> Picture:
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for box, orders in _orders_by_box(result).items():
        _draw_box(draw, _scaled(box, source_shape, picture.shape), ", ".join(map(str, orders)))
    return np.asarray(image)


def _orders_by_box(result: "Result") -> dict[Box, list[int]]:
    """Box in the source frame -> numbers of the patches at this position; patches completely in the padding are left
    out."""
    orders: dict[Box, list[int]] = {}
    for order, box in enumerate(result.patch_boxes_in_source, start=1):
        if box is not None:
            orders.setdefault(box, []).append(order)
    return orders


def _scaled(box: Box, source_shape: tuple[int, ...], shape: tuple[int, ...]) -> Box:
    down, across = shape[0] / source_shape[0], shape[1] / source_shape[1]
    top, left = round(box[0] * down), round(box[1] * across)
    # minimum size, so that a patch that is mostly padding has a visible outline
    return top, left, max(round(box[2] * down), top + THINNEST), max(round(box[3] * across), left + THINNEST)


def _draw_box(draw: ImageDraw.ImageDraw, box: Box, label: str) -> None:
    """Draw a white outline between two black ones, visible on tissue and background, and its number above or inside."""
    top, left, bottom, right = box
    for inset, colour in ((-1, "black"), (1, "black"), (0, "white")):
        draw.rectangle((left + inset, top + inset, right - 1 - inset, bottom - 1 - inset), outline=colour)
    above = top >= _LABEL_SIZE + _LABEL_GAP
    place = (left, top - _LABEL_GAP) if above else (left + _LABEL_GAP, top + _LABEL_GAP)
    font, anchor = panel.font(_LABEL_SIZE), "lb" if above else "lt"
    draw.text(place, label, fill="white", font=font, anchor=anchor, stroke_width=2, stroke_fill="black")


def _beside_panel(picture: Picture, result: "Result", *, hatched: bool) -> Picture:
    """Join the image (left) and the panel (right); an image lower than the panel is centred vertically on black."""
    rows, columns, _ = picture.shape
    height = max(rows, panel.MIN_HEIGHT)
    canvas = np.zeros((height, columns + panel.WIDTH, 3), np.uint8)
    shown_part(canvas, (rows, columns))[:] = picture
    canvas[:, columns:] = panel.panel(result, height, hatched=hatched)
    return canvas
