"""A breast without lesions: outline, thickness, pectoral muscle, fibroglandular tissue.

Everything here faces right with the chest wall at column 0. Brightness is a fraction of full scale. Lengths that are
given in pixels hold for 3328 rows and shrink with the image.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from glam_deploy.records import Float32

FULL_ROWS = 3328
TEXTURE_EXPONENT = 3.0
"""Power of the parenchymal noise falls as 1 / f^3 (Burgess 1999, "Mammographic structure")."""

FAT, GLAND, MUSCLE, TEXTURE, SKIN = 0.25, 0.12, 0.09, 0.014, 0.05
"""Brightness of fat, and what the other tissues add to it; TEXTURE is one standard deviation."""


@dataclass(frozen=True, kw_only=True)
class Breast:
    """A healthy breast; every array is [rows, columns]."""

    brightness: Float32
    """float32, 0..1, 0 outside the breast."""
    depth: Float32
    """float32, distance to the skin in pixels, 0 outside the breast."""
    muscle: Float32
    """float32, 0..1: share of pectoral muscle, all 0 in a CC view."""


def make_breast(rng: np.random.Generator, shape: tuple[int, int], *, is_mlo: bool) -> Breast:
    """A breast of random outline and density, [rows, columns] = `shape`, chest wall at column 0."""
    unit = shape[0] / FULL_ROWS
    edge, nipple_row = (_mlo_edge if is_mlo else _cc_edge)(rng, shape)
    depth = _depth(edge, nipple_row, shape, unit)
    muscle = _pectoral(rng, shape, unit) if is_mlo else np.zeros(shape, np.float32)
    texture = power_law_noise(rng, shape, TEXTURE_EXPONENT)
    gland = _gland(rng, shape, (nipple_row, float(edge.max())), texture)
    tissue = FAT + GLAND * gland * (1 - muscle) + MUSCLE * muscle + TEXTURE * np.clip(texture, -3, 3)
    skin = SKIN * np.exp(-(((depth - 7 * unit) / (4 * unit)) ** 2))
    brightness = (depth > 0) * (_thickness(depth, 280 * unit) * tissue + skin)
    return Breast(brightness=brightness.astype(np.float32), depth=depth, muscle=muscle)


def power_law_noise(rng: np.random.Generator, shape: tuple[int, int], exponent: float) -> Float32:
    """Gaussian noise whose power falls as 1 / f^exponent: float32 [rows, columns], mean 0, standard deviation 1.

    Made at half size: the upper octave would be drowned by the detector's noise anyway.
    """
    rows, columns = (shape[0] + 1) // 2, (shape[1] + 1) // 2
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :])
    # a floor at a quarter of the image keeps single views from being all bright on one side
    amplitude = np.maximum(frequency, 4 / rows) ** (-exponent / 2)
    amplitude[0, 0] = 0
    spectrum = amplitude * (rng.standard_normal(amplitude.shape) + 1j * rng.standard_normal(amplitude.shape))
    noise = np.fft.irfft2(spectrum, s=(rows, columns))
    full = cv2.resize((noise / noise.std()).astype(np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(full, np.float32)


def _cc_edge(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[NDArray[np.float64], float]:
    """Column of the skin in every row (0: no breast) and the nipple's row: a half-ellipse."""
    rows, columns = shape
    middle = rows * rng.uniform(0.48, 0.52)
    half_height, reach = rows * rng.uniform(0.355, 0.385), columns * rng.uniform(0.56, 0.62)
    t = (np.arange(rows) - middle) / half_height
    return reach * np.sqrt(np.clip(1 - np.abs(t) ** 2.2, 0, None)), middle


def _mlo_edge(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[NDArray[np.float64], float]:
    """As `_cc_edge`, from the axilla at the top edge over the nipple to the fold below the breast."""
    rows, columns = shape
    nipple, fold = rows * rng.uniform(0.53, 0.57), rows * rng.uniform(0.86, 0.88)
    axilla, reach = columns * rng.uniform(0.26, 0.30), columns * rng.uniform(0.56, 0.61)
    r = np.arange(rows)
    upper = axilla + (reach - axilla) * np.sin(np.pi / 2 * np.clip(r / nipple, 0, 1)) ** 1.3
    lower = reach * np.sqrt(np.clip(1 - (np.clip(r - nipple, 0, None) / (fold - nipple)) ** 2, 0, None))
    return np.where(r < nipple, upper, lower), nipple


def _depth(edge: NDArray[np.float64], nipple_row: float, shape: tuple[int, int], unit: float) -> Float32:
    """Distance to the skin, nipple included; the image's own edges are no skin."""
    inside = (np.arange(shape[1])[None, :] < edge[:, None]).astype(np.uint8)
    tip = (round(float(edge.max()) - 5 * unit), round(nipple_row))
    cv2.ellipse(inside, tip, (max(round(45 * unit), 1), max(round(55 * unit), 1)), 0, 0, 360, 1, -1)
    pad = round(400 * unit)
    padded = cv2.copyMakeBorder(inside, pad, pad, pad, 0, cv2.BORDER_REPLICATE)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[pad:-pad, pad:]
    return np.ascontiguousarray(distance, np.float32)


def _thickness(depth: Float32, margin: float) -> Float32:
    """Compressed thickness, 0..1: round at the skin (a quarter circle over `margin` pixels), flat further in."""
    t = np.clip(depth / margin, 0, 1)
    return np.asarray(np.sqrt(1 - (1 - t) ** 2), np.float32)


def _pectoral(rng: np.random.Generator, shape: tuple[int, int], unit: float) -> Float32:
    """A slightly bulging triangle at the upper chest wall with a soft edge."""
    rows, columns = shape
    top, foot = columns * rng.uniform(0.20, 0.24), rows * rng.uniform(0.42, 0.50)
    t = np.clip(np.arange(rows) / foot, 0, 1)
    border = np.where(t < 1, top * (1 - t**1.3), -200 * unit).astype(np.float32)[:, None]
    fade = (border - np.arange(columns, dtype=np.float32)[None, :]) / (25 * unit)
    return np.asarray(1 / (1 + np.exp(-np.clip(fade, -30, 30))), np.float32)


def _gland(rng: np.random.Generator, shape: tuple[int, int], nipple: tuple[float, float], texture: Float32) -> Float32:
    """Share of fibroglandular tissue, 0..1: strands of the texture, densest in a cone behind the nipple."""
    rows, columns = shape
    row, reach = nipple
    r, c = np.arange(rows, dtype=np.float32)[:, None], np.arange(columns, dtype=np.float32)[None, :]
    cone = np.exp(-(((r - row) / (0.17 * rows)) ** 2) - ((c - 0.55 * reach) / (0.38 * reach)) ** 2)
    density = 3.2 * cone - rng.uniform(1.5, 2.1) + 0.9 * texture
    return np.asarray(1 / (1 + np.exp(-2.5 * density)), np.float32)
