"""Comparison picture of one image, with four panels: image, map of the reference, map of the candidate, difference."""

import cv2
import numpy as np
from PIL import Image, ImageDraw

from glam_deploy.agreement.answers import answer, fused
from glam_deploy.agreement.image import ImageAgreement
from glam_deploy.gate.trial import Examined
from glam_deploy.networks import NetworkSpec
from glam_deploy.outputs.overlay import PERCENTILES, window
from glam_deploy.outputs.panel import BACKGROUND, BANNER, COLOURS, FAINT, TEXT, Picture, Rgb, font, tint
from glam_deploy.outputs.report import RESEARCH_USE
from glam_deploy.records import Float32, Int64
from glam_deploy.runtime.patching import enlarge

GAP = 12
PIXEL = 4
"""Side of a picture's pixel in pixels of the network frame; the cell of every network's map is a multiple of it."""
HEAD = 108
"""Height in pixels of the text above the panels."""
STARK = 0.05
"""Difference of the fused maps that is drawn in full colour; smaller differences are proportional."""

_TITLES = ("image", "reference", "candidate", f"difference, full at {STARK}")


def picture(examined: Examined) -> Picture:
    """Draw the comparison picture: uint8 [856, 1968, 3], RGB; the panels show the network frame.

    Patches are boxes; those of the reference are white.
    """
    network, expected, found = examined.network, answer(examined.reference), examined.candidate
    maps = [enlarge(fused(each, network), network.grid_cell // PIXEL) for each in (expected, found)]
    grey = _grey(examined.reference.network_input.image, network)
    difference = np.clip(np.abs(maps[1] - maps[0]) / np.float32(STARK), 0, 1)
    reference, candidate = (expected["patch_locations"], TEXT), (found["patch_locations"], BANNER)
    panels = [
        _boxes(np.repeat(grey[:, :, None], 3, axis=2), network),
        _boxes(tint(grey, maps[0]), network, reference),
        _boxes(tint(grey, maps[1]), network, candidate),
        _boxes(tint(grey // 2, difference), network, reference, candidate),
    ]
    return _sheet(panels, network, examined.trial.agreement)


def _grey(image: Float32, network: NetworkSpec) -> Picture:
    rows, columns = (pixels // PIXEL for pixels in network.input_shape)
    small = cv2.resize(image - image.min(), (columns, rows), interpolation=cv2.INTER_AREA)
    tissue = small[small > 0]
    low, high = np.percentile(tissue, PERCENTILES) if tissue.size else (1.0, 2.0)
    return window(small, max(low, 1e-6), high)


def _boxes(panel: Picture, network: NetworkSpec, *marked: tuple[Int64, Rgb]) -> Image.Image:
    """Draw patch boxes in their colours; those of the second list are one pixel smaller, so that both are visible."""
    shown = Image.fromarray(panel)
    draw, side = ImageDraw.Draw(shown), network.selection.side // PIXEL if network.selection else 0
    for inset, (locations, colour) in enumerate(marked):
        for top, left in (locations // PIXEL).tolist():
            corners = (left + inset, top + inset, left + side - 1 - inset, top + side - 1 - inset)
            draw.rectangle(corners, outline=colour)
    return shown


def _sheet(panels: list[Image.Image], network: NetworkSpec, agreement: ImageAgreement) -> Picture:
    width, height = panels[0].size
    sheet = Image.new("RGB", (len(panels) * (width + GAP), HEAD + height + GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 8), _summary(agreement), fill=TEXT, font=font(22))
    draw.text((GAP, 40), f"{RESEARCH_USE}.", fill=FAINT, font=font(16))
    for number, label in enumerate(network.classes):
        draw.text((GAP + 220 + 110 * number, 40), label, fill=COLOURS[label], font=font(16))
    for number, (panel, title) in enumerate(zip(panels, _TITLES, strict=True)):
        left = GAP // 2 + number * (width + GAP)
        draw.text((left, HEAD - 32), title, fill=BANNER if title == "candidate" else TEXT, font=font(19))
        sheet.paste(panel, (left, HEAD))
    return np.asarray(sheet)


def _summary(agreement: ImageAgreement) -> str:
    """Heading of the picture; like all pictures, it contains no file name."""
    patches = agreement.patches
    moved, tied = sum(not patch.same for patch in patches), sum(patch.tied for patch in patches)
    lost = "lesion lost or new   " if any(one.lost for one in agreement.maps) else ""
    flips = f"   flipped: {', '.join(agreement.flips)}" if agreement.flips else ""
    reasons = f"   reasons: {', '.join(agreement.reasons)}" if agreement.reasons else ""
    return (
        f"{lost}lowest Dice {agreement.lowest:.4f}   patches moved {moved} of {len(patches)}, tied {tied}"
        f"{flips}{reasons}"
    )
