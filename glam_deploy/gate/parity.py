"""One image: the candidate's maps, patches and scores against the reference's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from glam_deploy.metrics import dice
from glam_deploy.networks import GLAM
from glam_deploy.patches.ties import are_tied
from glam_deploy.records import Float32, Int64
from glam_deploy.runtime.agreement import Answer, fused

THRESHOLDS = tuple(n / 10 for n in range(1, 10))
"""Saliency from which a cell counts as a lesion's."""

ALMOST_EMPTY = 1024
"""Input pixels, the area of 32 x 32: with less than this above a threshold on both sides there is nothing to judge."""

MAPS: Mapping[str, int] = {"global": GLAM.cell**2, "patch": GLAM.grid_cell**2, "fused": GLAM.grid_cell**2}
"""The maps that are compared, and the input pixels that a cell of each stands for."""

SCORES = ("y_global", "y_local", "y_fusion")


class State(StrEnum):
    """What two sides have above one threshold."""

    EMPTY = "empty"
    """Neither has a cell."""
    ALMOST_EMPTY = "almost empty"
    """Each less than ALMOST_EMPTY: Dice of a handful of cells says nothing."""
    LOST = "lost"
    """The reference has that much, the candidate less than half of it: never a matter of Dice."""
    NEW = "new"
    """The other way round."""
    JUDGED = "judged"


@dataclass(frozen=True, kw_only=True)
class MapParity:
    """One map of one class of one image."""

    map: str
    label: str
    dice: tuple[float | None, ...]
    """For each of THRESHOLDS; None where the state is not JUDGED. Of several patches the lowest."""
    states: tuple[State, ...]
    """For each of THRESHOLDS; of several patches the gravest."""

    @property
    def lowest(self) -> float:
        """Lowest Dice; 0 where a lesion is lost or new, 1 where nothing was to be judged."""
        if self.lost:
            return 0.0
        return min((value for value in self.dice if value is not None), default=1.0)

    @property
    def lost(self) -> bool:
        """Whether at any threshold one side has a lesion that the other has not."""
        return State.LOST in self.states or State.NEW in self.states


@dataclass(frozen=True, kw_only=True)
class PatchParity:
    """One patch slot."""

    same: bool
    tied: bool
    """It lies elsewhere, where the reference's own map rates it as high, `patches.ties.TIE` apart at most."""
    iou: float
    """Intersection over union of the two boxes, 0..1."""
    moved_px: float
    """Distance of the two corners, input pixels."""

    @property
    def agrees(self) -> bool:
        """Whether the reference could have chosen it."""
        return self.same or self.tied


def compare_maps(found: Answer, expected: Answer, forced: Float32 | None = None) -> tuple[MapParity, ...]:
    """Every map and class. `forced`: the candidate's maps of the reference's patches; None takes those that it has."""
    pairs = {
        "global": (found["saliency_global"][None], expected["saliency_global"][None]),
        "patch": (found["saliency_patches"] if forced is None else forced, expected["saliency_patches"]),
        "fused": (fused(found)[None], fused(expected)[None]),
    }
    return tuple(
        _compare(name, label, a[:, index], b[:, index])
        for name, (a, b) in pairs.items()
        for index, label in enumerate(GLAM.classes)
    )


def compare_patches(found: Answer, expected: Answer) -> tuple[PatchParity, ...]:
    """Slot by slot; the order counts, for later patches are written over earlier ones."""
    places = found["patch_locations"], expected["patch_locations"]
    ties = are_tied(places[0], expected["saliency_global"], GLAM)
    return tuple(_compare_boxes(a, b, best) for a, b, best in zip(*places, ties, strict=True))


def flips(found: Answer, expected: Answer, operating_point: float) -> tuple[str, ...]:
    """Scores whose decision is another one, as "y_global malignant".

    The decision is y_fusion's where the checkpoint has a fusion layer, else y_global's.
    """
    name = "y_fusion" if "y_fusion" in expected else "y_global"
    other = (found[name] >= operating_point) != (expected[name] >= operating_point)
    return tuple(f"{name} {label}" for label, flipped in zip(GLAM.classes, other, strict=True) if flipped)


def overlap(found: NDArray[np.bool_], expected: NDArray[np.bool_], cell: int) -> tuple[State, float | None]:
    """State and Dice of two masks whose cells stand for `cell` input pixels; Dice is None unless judged."""
    new, old = int(found.sum()) * cell, int(expected.sum()) * cell
    if max(new, old) < ALMOST_EMPTY:
        return (State.ALMOST_EMPTY if new or old else State.EMPTY), None
    if min(new, old) < ALMOST_EMPTY / 2:
        return (State.LOST if new < old else State.NEW), None
    return State.JUDGED, dice(found, expected)


_GRAVITY = (State.LOST, State.NEW, State.JUDGED, State.ALMOST_EMPTY, State.EMPTY)


def _compare(name: str, label: str, found: Float32, expected: Float32) -> MapParity:
    """Maps of one class, [slots, rows, columns]."""
    rows = [list(_overlaps(found, expected, threshold, MAPS[name])) for threshold in THRESHOLDS]
    return MapParity(
        map=name,
        label=label,
        dice=tuple(min((value for _, value in row if value is not None), default=None) for row in rows),
        states=tuple(min((state for state, _ in row), key=_GRAVITY.index) for row in rows),
    )


def _overlaps(found: Float32, expected: Float32, threshold: float, cell: int) -> Iterator[tuple[State, float | None]]:
    for a, b in zip(found >= np.float32(threshold), expected >= np.float32(threshold), strict=True):
        yield overlap(a, b, cell)


def _compare_boxes(found: Int64, expected: Int64, best: bool) -> PatchParity:
    off = np.abs(found - expected)
    common = int(np.prod(np.maximum(GLAM.patches.side - off, 0)))
    same = not off.any()
    return PatchParity(
        same=same,
        tied=best and not same,
        iou=common / (2 * GLAM.patches.side**2 - common),
        moved_px=float(np.hypot(*off.astype(float))),
    )
