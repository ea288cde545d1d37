"""Phantom exams: four raw mammogram-like views with known lesions.

They look like mammograms to a lay eye and exercise the software from the detector's pixels on; they say nothing about
accuracy on patients.
"""

from dataclasses import dataclass, replace
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import UsageError
from glam_deploy.networks import GLAM
from glam_deploy.records import View
from glam_export.demo.anatomy import FULL_ROWS, Breast, make_breast
from glam_export.demo.lesions import (
    Painter,
    Site,
    choose_site,
    paint_benign_mass,
    paint_calcifications,
    paint_malignant_mass,
)

SHAPE = (3328, 2560)
"""Rows and columns of a common full-field detector (18 x 24 cm at 70 um)."""
SMALLEST = 416
"""Fewest rows and columns at which lesions still have shapes."""
BITS_STORED = 12
FULL_SCALE = 2**BITS_STORED - 1
NOISE = 0.005
"""Detector noise, standard deviation as a fraction of full scale."""
LABEL = 3600
"""Pixel value of the view marker beside the breast."""

BENIGN, MALIGNANT, CALCIFICATIONS = "benign", "malignant", "calcifications"
PAINTERS: MappingProxyType[str, tuple[str, Painter]] = MappingProxyType(
    {
        BENIGN: ("benign", paint_benign_mass),
        MALIGNANT: ("malignant", paint_malignant_mass),
        CALCIFICATIONS: ("malignant", paint_calcifications),
    }
)
PLANS = ((BENIGN, MALIGNANT), (None, BENIGN), (CALCIFICATIONS, None), (MALIGNANT, CALCIFICATIONS))
"""Lesions of the left and the right breast of an exam, by seed modulo 4."""


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """One lesion in the source frame."""

    label: str
    """"benign" or "malignant"."""
    row: float
    column: float
    radius_px: float
    """Nominal radius in pixels; the outline is in `PhantomView.mask`."""


@dataclass(frozen=True, kw_only=True)
class PhantomView:
    """One raw view and the outlines of its lesions; left views face right, right views face left."""

    view: View
    pixels: NDArray[np.uint16]
    """uint16 [rows, columns], 0..4095 (12 bits stored), source frame, background exactly 0, brighter is denser."""
    mask: NDArray[np.uint8]
    """uint8 [rows, columns], source frame: 0 no lesion, 1 benign, 2 malignant."""
    lesions: tuple[Lesion, ...]


def phantom_exam(seed: int, *, shape: tuple[int, int] = SHAPE) -> list[PhantomView]:
    """The four views L-CC, R-CC, L-MLO, R-MLO of one exam, the same at every call.

    A breast with a lesion shows it in both its views. `shape`: rows and columns of every view; all lengths, lesions'
    included, scale with the rows. Raises UsageError for a negative seed or a shape below 416.
    """
    return [phantom_view(seed, view, shape=shape) for view in View]


def phantom_view(seed: int, view: View, *, shape: tuple[int, int] = SHAPE) -> PhantomView:
    """One view of `phantom_exam(seed)`."""
    if seed < 0 or min(shape) < SMALLEST:
        raise UsageError(f"phantom exam: got seed {seed}, shape {shape}; give a seed >= 0 and sides >= {SMALLEST}")
    rng = np.random.default_rng([seed, list(View).index(view)])
    breast = make_breast(rng, shape, is_mlo=view.is_mlo)
    mask = np.zeros(shape, np.uint8)
    lesions = _add_lesion(rng, seed, view, breast, mask)
    pixels = _expose(rng, breast)
    if view.is_right:
        pixels, mask = np.ascontiguousarray(pixels[:, ::-1]), np.ascontiguousarray(mask[:, ::-1])
        lesions = tuple(_mirrored(lesion, shape[1]) for lesion in lesions)
    _stamp(pixels, view)
    return PhantomView(view=view, pixels=pixels, mask=mask, lesions=lesions)


def _add_lesion(
    rng: np.random.Generator, seed: int, view: View, breast: Breast, mask: NDArray[np.uint8]
) -> tuple[Lesion, ...]:
    kind = PLANS[seed % len(PLANS)][view.is_right]
    if kind is None:
        return ()
    label, paint = PAINTERS[kind]
    site = _site(rng, seed, view, breast)
    around, window = _neighbourhood(site, mask.shape)
    mask[window][paint(rng, breast.brightness[window], around)] = 1 + GLAM.classes.index(label)
    return (Lesion(label=label, row=site.row, column=site.column, radius_px=site.radius_px),)


def _site(rng: np.random.Generator, seed: int, view: View, breast: Breast) -> Site:
    """Site of the lesion; radius and distance from the chest wall are the same in both views of a breast."""
    unit = breast.depth.shape[0] / FULL_ROWS
    of_breast = np.random.default_rng([seed, int(view.is_right), 4])
    radius_px, column = of_breast.uniform(70, 130) * unit, of_breast.uniform(0.2, 0.4) * breast.depth.shape[1]
    return choose_site(rng, breast, radius_px, column, unit)


def _neighbourhood(site: Site, shape: tuple[int, ...]) -> tuple[Site, tuple[slice, slice]]:
    """The site relative to a window around the lesion, and the window; to paint the whole view would take seconds."""
    reach = round(2.2 * site.radius_px)
    top, left = max(round(site.row) - reach, 0), max(round(site.column) - reach, 0)
    window = (slice(top, min(top + 2 * reach, shape[0])), slice(left, min(left + 2 * reach, shape[1])))
    return replace(site, row=site.row - top, column=site.column - left), window


def _expose(rng: np.random.Generator, breast: Breast) -> NDArray[np.uint16]:
    """Detector values: noise in the breast, background exactly 0, and no zero within the breast."""
    noisy = breast.brightness + NOISE * rng.standard_normal(breast.brightness.shape, np.float32)
    values = np.clip(np.rint(noisy * FULL_SCALE), 1, FULL_SCALE)
    return np.where(breast.depth > 0, values, 0).astype(np.uint16)


def _mirrored(lesion: Lesion, columns: int) -> Lesion:
    return Lesion(label=lesion.label, row=lesion.row, column=columns - 1 - lesion.column, radius_px=lesion.radius_px)


def _stamp(pixels: NDArray[np.uint16], view: View) -> None:
    """The lead marker, in the upper corner away from the chest wall."""
    unit = pixels.shape[0] / FULL_ROWS
    text, size, thick = view.value.replace("-", " "), 2.6 * unit, max(round(9 * unit), 1)
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, thick)
    left = round(60 * unit) if view.is_right else pixels.shape[1] - round(60 * unit) - width
    marker = np.zeros(pixels.shape, np.uint8)
    cv2.putText(marker, text, (left, round(60 * unit) + height), cv2.FONT_HERSHEY_SIMPLEX, size, 1, thick)
    pixels[marker > 0] = LABEL
