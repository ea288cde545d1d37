"""Small labelled lists with their images and masks, for tests of `glam-deploy evaluate`."""

from pathlib import Path

import cv2
import numpy as np

from support.engines import small_view

HEADING = "file,view,exam,benign,malignant"
SPOT = (slice(200, 260), slice(100, 160))
"""The bright spot of `small_view`."""


def write_list(folder: Path, rows: list[str], name: str = "list.csv") -> Path:
    """Write a list with these rows."""
    path = folder / name
    path.write_text("\n".join([HEADING, *rows]) + "\n", "utf-8")
    return path


def write_exams(folder: Path, count: int = 2) -> Path:
    """`count` exams of two views: in every second one the L-CC view has a malignant spot with a mask.

    The other view has a benign spot elsewhere, without a mask. Returns the list.
    """
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = []
    for exam in range(count):
        malignant = exam % 2 == 0
        spot = np.zeros(small_view().pixels.shape, np.uint8)
        spot[SPOT] = 200 * malignant
        _write(folder / f"images/{exam}_L-CC.png", bright=3000 + exam)
        cv2.imwrite(str(folder / f"masks/{exam}_L-CC_mask.png"), spot)
        _write(folder / f"images/{exam}_L-MLO.png", bright=2000 + exam)
        rows += [f"images/{exam}_L-CC.png,,{exam},0,{int(malignant)}", f"images/{exam}_L-MLO.png,L-MLO,{exam},1,0"]
    return write_list(folder, rows)


def _write(path: Path, bright: int) -> None:
    pixels = small_view().pixels.copy()
    pixels[SPOT] = bright
    cv2.imwrite(str(path), pixels)
