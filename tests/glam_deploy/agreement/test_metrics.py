import json

import numpy as np
import pytest

from glam_deploy.agreement.limits import TOLERANCE
from glam_deploy.agreement.metrics import Comparison, compare, dice
from glam_deploy.json_records import to_json
from glam_deploy.precision import PRECISIONS, Precision


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_difference_within_the_limit() -> None:
    row = compare("y", floats(0.25, 0.5), floats(0.25, 0.5 + 2**-14))
    assert (row.max_abs, row.mean_abs) == (2**-14, 2**-15)
    assert row.limit == TOLERANCE == 1e-4
    assert row.passed
    assert to_json(row.as_row()) == {
        "output": "y",
        "precision": "fp32",
        "max_abs": 2**-14,
        "mean_abs": 2**-15,
        "limit": 1e-4,
        "passed": True,
    }


def test_difference_beyond_the_limit() -> None:
    assert not compare("y", floats(0.5), floats(0.5 + 2**-13)).passed


def test_limit_is_a_share_of_large_values_and_of_nothing_else() -> None:
    assert compare("z", floats(-400), floats(-400.03)).passed
    assert not compare("z", floats(-400), floats(-400.05)).passed
    assert compare("z", floats(400), floats(0)).limit == 1e-4  # the reference sets it, not what is judged


@pytest.mark.parametrize(("precision", "rounding"), [("fp16", 2**-11), ("bf16", 2**-8)])
def test_half_precisions_are_judged_by_the_mean_as_a_share_of_the_mean(precision: Precision, rounding: float) -> None:
    expected = floats(*[0.0] * 9, 1.0)  # mean 0.1
    below, above = expected.copy(), expected.copy()
    below[0], above[0] = 49 * rounding, 51 * rounding
    assert compare("y", expected, expected, precision=precision).limit == pytest.approx(50 * rounding * 0.1)
    assert compare("y", below, expected, precision=precision).passed
    assert not compare("y", above, expected, precision=precision).passed
    assert not compare("y", below, expected).passed


def test_one_pixel_that_turns_over_is_rounding_in_fp16() -> None:
    expected = np.tile(floats(0, 1), 128 * 64)
    found = expected.copy()
    found[0] = 1
    row = compare("y", found, expected, precision="fp16")
    assert (row.max_abs, row.precision, row.passed) == (1, "fp16", True)


def test_nothing_where_something_should_be_is_a_fault_in_every_precision() -> None:
    expected = np.zeros(10_000, np.float32)
    expected[0] = 1e-3
    assert not any(compare("y", expected * 0, expected, precision=p).passed for p in PRECISIONS[1:])


def test_integers_must_be_equal() -> None:
    places = np.array([[16, 32]], np.int64)
    assert compare("patch_locations", places, places).passed
    assert not compare("patch_locations", places + 16, places, precision="bf16").passed
    far = compare("patch_locations", places + 16, places)
    assert (far.max_abs, far.limit, far.passed) == (16.0, 0.0, False)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_never_passes(bad: float, side: int) -> None:
    pair = [floats(0.5, 0.5), floats(0.5, 0.5)]
    pair[side][1] = bad
    for precision in PRECISIONS:
        row = compare("y", *pair, precision=precision)
        assert row.max_abs == row.mean_abs == np.inf
        assert not row.passed
        written = json.loads(json.dumps(to_json(row.as_row()), allow_nan=False))
        assert written["max_abs"] is written["mean_abs"] is None


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


def test_8_bits_may_be_off_by_half_of_the_mean() -> None:
    assert compare("y", floats(0.5, 1.5), floats(1, 2), precision="int8").passed
    assert not compare("y", floats(0, 1.2), floats(1, 2), precision="int8").passed


def test_a_row_of_a_manifest_holds_every_number() -> None:
    row = Comparison(name="y", precision="fp16", max_abs=0.5, mean_abs=0.25, limit=0.25, tied=3).as_row()
    assert (row.output, row.precision, row.max_abs, row.mean_abs, row.limit) == ("y", "fp16", 0.5, 0.25, 0.25)
    assert (row.passed, row.tied) == (True, 3)


def test_a_mean_that_is_not_finite_is_not_written() -> None:
    row = Comparison(name="y", max_abs=1.0, mean_abs=np.inf, limit=2).as_row()
    assert (row.max_abs, row.mean_abs) == (1.0, None)


def test_differences_are_not_rounded_to_the_type_of_the_values() -> None:
    """In fp16 the difference of 1 and 1 + 2^-12 would be 0; two integers of 64 bits wrap around in theirs."""
    assert compare("y", np.ones(1, np.float16), np.full(1, 1 + 2.0**-12)).max_abs == 2.0**-12
    assert compare("y", floats(1, 2), np.array([1, 3], np.uint8)).mean_abs == 0.5


def test_the_limit_is_of_finite_values_over_all() -> None:
    expected = floats(np.inf, 4, np.nan, -4)
    assert compare("y", floats(0, 0, 0, 0), expected, precision="int8").limit == 0.5 * 8 / 4
    assert compare("y", floats(0, 0, 0, 0), expected).limit == pytest.approx(4e-4)
    assert compare("y", floats(0), floats(np.nan)).limit == 1e-4, "of no finite value at all"
