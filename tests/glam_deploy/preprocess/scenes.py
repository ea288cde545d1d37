"""Small synthetic views: half an ellipse of tissue at the chest wall."""

import numpy as np

from glam_deploy.records import Mammogram, View

FLIPS = [(view, flip) for view in View for flip in (False, True)]


def tissue(rows: int, columns: int, *, reach: float = 0.7, height: float = 0.4, gap: int = 0) -> np.ndarray:
    """uint16 [rows, columns], facing right, tissue 1000, background 0.

    `reach` and `height`: half axes as shares of the columns and rows; `gap`: pixels between chest wall and tissue.
    """
    y = (np.arange(rows)[:, None] - rows * 0.48) / (rows * height)
    x = (np.arange(columns)[None, :] - gap) / (columns * reach)
    return np.where((y**2 + x**2 < 1) & (x >= 0), 1000, 0).astype(np.uint16)


def mammogram(
    pixels: np.ndarray, view: View = View.L_CC, *, horizontal_flip: bool = False, half_turn: bool = False, **more
) -> Mammogram:
    """A view whose right-facing `pixels` are stored as the view, the flip and the half turn say."""
    faces_left = view.is_right != horizontal_flip
    stored = np.ascontiguousarray(pixels[:, ::-1]) if faces_left else pixels
    stored = np.ascontiguousarray(stored[::-1, ::-1]) if half_turn else stored
    return Mammogram(pixels=stored, view=view, horizontal_flip=horizontal_flip, half_turn=half_turn, **more)
