"""Side panel of the overlay picture (scores, colour scales, patches, notices, banner), and the saliency colours."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from glam_deploy.outputs.report import RESEARCH_USE, UNCALIBRATED
from glam_deploy.records import Float32

Rgb = tuple[int, int, int]
Picture = NDArray[np.uint8]

COLOURS: Mapping[str, Rgb] = MappingProxyType({"benign": (0, 158, 255), "malignant": (255, 106, 0)})
"""Class -> colour, in the order of the networks' classes. Sky blue and orange can be distinguished with all common
types of colour blindness (Okabe & Ito 2008), and from grey."""

UNTOUCHED_BELOW = 0.1
"""Saliency up to this value does not change the image."""

MOST_OPAQUE = 0.65
"""Opacity at saliency 1, so that tissue remains visible."""


WIDTH = 360
"""Width of the panel in pixels."""
MIN_HEIGHT = 860
"""Minimum height in pixels, for six patches and four notices."""
BACKGROUND: Rgb = (18, 20, 23)
TEXT: Rgb = (236, 238, 240)
FAINT: Rgb = (150, 156, 163)
BANNER: Rgb = (255, 201, 60)
_MARGIN = 24
_COLUMNS = (_MARGIN, 246, WIDTH - _MARGIN)
_SCALE_SIZE = (20, 212)
_SCALE_LEFT = WIDTH - _MARGIN - _SCALE_SIZE[1]
_NOTICES_SHOWN = 4
_SCORE_NAMES = {"y_global": "Global", "y_local": "Local (patches)", "y_fusion": "Fusion"}


def opacity(saliency: Float32) -> Float32:
    """Opacity of saliency values, elementwise: 0 up to 0.1, then linear up to 0.65 at 1; float32 of any shape.

    The scale is the same for all pictures, so that pictures can be compared.
    """
    above = (saliency - np.float32(UNTOUCHED_BELOW)) / np.float32(1 - UNTOUCHED_BELOW)
    shade: Float32 = np.float32(MOST_OPAQUE) * np.clip(above, 0, 1)
    return shade


def tint(grey: Picture, saliency: Float32) -> Picture:
    """Blend the two saliency maps over a grey image, malignant on top.

    `grey`: uint8 [rows, columns]; `saliency`: float32 [2, rows, columns], 0..1, same frame. Returns uint8
    [rows, columns, 3], RGB.
    """
    picture = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)
    touched = (saliency > UNTOUCHED_BELOW).any(axis=0)
    mixed = picture[touched].astype(np.float32)
    for name, values in zip(COLOURS, saliency, strict=True):
        mixed += opacity(values[touched])[:, None] * (np.array(COLOURS[name], np.float32) - mixed)
    picture[touched] = np.rint(mixed)
    return picture


if TYPE_CHECKING:
    from glam_deploy.runtime.result import Result


def panel(result: "Result", height: int, *, hatched: bool = False) -> Picture:
    """Draw the side panel: uint8 [height, 360, 3], RGB; `height` is at least `MIN_HEIGHT`.

    `hatched`: whether the picture beside it has hatched tissue, which a line then explains.

    It contains no file name or identifier, because pictures are often passed on without care for privacy.
    """
    pen = _Pen(height)
    _heading(pen, result)
    _scores(pen, result)
    _scales(pen)
    if hatched:
        pen.line("Hatched: outside the network's window", 16, FAINT)
    _patches(pen, result)
    _notices(pen, result)
    _banner(pen)
    return np.asarray(pen.image)


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's built-in font at `size` pixels, which is the same on all machines."""
    return ImageFont.load_default(size)


class _Pen:
    """Draws lines of text from top to bottom."""

    def __init__(self, height: int) -> None:
        self.image = Image.new("RGB", (WIDTH, height), BACKGROUND)
        self.draw = ImageDraw.Draw(self.image)
        self.y = _MARGIN

    def line(self, text: str, size: int = 19, colour: Rgb = TEXT) -> None:
        self.draw.text((_MARGIN, self.y), text, fill=colour, font=font(size))
        self.y += round(size * 1.45)

    def row(self, cells: tuple[str, str, str], size: int = 19, colours: tuple[Rgb, ...] = (TEXT,) * 3) -> None:
        """Draw a label (left-aligned) and two numbers under the names of the classes (right-aligned)."""
        for text, x, colour, anchor in zip(cells, _COLUMNS, colours, ("la", "ra", "ra"), strict=True):
            self.draw.text((x, self.y), text, fill=colour, font=font(size), anchor=anchor)
        self.y += round(size * 1.45)

    def rule(self) -> None:
        self.y += 12
        self.draw.line((_MARGIN, self.y, WIDTH - _MARGIN, self.y), fill=FAINT)
        self.y += 12

    def section(self, title: str) -> None:
        self.rule()
        benign, malignant = COLOURS
        self.row((title, benign, malignant), 16, (FAINT, *COLOURS.values()))


def _heading(pen: _Pen, result: "Result") -> None:
    view = result.input.view
    pen.line(f"{result.network.title} saliency", 18, FAINT)
    pen.line(view.value if view else "View not known", 36)


def _scores(pen: _Pen, result: "Result") -> None:
    pen.section("Image scores")
    for name, score in result.predictions.items():
        pen.row((_SCORE_NAMES[name], f"{score['benign']:.3f}", f"{score['malignant']:.3f}"))


def _scales(pen: _Pen) -> None:
    """Draw the colour scales on mid-grey, with the same function as the picture."""
    pen.rule()
    pen.line("Saliency", 16, FAINT)
    pen.y += 6
    for name in COLOURS:
        pen.draw.text((_MARGIN, pen.y - 2), name, fill=COLOURS[name], font=font(18))
        pen.image.paste(Image.fromarray(_scale(name)), (_SCALE_LEFT, pen.y))
        pen.y += 28
    for value, anchor in (0, "la"), (0.5, "ma"), (1, "ra"):
        place = (_SCALE_LEFT + value * _SCALE_SIZE[1], pen.y - 4)
        pen.draw.text(place, f"{value:g}", fill=FAINT, font=font(15), anchor=anchor)
    pen.y += 20


def _scale(name: str) -> Picture:
    rows, columns = _SCALE_SIZE
    saliency = np.zeros((len(COLOURS), rows, columns), np.float32)
    saliency[list(COLOURS).index(name)] = np.linspace(0, 1, columns)
    return tint(np.full((rows, columns), 96, np.uint8), saliency)


def _patches(pen: _Pen, result: "Result") -> None:
    """Draw a line per patch: attention, and the largest saliency of each class in the patch's own map."""
    shares = [""] * len(result.patch_locations)
    if result.attention is not None:
        shares = [f"attention  {share:.2f}" for share in result.attention]
    if result.saliency_patches is None:
        if shares:
            pen.rule()
            pen.line("Patches", 17, FAINT)
        for k, share in enumerate(shares):
            pen.line(f"{k + 1}   {share}")
        return
    pen.section("Patch peaks")
    peaks = result.saliency_patches.max(axis=(2, 3)).tolist()
    for k, (share, (benign, malignant)) in enumerate(zip(shares, peaks, strict=True)):
        pen.row((f"{k + 1}   {share}", f"{benign:.3f}", f"{malignant:.3f}"))


def _notices(pen: _Pen, result: "Result") -> None:
    """Draw the notice codes; the messages are in the report."""
    if not result.notices:
        return
    pen.rule()
    pen.line("Notices (see the report)", 16, FAINT)
    for notice in result.notices[:_NOTICES_SHOWN]:
        pen.line(notice.code, 17, BANNER)
    if (hidden := len(result.notices) - _NOTICES_SHOWN) > 0:
        pen.line(f"and {hidden} more", 16, FAINT)


def _banner(pen: _Pen) -> None:
    top = pen.image.height - 84
    pen.draw.rectangle((0, top, WIDTH, pen.image.height), fill=BANNER)
    middle = WIDTH // 2
    pen.draw.text((middle, top + 30), RESEARCH_USE.upper(), fill=(0, 0, 0), font=font(25), anchor="mm")
    pen.draw.text((middle, top + 60), UNCALIBRATED, fill=(0, 0, 0), font=font(15), anchor="mm")
