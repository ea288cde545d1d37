"""Result -> a picture: the mammogram in its own frame, saliency in two colours, numbered patches, and a side panel."""

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from glam_deploy.errors import UsageError
from glam_deploy.outputs import panel
from glam_deploy.outputs.panel import Picture, tint
from glam_deploy.records import Box, Pixels

if TYPE_CHECKING:
    from glam_deploy.runtime.result import Result

LONGEST_SIDE = 1600
"""Pixels: neither side of a picture is longer."""

PERCENTILES = (1.0, 99.8)
"""Of the foreground in the crop window; between them lie all greys but the darkest."""

DARKEST_TISSUE = 20
"""Grey of the lower percentile: the skin line stays apart from the black background."""

THINNEST = 3
"""Pixels: a box needs as many for its three outlines."""

_LABEL_SIZE = 22
_LABEL_GAP = 4


def overlay(pixels: Pixels, result: "Result") -> Picture:
    """The picture of one result: uint8 [height, width, 3], RGB, neither side over 1600 pixels.

    `pixels`: uint8, uint16 or float32 [rows, columns], source frame, background 0, as in `Mammogram` (of a
    standardized input: its image less its minimum). The image keeps its sides' ratio and is never enlarged; text
    stands in a panel to its right. Raises UsageError where `pixels` is not the image that the result was made from, as
    far as shape and type tell.
    """
    _require_source_image(pixels, result)
    shape = shown_shape(pixels.shape)
    picture = tint(grey(pixels, result.input.placement.crop_window, shape), result.saliency_preview(shape))
    return _beside_panel(_with_patches(picture, result, pixels.shape), result)


def to_png(picture: Picture) -> bytes:
    """A picture (uint8 [height, width, 3], RGB) as the bytes of a PNG file."""
    # measured: half the time of the default filter, and no larger
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB]
    return bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)[1])


def shown_shape(source_shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of an image in its picture, beside the panel."""
    rows, columns = source_shape
    scale = min(1.0, LONGEST_SIDE / rows, (LONGEST_SIDE - panel.WIDTH) / columns)
    return max(1, round(rows * scale)), max(1, round(columns * scale))


def shown_part(overlay: Picture, shape: tuple[int, int]) -> Picture:
    """What of a picture is the image of `shown_shape`, without the panel: a view of it, [rows, columns, 3]."""
    rows, columns = shape
    top = (len(overlay) - rows) // 2
    return overlay[top : top + rows, :columns]


def window(pixels: Pixels, low: float, high: float) -> Picture:
    """Pixel values as greys, same shape, uint8: 0 is black, `low` nearly black, `high` and above white."""
    values = pixels.astype(np.float32)
    dark = values * np.float32(DARKEST_TISSUE / low)
    tissue = DARKEST_TISSUE + (values - np.float32(low)) * np.float32((255 - DARKEST_TISSUE) / max(high - low, 1e-9))
    return np.clip(np.where(values < low, dark, tissue), 0, 255).astype(np.uint8)


def _require_source_image(pixels: Pixels, result: "Result") -> None:
    expected = tuple(result.input.placement.source_shape)
    if pixels.shape != expected or pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise UsageError(
            f"an overlay was asked for on pixels of shape {pixels.shape} and type {pixels.dtype}; this result was made "
            f"from an image of shape {expected}, of uint8, uint16 or float32: pass Mammogram.pixels of that image"
        )


def grey(pixels: Pixels, crop_window: Box, shape: tuple[int, int]) -> Picture:
    """The image under an overlay: uint8 `shape`. `pixels` as of `overlay`, `crop_window` as of `Placement`."""
    rows, columns = shape
    low, high = _foreground_range(pixels, crop_window)
    return window(cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA), low, high)


def _foreground_range(pixels: Pixels, crop_window: Box) -> NDArray[np.float64]:
    """Percentiles of the breast: the crop window leaves out most film labels, every fourth pixel is plenty."""
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
    """Patches that share a place share a label; one that is all padding has no place in the image."""
    orders: dict[Box, list[int]] = {}
    for order, box in enumerate(result.patch_boxes_in_source, start=1):
        if box is not None:
            orders.setdefault(box, []).append(order)
    return orders


def _scaled(box: Box, source_shape: tuple[int, ...], shape: tuple[int, ...]) -> Box:
    down, across = shape[0] / source_shape[0], shape[1] / source_shape[1]
    top, left = round(box[0] * down), round(box[1] * across)
    # a patch that is nearly all padding still gets an outline
    return top, left, max(round(box[2] * down), top + THINNEST), max(round(box[3] * across), left + THINNEST)


def _draw_box(draw: ImageDraw.ImageDraw, box: Box, label: str) -> None:
    """A white outline between two black ones, seen on tissue and background alike, and its number above or inside."""
    top, left, bottom, right = box
    for inset, colour in ((-1, "black"), (1, "black"), (0, "white")):
        draw.rectangle((left + inset, top + inset, right - 1 - inset, bottom - 1 - inset), outline=colour)
    above = top >= _LABEL_SIZE + _LABEL_GAP
    place = (left, top - _LABEL_GAP) if above else (left + _LABEL_GAP, top + _LABEL_GAP)
    font, anchor = panel.font(_LABEL_SIZE), "lb" if above else "lt"
    draw.text(place, label, fill="white", font=font, anchor=anchor, stroke_width=2, stroke_fill="black")


def _beside_panel(picture: Picture, result: "Result") -> Picture:
    """Image left, panel right; an image less tall than the panel is centred on black."""
    rows, columns, _ = picture.shape
    height = max(rows, panel.MIN_HEIGHT)
    canvas = np.zeros((height, columns + panel.WIDTH, 3), np.uint8)
    shown_part(canvas, (rows, columns))[:] = picture
    canvas[:, columns:] = panel.panel(result, height)
    return canvas
