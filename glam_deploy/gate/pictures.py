"""One image as four pictures side by side: the image, the reference's map, the candidate's, and where they differ."""

import cv2
import numpy as np
from PIL import Image, ImageDraw

from glam_deploy.gate.trial import Examined, Row
from glam_deploy.networks import GLAM
from glam_deploy.outputs.overlay import PERCENTILES, window
from glam_deploy.outputs.panel import BACKGROUND, BANNER, FAINT, TEXT, font
from glam_deploy.outputs.report import RESEARCH_USE
from glam_deploy.outputs.tint import COLOURS, Picture, Rgb, tint
from glam_deploy.records import Float32, Int64
from glam_deploy.runtime.agreement import answer, fused

GAP = 12
HEAD = 108
"""Pixels above the pictures for the text."""
STARK = 0.05
"""A difference of the fused map from which a cell is painted in full; below it in proportion."""

_TITLES = ("image", "reference", "candidate", f"difference, full at {STARK}")


def picture(examined: Examined) -> Picture:
    """uint8 [856, 1968, 3], RGB, network frame at a quarter of its size; patches are boxes, white the reference's."""
    expected, found = answer(examined.reference), examined.candidate
    maps = fused(expected), fused(found)
    grey = _grey(examined.reference.network_input.image)
    difference = np.clip(np.abs(maps[1] - maps[0]) / np.float32(STARK), 0, 1)
    places = expected["patch_locations"], found["patch_locations"]
    panels = [
        _boxes(np.repeat(grey[:, :, None], 3, axis=2)),
        _boxes(tint(grey, maps[0]), (places[0], TEXT)),
        _boxes(tint(grey, maps[1]), (places[1], BANNER)),
        _boxes(tint(grey // 2, difference), (places[0], TEXT), (places[1], BANNER)),
    ]
    return _sheet(panels, examined.row)


def _grey(image: Float32) -> Picture:
    rows, columns = GLAM.grid_shape
    small = cv2.resize(image - image.min(), (columns, rows), interpolation=cv2.INTER_AREA)
    tissue = small[small > 0]
    low, high = np.percentile(tissue, PERCENTILES) if tissue.size else (1.0, 2.0)
    return window(small, max(low, 1e-6), high)


def _boxes(panel: Picture, *marked: tuple[Int64, Rgb]) -> Image.Image:
    """Where two boxes are the same, the later one's colour is seen a pixel inside the first's."""
    shown = Image.fromarray(panel)
    draw, side = ImageDraw.Draw(shown), GLAM.patches.side // GLAM.grid_cell
    for inset, (places, colour) in enumerate(marked):
        for top, left in (places // GLAM.grid_cell).tolist():
            corners = (left + inset, top + inset, left + side - 1 - inset, top + side - 1 - inset)
            draw.rectangle(corners, outline=colour)
    return shown


def _sheet(panels: list[Image.Image], row: Row) -> Picture:
    width, height = panels[0].size
    sheet = Image.new("RGB", (len(panels) * (width + GAP), HEAD + height + GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 8), _summary(row), fill=TEXT, font=font(22))
    draw.text((GAP, 40), f"{RESEARCH_USE}.", fill=FAINT, font=font(16))
    for number, label in enumerate(GLAM.classes):
        draw.text((GAP + 220 + 110 * number, 40), label, fill=COLOURS[label], font=font(16))
    for number, (panel, title) in enumerate(zip(panels, _TITLES, strict=True)):
        left = GAP // 2 + number * (width + GAP)
        draw.text((left, HEAD - 32), title, fill=BANNER if title == "candidate" else TEXT, font=font(19))
        sheet.paste(panel, (left, HEAD))
    return np.asarray(sheet)


def _summary(row: Row) -> str:
    """Holds no file name, as other pictures do not."""
    moved, tied = sum(not patch.same for patch in row.patches), sum(patch.tied for patch in row.patches)
    lost = "lesion lost or new   " if any(parity.lost for parity in row.maps) else ""
    flips = f"   flipped: {', '.join(row.flips)}" if row.flips else ""
    blame = f"   to blame: {', '.join(row.reasons)}" if row.reasons else ""
    return (
        f"{lost}lowest Dice {row.lowest:.4f}   patches moved {moved} of {len(row.patches)}, tied {tied}{flips}{blame}"
    )
