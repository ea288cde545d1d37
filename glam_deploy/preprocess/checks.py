"""What makes an image unusable: each check raises InputError and says what to do."""

import numpy as np

from glam_deploy.errors import InputError
from glam_deploy.preprocess.foreground import Breast
from glam_deploy.records import Mammogram, Pixels

RIM = 0.01
"""Share of the columns that a black rim along the edge of an image may take."""
DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))


def check_pixels(pixels: Pixels) -> None:
    """uint8, uint16 or float32 [rows, columns], finite, >= 0, something above 0, not all the same."""
    if pixels.ndim != 2 or pixels.dtype not in DTYPES:
        raise InputError(
            f"The image is {pixels.dtype} of shape {pixels.shape}; expected uint8, uint16 or float32 (native byte "
            "order) of shape [rows, columns], one grey channel. Convert it without changing its values."
        )
    if not pixels.size:
        raise InputError(f"The image has shape {pixels.shape}: no pixels. Check the file for damage.")
    _check_range(pixels.min(), pixels.max())


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


def check_background(pixels: Pixels, *, faces_left: bool) -> None:
    """Refuse a background that is not 0: the foreground (pixels > 0) would then be the whole image.

    It is not 0 if more than half of the border pixels of the three edges away from the chest wall carry one and the
    same value above 0. `pixels`: [rows, columns], source frame.
    """
    far = pixels[:, 0] if faces_left else pixels[:, -1]
    border = np.concatenate([pixels[0], pixels[-1], far])
    values, counts = np.unique(border, return_counts=True)
    common = int(counts.argmax())
    if values[common] > 0 and 2 * counts[common] > len(border):
        raise InputError(
            f"The background is {values[common]:g}, not 0: {100 * counts[common] / len(border):.0f} % of the border "
            "away from the chest wall has that value. Expected exactly 0. Set the background to 0; if the image is "
            "inverted (MONOCHROME1), invert it within its stored range."
        )


def check_extent(breast: Breast, shape: tuple[int, int]) -> None:
    """Refuse a foreground that goes on to the edge opposite to the chest wall over most of the image's height.

    No breast does: even one cut off by that edge is round. A background a little above 0 does, also behind a thin black
    rim. `breast` is upright: chest wall on the left; `shape` is the image's.
    """
    rows, columns = shape
    reaching = int(np.count_nonzero(breast.right >= columns * (1 - RIM)))
    if 2 * reaching > rows:
        raise InputError(
            f"The background is not 0: the foreground (pixels > 0) reaches the edge opposite to the chest wall in "
            f"{100 * reaching / rows:.0f} % of the rows. Expected exactly 0 around the breast. Set the background to "
            "0; if the image is inverted (MONOCHROME1), invert it within its stored range."
        )


def check_side(breast: Breast, width: int, mammogram: Mammogram) -> None:
    """Refuse a breast that is nearer to the edge opposite to the chest wall than to the chest wall's.

    `breast` is upright: chest wall on the left; `width` is the image's, in pixels.
    """
    _, left, _, right = breast.box
    if left > width - right:
        wall, other = ("right", "left") if mammogram.faces_left else ("left", "right")
        raise InputError(
            f"The breast is {width - right} pixels from the {other} edge and {left} from the {wall} edge, where the "
            f"chest wall of "
            f"a {mammogram.view} view with horizontal_flip={mammogram.horizontal_flip} belongs. Either the laterality "
            f"is wrong, or the image is stored mirrored: then say horizontal_flip={not mammogram.horizontal_flip}."
        )
