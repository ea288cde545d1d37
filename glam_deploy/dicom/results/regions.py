"""Saliency maps -> regions: connected components above a threshold, with outline, box, centre, peak and area."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from glam_deploy.dicom.results.records import Algorithm, Point, Reference, Region, ViewFinding, ViewSummary
from glam_deploy.dicom.results.source import read_source
from glam_deploy.preprocess import SourceMaps
from glam_deploy.records import Float32

MOST = 20
"""Largest number of regions of one class in the report of a view; a useful saliency map has a few."""

MOST_POINTS = 1000
"""Largest number of points of an outline; an element of an SR object can hold up to 8191 (PS3.5 section 7.1.2)."""

Spacing = tuple[float, float]
"""(row, column) spacing of pixels in mm."""


def summarize(finding: ViewFinding, algorithm: Algorithm, *, segmentation: Reference | None) -> ViewSummary:
    """Content of the reports for this view. `segmentation` is the SEG object made of it, None if there is none.

    Raises DicomError if the source cannot be read.
    """
    spacing = _spacing(read_source(finding.source).header.spacing_mm)
    classes = algorithm.network.classes
    pieces = [pieces_of(finding.saliency, n, name, algorithm.thresholds[name]) for n, name in enumerate(classes)]
    return ViewSummary(
        shape=finding.saliency.shape[1:],
        spacing_mm=spacing,
        scores={name: dict(score) for name, score in finding.scores.items()},
        regions=tuple(piece.region(n, spacing) for piece in pieces for n in piece.by_peak()[:MOST]),
        regions_left_out=sum(max(0, len(piece.by_peak()) - MOST) for piece in pieces),
        boxes=tuple(finding.boxes),
        notices=tuple(finding.notices),
        segmentation=segmentation,
    )


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """Connected components of one class in one view, numbered from 1.

    Arrays cover the part of the view that contains all of them; its upper-left pixel is `origin`.
    """

    name: str
    origin: tuple[int, int]
    """(row, column), source frame."""
    values: Float32
    """float32 [rows, columns], 0..1."""
    labels: NDArray[np.int32]
    """int32 [rows, columns]: number of the component of each pixel, 0 for none."""
    stats: NDArray[np.int32]
    """int32 [components + 1, 5]: left, top, width, height, pixels."""
    centres: NDArray[np.float64]
    """float64 [components + 1, 2]: mean (column, row) of the pixel indices."""
    peaks: Float32
    """float32 [components + 1]: largest value."""

    def by_peak(self) -> list[int]:
        """Numbers of all components by descending peak, then from the top, then from the left."""
        order = np.lexsort((self.stats[:, 0], self.stats[:, 1], -self.peaks))
        return [n for n in order.tolist() if n != 0]

    def region(self, n: int, spacing: Spacing | None) -> Region:
        """The n-th component as a region in the source frame."""
        left, top, width, height, pixels = self.stats[n].tolist()
        window = slice(top, top + height), slice(left, left + width)
        inside = self.labels[window] == n
        row, column = np.argwhere(inside & (self.values[window] == self.peaks[n]))[0].tolist()
        top, left = top + self.origin[0], left + self.origin[1]
        return Region(
            label=self.name,
            outline=outline(inside, top, left),
            box=(top, left, top + height, left + width),
            centre=(
                self.origin[0] + float(self.centres[n, 1]) + 0.5,
                self.origin[1] + float(self.centres[n, 0]) + 0.5,
            ),
            peak=float(self.peaks[n]),
            peak_at=(top + row + 0.5, left + column + 0.5),
            pixels=pixels,
            area_mm2=None if spacing is None else pixels * spacing[0] * spacing[1],
        )


def pieces_of(saliency: SourceMaps, n: int, name: str, threshold: float) -> Pieces:
    """Connected components (8 neighbours) of the n-th class, called `name`. `saliency`: one map per class, 0..1."""
    box = saliency.extent(n, threshold)
    values = saliency.cut(n, box) if box else np.zeros((1, 1), np.float32)
    mask: Any = values > np.float32(threshold)  # Any: the return types of OpenCV's stubs are less exact
    count, labels, stats, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    peaks = np.zeros(count, np.float32)
    np.maximum.at(peaks, labels[mask], values[mask])
    return Pieces(
        name=name,
        origin=box[:2] if box else (0, 0),
        values=values,
        labels=labels,
        stats=stats,
        centres=centres,
        peaks=peaks,
    )


def outline(inside: NDArray[np.bool_], top: int, left: int) -> tuple[Point, ...]:
    """Outline of the only component in `inside`, along the outer edges of its pixels; origin at (`top`, `left`).

    Exact up to `MOST_POINTS` points, else approximated with fewer than that.
    """
    # pixels are doubled: contour points in the first half of a pixel are on its upper or left edge, others opposite
    doubled = inside.repeat(2, axis=0).repeat(2, axis=1).astype(np.uint8)
    contour = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0][0][:, 0]
    corners = _thinned((contour + 1) // 2)
    points = [(float(top + y), float(left + x)) for x, y in corners.tolist()]
    return (*points, points[0])


def _thinned(corners: NDArray[Any]) -> NDArray[Any]:
    closeness = 0.0
    thin = corners = _without_repeats(corners)
    while len(thin) >= MOST_POINTS:
        closeness = 2 * closeness + 0.5
        thin = cv2.approxPolyDP(corners.astype(np.int32), closeness, True)[:, 0]
    return thin


def _without_repeats(corners: NDArray[Any]) -> NDArray[Any]:
    changed: NDArray[np.bool_] = (corners != np.roll(corners, 1, axis=0)).any(axis=1)
    return corners[changed]


def _spacing(values: tuple[float, ...] | None) -> Spacing | None:
    """ImagerPixelSpacing if it is valid, else None."""
    if values is None or len(values) != 2 or not all(np.isfinite(v) and v > 0 for v in values):
        return None
    return values[0], values[1]
