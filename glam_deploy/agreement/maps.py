"""Saliency maps and patches of one image against the reference's, and the rule for ties between patches."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from glam_deploy.agreement.answers import Answer, fused
from glam_deploy.agreement.limits import ALMOST_EMPTY, THRESHOLDS
from glam_deploy.agreement.metrics import dice
from glam_deploy.networks import NetworkSpec
from glam_deploy.records import Float32, Int64
from glam_deploy.runtime import patching


class State(StrEnum):
    """What two maps have above one threshold."""

    EMPTY = "empty"
    """Neither has a cell."""
    ALMOST_EMPTY = "almost empty"
    """Each has less than ALMOST_EMPTY: Dice of a few cells is not meaningful."""
    LOST = "lost"
    """The reference has ALMOST_EMPTY or more, the candidate less than half of ALMOST_EMPTY; Dice does not count."""
    NEW = "new"
    """The other way round."""
    JUDGED = "judged"


@dataclass(frozen=True, kw_only=True)
class MapAgreement:
    """One map of one class of one image."""

    map: str
    """A key of `map_cells`."""
    label: str
    dice: tuple[float | None, ...]
    """For each of THRESHOLDS; None where the state is not JUDGED. Of several patches the lowest."""
    states: tuple[State, ...]
    """For each of THRESHOLDS; of several patches the most serious."""

    @property
    def lowest(self) -> float:
        """Lowest Dice; 0 where a lesion is lost or new, 1 where nothing was judged."""
        if self.lost:
            return 0.0
        return min((value for value in self.dice if value is not None), default=1.0)

    @property
    def lost(self) -> bool:
        """Whether at any threshold one side has a lesion that the other has not."""
        return State.LOST in self.states or State.NEW in self.states


def map_cells(network: NetworkSpec) -> Mapping[str, int]:
    """The maps that are compared -> the input pixels that a cell of each stands for."""
    cells = {"global": network.cell**2}
    if network.selection and network.selection.map_side:
        cells |= {"patch": network.grid_cell**2, "fused": network.grid_cell**2}
    return cells


def compare_maps(
    found: Answer, expected: Answer, network: NetworkSpec, forced: Float32 | None = None
) -> tuple[MapAgreement, ...]:
    """Every map and class.

    `forced`: the candidate's maps of the reference's patches, float32 [K, C, side, side]; None takes those of `found`.
    """
    agreements: list[MapAgreement] = []
    for name, cell in map_cells(network).items():
        a, b = _sides(name, network, found, expected, forced)
        labels = enumerate(network.classes)
        agreements += [_compare(name, label, a[:, index], b[:, index], cell) for index, label in labels]
    return tuple(agreements)


def overlap(found: NDArray[np.bool_], expected: NDArray[np.bool_], cell: int) -> tuple[State, float | None]:
    """State and Dice of two masks whose cells stand for `cell` input pixels; Dice is None unless JUDGED."""
    new, old = int(found.sum()) * cell, int(expected.sum()) * cell
    if max(new, old) < ALMOST_EMPTY:
        return (State.ALMOST_EMPTY if new or old else State.EMPTY), None
    if min(new, old) < ALMOST_EMPTY / 2:
        return (State.LOST if new < old else State.NEW), None
    return State.JUDGED, dice(found, expected)


_MOST_SERIOUS_FIRST = (State.LOST, State.NEW, State.JUDGED, State.ALMOST_EMPTY, State.EMPTY)


def _sides(
    name: str, network: NetworkSpec, found: Answer, expected: Answer, forced: Float32 | None
) -> tuple[Float32, Float32]:
    """The candidate's and the reference's map: float32 [slots, C, rows, columns]."""
    if name == "patch":
        return found["saliency_patches"] if forced is None else forced, expected["saliency_patches"]
    if name == "fused":
        return fused(found, network)[None], fused(expected, network)[None]
    return found["saliency_global"][None], expected["saliency_global"][None]


def _compare(name: str, label: str, found: Float32, expected: Float32, cell: int) -> MapAgreement:
    """Maps of one class: float32 [slots, rows, columns]."""
    rows = [list(_overlaps(found, expected, threshold, cell)) for threshold in THRESHOLDS]
    return MapAgreement(
        map=name,
        label=label,
        dice=tuple(min((value for _, value in row if value is not None), default=None) for row in rows),
        states=tuple(min((state for state, _ in row), key=_MOST_SERIOUS_FIRST.index) for row in rows),
    )


def _overlaps(found: Float32, expected: Float32, threshold: float, cell: int) -> Iterator[tuple[State, float | None]]:
    for a, b in zip(found >= np.float32(threshold), expected >= np.float32(threshold), strict=True):
        yield overlap(a, b, cell)


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
    heat = patching.contrast_stretch(saliency)[0].sum(axis=0)
    window = network.patches.window
    for row, column in (locations // network.cell).tolist():
        sums = patching.window_sums(heat, window)
        yield bool(sums[row, column] >= sums.max() * (1 - tie(network)))
        heat[row : row + window, column : column + window] = 0


def compare_patches(found: Answer, expected: Answer, network: NetworkSpec) -> tuple[PatchAgreement, ...]:
    """Slot by slot; the order counts, because later patches are written over earlier ones. () without patches."""
    if network.selection is None:
        return ()
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
