"""What makes the pixels of an image unusable: each check raises InputError and says what to do."""

import numpy as np

from glam_deploy.errors import InputError, Remedy
from glam_deploy.networks import PUBLISHED_FRAME
from glam_deploy.preprocess.standardize import TOLERANCE
from glam_deploy.records import Pixels

DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))


def check_pixels(pixels: Pixels, network_shape: tuple[int, int] = PUBLISHED_FRAME) -> None:
    """uint8, uint16 or float32 [rows, columns], finite, >= 0, something above 0, not all the same."""
    if pixels.ndim != 2 or pixels.dtype not in DTYPES:
        raise InputError(
            f"The image is {pixels.dtype} of shape {pixels.shape}; expected uint8, uint16 or float32 (native byte "
            "order) of shape [rows, columns], one grey channel. Convert it without changing its values."
        )
    if not pixels.size:
        raise InputError(f"The image has shape {pixels.shape}: no pixels. Check the file for damage.")
    check_raw(pixels, network_shape)
    _check_range(pixels.min(), pixels.max())


def check_raw(pixels: Pixels, network_shape: tuple[int, int] = PUBLISHED_FRAME) -> None:
    """Refuse an array of the shape, type and moments of the network's input: it was meant as standardized."""
    if pixels.shape != network_shape or pixels.dtype.kind != "f" or not pixels.min() < 0:
        return
    mean, deviation = pixels.mean(dtype=np.float64), pixels.std(dtype=np.float64)
    if abs(mean) <= TOLERANCE and abs(deviation - 1) <= TOLERANCE:
        raise InputError(
            f"The array is {pixels.dtype} {list(pixels.shape)} with mean 0 and standard deviation 1: an input that is "
            "standardized already, taken as a raw image",
            Remedy.STANDARDIZED,
        )


def _check_range(low: float, high: float) -> None:
    # NaN passes through min and max; infinity shows in one of them.
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(
            "The image has pixels that are NaN or infinite; expected finite numbers >= 0. "
            "Find out where they come from and write it again."
        )
    if low < 0:
        raise InputError(
            f"The smallest pixel is {low:g}; expected values >= 0 with a background of exactly 0. "
            "Undo what was subtracted from the image, such as a standardization or a rescale intercept."
        )
    if high == 0:
        raise InputError("The image is empty: no pixel is above 0. Check the file for damage.")
    if low == high:
        raise InputError(f"Every pixel is {high:g}: a constant image. Check the file for damage.")
