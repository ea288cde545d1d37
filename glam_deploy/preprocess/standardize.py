"""Standardization to mean 0 and standard deviation 1 over the whole window, and inputs that skip preprocessing."""

import cv2
import numpy as np

from glam_deploy.errors import InputError, Remedy
from glam_deploy.networks import PUBLISHED_FRAME
from glam_deploy.records import Float32, NetworkInput, Notice, Pixels, Placement, Source, View

SMALLEST_DEVIATION = 1e-5
"""Floor of the divisor in the published preprocessing."""

TOLERANCE = 0.05
"""Largest deviation of the mean from 0 and of the standard deviation from 1 in a standardized input."""


def standardize(image: Float32) -> None:
    """(x - mean) / max(std, 1e-5) in place; `image`: float32 [rows, columns], moments in float64 over all pixels."""
    mean, deviation = _moments(image)
    image -= np.float32(mean)
    image /= np.float32(max(deviation, SMALLEST_DEVIATION))


def _moments(image: Float32) -> tuple[float, float]:
    mean, deviation = cv2.meanStdDev(image)
    return float(mean[0, 0]), float(deviation[0, 0])


def from_standardized(
    image: Pixels,
    *,
    source: Source,
    view: View | None = None,
    network_shape: tuple[int, int] = PUBLISHED_FRAME,
) -> NetworkInput:
    """Network input from an image that is already cropped, upright, facing right and standardized.

    `image`: any float dtype, of `network_shape`, network frame, which is also the source frame. Raises InputError for
    another shape or dtype, for values that are not finite, and if the mean is further than 0.05 from 0 or the standard
    deviation further than 0.05 from 1.
    """
    return NetworkInput(
        image=_checked(image, network_shape), placement=whole_frame(network_shape), source=source, view=view
    )


def from_cropped(
    pixels: Pixels, *, source: Source, view: View | None = None, network_shape: tuple[int, int] = PUBLISHED_FRAME
) -> NetworkInput:
    """Network input from a view that is already cropped, upright and facing right, but not standardized.

    `pixels`: uint16, of `network_shape`, network frame, which is also the source frame; they are standardized over all
    pixels. Adds the notice `standardized-here`. Raises InputError for another shape or dtype, and for a constant image.
    """
    if pixels.shape != network_shape or pixels.dtype.newbyteorder("=") != np.uint16:
        raise InputError(
            f"A cropped input that is not standardized must be uint16 of shape {network_shape}; this is "
            f"{pixels.dtype} of shape {pixels.shape}. Give a raw image with its view, and not as standardized."
        )
    image = np.ascontiguousarray(pixels, np.float32)
    _require_contrast(image)
    mean, deviation = _moments(image)
    standardize(image)
    message = f"the pixels had mean {mean:.4g} and standard deviation {deviation:.4g}, and were standardized"
    notice = Notice(code="standardized-here", message=message)
    return NetworkInput(image=image, placement=whole_frame(network_shape), source=source, view=view, notices=(notice,))


def whole_frame(network_shape: tuple[int, int] = PUBLISHED_FRAME) -> Placement:
    """Placement of an image that is already a network input: its source frame is the network frame."""
    rows, columns = network_shape
    return Placement(
        source_shape=network_shape,
        crop_window=(0, rows, 0, columns),
        mirrored=False,
        row_shift=0,
        column_shift=0,
        best_center=None,
        network_shape=network_shape,
    )


def _checked(image: Pixels, network_shape: tuple[int, int]) -> Float32:
    if image.shape != network_shape or not np.issubdtype(image.dtype, np.floating):
        raise InputError(
            f"A standardized input must be a float array of shape {network_shape}, this is {image.dtype} of shape "
            f"{image.shape}; if it is a raw image",
            Remedy.RAW,
        )
    values = np.ascontiguousarray(image, np.float32)
    if not np.isfinite(values).all():
        raise InputError(
            f"{np.count_nonzero(~np.isfinite(values))} pixels are NaN or infinite; expected finite numbers. "
            "Find the cause and write the input again."
        )
    _check_moments(values)
    return values


def _check_moments(values: Float32) -> None:
    _require_contrast(values)
    mean, deviation = _moments(values)
    if abs(mean) > TOLERANCE or abs(deviation - 1) > TOLERANCE:
        raise InputError(
            f"The image is not standardized: its mean is {mean:.4g} and its standard deviation {deviation:.4g}, "
            f"expected 0 and 1 within {TOLERANCE}; if it is a raw image",
            Remedy.RAW,
        )


def _require_contrast(values: Float32) -> None:
    if values.min() == values.max():
        raise InputError(f"Every pixel is {values[0, 0]:g}: a constant image. Check the file for damage.")
