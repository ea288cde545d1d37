"""Swapped bytes: the gain of a swap by hand and against exact fractions, and the rows that are measured."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from support.streams import tissue

from glam_deploy.preprocess.byte_order import SMOOTHER, gain_of_swap


def roughness(rows: list[list[int]]) -> Fraction:
    values = [value for row in rows for value in row]
    steps = [abs(after - before) for row in rows for before, after in pairwise(row)]
    mean = Fraction(sum(values), len(values))
    return Fraction(sum(steps), len(steps)) / (sum(abs(value - mean) for value in values) / len(values))


def exact_gain(pixels: np.ndarray) -> float:
    rows = pixels.tolist()
    swapped = [[(value & 255) << 8 | value >> 8 for value in row] for row in rows]
    return float(roughness(rows) / roughness(swapped))


def test_a_gain_by_hand() -> None:
    """The steps are 256 and 255, after a swap 1 and 255; the deviation is the same, since the values are."""
    assert gain_of_swap(np.array([[0, 256, 1]], np.uint16)) == pytest.approx(511 / 256)


def test_the_gain_is_that_of_exact_arithmetic() -> None:
    noise = np.random.default_rng(1).integers(0, 1 << 16, (9, 2)).astype(np.uint16)
    for pixels in (tissue(), tissue().byteswap(), noise):
        assert gain_of_swap(pixels) == pytest.approx(exact_gain(pixels), rel=1e-4)
    assert gain_of_swap(tissue()) < 1 < SMOOTHER < gain_of_swap(tissue().byteswap())


@pytest.mark.parametrize(("rows", "measured"), [(511, slice(None)), (512, slice(None, None, 8))])
def test_every_eighth_row_is_enough_from_512_rows_on(rows: int, measured: slice) -> None:
    pixels = np.random.default_rng(2).integers(0, 1 << 16, (rows, 6)).astype(np.uint16)
    pixels[::8] = np.arange(6) * 300
    assert gain_of_swap(pixels) == pytest.approx(exact_gain(pixels[measured]), rel=1e-4)


@pytest.mark.parametrize("pixels", [np.full((3, 4), 700), [[1], [256], [5]]], ids=["one value", "one column"])
def test_without_steps_no_swap_is_a_gain(pixels: object) -> None:
    assert gain_of_swap(np.asarray(pixels, np.uint16)) == 0
