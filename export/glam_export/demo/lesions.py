"""Lesions of phantoms: their sites, their appearance and their outlines.

A lesion is painted in place on the breast's brightness (a fraction of full scale); painters return its outline.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from glam_deploy.records import Float32
from glam_export.demo.anatomy import Breast

Outline = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Site:
    """Position and size of a lesion, in pixels of the image on which it is painted."""

    row: float
    column: float
    radius_px: float
    unit: float
    """Size of the image relative to 3328 rows; details (edges, calcifications) shrink with it."""


Painter = Callable[[np.random.Generator, Float32, Site], Outline]


def choose_site(rng: np.random.Generator, breast: Breast, radius_px: float, column: float, unit: float) -> Site:
    """A place within the breast, clear of skin, muscle and image edges, as near to `column` as there is room."""
    step, margin = max(round(16 * unit), 1), radius_px + 170 * unit
    rows, columns = breast.depth.shape
    r, c = (g.ravel() for g in np.mgrid[0:rows:step, 0:columns:step])
    muscle = cv2.dilate(breast.muscle[::step, ::step], np.ones((21, 21), np.uint8)).ravel()
    roomy = (breast.depth[r, c] > margin) & (muscle < 0.1) & (c > margin) & (r > margin) & (r < rows - margin)
    distance = np.where(roomy, np.abs(c - column), np.inf)
    near = np.flatnonzero(distance <= max(float(distance.min()), 60 * unit))
    i = int(rng.choice(near))
    return Site(row=float(r[i]), column=float(c[i]), radius_px=radius_px, unit=unit)


def paint_benign_mass(rng: np.random.Generator, brightness: Float32, site: Site) -> Outline:
    """A round or oval mass: smooth border, even brightness, faint dark halo."""
    ratio, turn = rng.uniform(0.75, 1.0), rng.uniform(0, np.pi)
    dr, dc = _offsets(brightness.shape, site)
    u, v = dr * np.sin(turn) + dc * np.cos(turn), dr * np.cos(turn) - dc * np.sin(turn)
    inside = site.radius_px - np.hypot(u, v / ratio)
    brightness *= 1 - 0.06 * np.exp(-(((inside + 14 * site.unit) / (8 * site.unit)) ** 2))
    _displace(brightness, inside, level=rng.uniform(0.53, 0.57), soft=9 * site.unit)
    return np.asarray(inside > 0)


def paint_malignant_mass(rng: np.random.Generator, brightness: Float32, site: Site) -> Outline:
    """An irregular, dense mass with spicules and fine calcifications; the outline is its body without the spicules."""
    dr, dc = _offsets(brightness.shape, site)
    border = _irregular_radius(rng, np.arctan2(dr, dc)) * site.radius_px
    inside = border - np.hypot(dr, dc)
    _add_spicules(rng, brightness, site)
    _displace(brightness, inside, level=rng.uniform(0.57, 0.62), soft=14 * site.unit)
    _add_calcifications(rng, brightness, site, spread=0.85, count=int(rng.integers(26, 38)))
    return np.asarray(inside > 0)


def paint_calcifications(rng: np.random.Generator, brightness: Float32, site: Site) -> Outline:
    """A cluster of fine calcifications without a mass; the outline is their hull with a small margin."""
    points = _add_calcifications(rng, brightness, site, spread=1.0, count=int(rng.integers(30, 42)))
    outline = np.zeros(brightness.shape, np.uint8)
    cv2.fillConvexPoly(outline, cv2.convexHull(points), 1)
    side = 2 * round(12 * site.unit) + 1
    return np.asarray(cv2.dilate(outline, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))) > 0)


def _offsets(shape: tuple[int, ...], site: Site) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    dr = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(site.row)
    dc = np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(site.column)
    return np.broadcast_to(dr, shape), np.broadcast_to(dc, shape)


def _displace(brightness: Float32, inside: NDArray[np.float32], *, level: float, soft: float) -> None:
    """A mass pushes tissue aside: its own brightness, with a quarter of the tissue shining through."""
    share = 0.75 / (1 + np.exp(-np.clip(inside / soft * 2, -30, 30)))
    brightness += share * (1.25 * level - 0.08 - brightness)


def _irregular_radius(rng: np.random.Generator, angle: NDArray[np.float32]) -> NDArray[np.float32]:
    waves = [
        rng.uniform(0.5, 1) * 0.16 / np.sqrt(n) * np.cos(n * angle + rng.uniform(0, 2 * np.pi)) for n in range(2, 9)
    ]
    return np.asarray(0.9 + sum(waves), np.float32)


def _add_spicules(rng: np.random.Generator, brightness: Float32, site: Site) -> None:
    """Bright tapering strands that leave the mass in all directions."""
    strands = np.zeros_like(brightness)
    for angle in np.linspace(0, 2 * np.pi, int(rng.integers(16, 24)), endpoint=False) + rng.uniform(-0.1, 0.1):
        bend, length = rng.uniform(-0.25, 0.25), rng.uniform(1.35, 1.9)
        t = np.linspace(0.5, length, 12)
        at = angle + bend * (t - 0.5)
        path = np.stack([site.column + site.radius_px * t * np.cos(at), site.row + site.radius_px * t * np.sin(at)], 1)
        for i, (p, q) in enumerate(pairwise(path)):
            width = max(round((8 - 0.5 * i) * site.unit), 1)
            cv2.line(strands, p.round().astype(int).tolist(), q.round().astype(int).tolist(), 1 - i / 12, width)
    brightness += 0.07 * cv2.GaussianBlur(strands, (0, 0), 2.5 * site.unit)


def _add_calcifications(
    rng: np.random.Generator, brightness: Float32, site: Site, *, spread: float, count: int
) -> NDArray[np.int32]:
    """Bright grains of 4 to 8 pixels within `spread` radii; answers their (column, row) positions, int32 [count, 2]."""
    distance, angle = spread * np.sqrt(rng.uniform(0, 1, count)), rng.uniform(0, 2 * np.pi, count)
    columns = site.column + site.radius_px * distance * np.cos(angle)
    rows = site.row + 0.85 * site.radius_px * distance * np.sin(angle)
    points = np.stack([columns, rows], 1).round().astype(np.int32)
    grains = np.zeros_like(brightness)
    for point in points.tolist():
        axes = np.maximum((rng.uniform(1.6, 3.6, 2) * site.unit).round().astype(int), 1)
        cv2.ellipse(grains, point, axes.tolist(), rng.uniform(0, 180), 0, 360, rng.uniform(0.24, 0.34), -1)
    brightness += cv2.GaussianBlur(grains, (0, 0), max(0.8 * site.unit, 0.3))
    return points
