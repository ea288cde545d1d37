import json

import numpy as np
import pytest

from glam_deploy.metrics import TOLERANCE, compare, dice


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_difference_within_the_limit() -> None:
    row = compare("y", floats(0.25, 0.5), floats(0.25, 0.5 + 2**-14))
    assert row.max_abs == 2**-14
    assert row.limit == TOLERANCE == 1e-4
    assert row.passed
    assert row.as_row() == {"output": "y", "max_abs": 2**-14, "limit": 1e-4, "passed": True}


def test_difference_beyond_the_limit() -> None:
    assert not compare("y", floats(0.5), floats(0.5 + 2**-13)).passed


def test_limit_is_a_share_of_large_values_and_of_nothing_else() -> None:
    assert compare("z", floats(-400), floats(-400.03)).passed
    assert not compare("z", floats(-400), floats(-400.05)).passed
    assert compare("z", floats(400), floats(0)).limit == 1e-4  # the reference sets it, not what is judged


def test_integers_must_be_equal() -> None:
    places = np.array([[16, 32]], np.int64)
    assert compare("patch_locations", places, places).passed
    far = compare("patch_locations", places + 16, places)
    assert (far.max_abs, far.limit, far.passed) == (16.0, 0.0, False)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_never_passes(bad: float, side: int) -> None:
    pair = [floats(0.5, 0.5), floats(0.5, 0.5)]
    pair[side][1] = bad
    row = compare("y", *pair)
    assert row.max_abs == np.inf
    assert not row.passed
    assert json.loads(json.dumps(row.as_row(), allow_nan=False))["max_abs"] is None


def test_shapes_must_be_equal() -> None:
    row = compare("y", floats(0.5), floats(0.5, 0.5))
    assert row.max_abs == np.inf
    assert not row.passed


def test_dice_by_hand() -> None:
    first = np.zeros((4, 4), bool)
    second = first.copy()
    first[:2], second[1:] = True, True  # 8 and 12 pixels, 4 in both
    assert dice(first, second) == 2 * 4 / 20
    assert dice(first, first) == 1.0
    assert dice(first, ~first) == 0.0


def test_dice_of_empty_masks() -> None:
    empty, full = np.zeros((2, 2), bool), np.ones((2, 2), bool)
    assert dice(empty, empty) is None
    assert dice(empty, full) == 0.0
