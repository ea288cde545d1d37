"""Patches of two answers, slot by slot, and the rule for ties between them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from glam_deploy.agreement.answers import Answer
from glam_deploy.networks import NetworkSpec
from glam_deploy.patches import host
from glam_deploy.records import Float32, Int64


@dataclass(frozen=True, kw_only=True)
class PatchAgreement:
    """One patch slot."""

    same: bool
    tied: bool
    """It lies elsewhere, in a window that is tied with the largest of the reference's map (`are_tied`)."""
    iou: float
    """Intersection over union of the two boxes, 0..1."""
    moved_px: float
    """Distance between the two corners, input pixels."""

    @property
    def agrees(self) -> bool:
        """Whether the reference could have chosen this place."""
        return self.same or self.tied


def tie(network: NetworkSpec) -> float:
    """Relative difference of two window sums below which FP32 does not decide which is larger: 7.4e-6 for GLAM.

    A sum of terms >= 0 after 2 (window - 1) FP32 additions is off by at most as many roundings of 2^-24 each (Higham
    2002, section 4.2), and two sums are compared. Engines in FP32 choose differently among such windows.
    """
    return 2 * 2 * (network.patches.window - 1) * 2.0**-24


def are_tied(locations: Int64, saliency: Float32, network: NetworkSpec) -> Iterator[bool]:
    """For each patch in order: is its window sum the largest of the reference's map, or within `tie` of it?

    The windows of the patches before it are set to zero first, as the selection does.
    `locations`: int64 [K, 2], upper-left input pixels. `saliency`: the reference's global map, float32 [C, *map_shape].
    """
    heat = host.contrast_stretch(saliency)[0].sum(axis=0)
    window = network.patches.window
    for row, column in (locations // network.cell).tolist():
        sums = host.window_sums(heat, window)
        yield bool(sums[row, column] >= sums.max() * (1 - tie(network)))
        heat[row : row + window, column : column + window] = 0


def compare_patches(found: Answer, expected: Answer, network: NetworkSpec) -> tuple[PatchAgreement, ...]:
    """Slot by slot; the order counts, because later patches are written over earlier ones."""
    places = found["patch_locations"], expected["patch_locations"]
    ties = are_tied(places[0], expected["saliency_global"], network)
    side = network.patches.side
    return tuple(_compare_boxes(a, b, side, tied=tied) for a, b, tied in zip(*places, ties, strict=True))


def _compare_boxes(found: Int64, expected: Int64, side: int, *, tied: bool) -> PatchAgreement:
    off = np.abs(found - expected)
    common = int(np.prod(np.maximum(side - off, 0)))
    same = not off.any()
    return PatchAgreement(
        same=same,
        tied=tied and not same,
        iou=common / (2 * side**2 - common),
        moved_px=float(np.hypot(*off.astype(float))),
    )
