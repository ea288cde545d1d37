"""The nine raw views whose crop, points, centre and image come from the published implementation."""

import json
from pathlib import Path

import numpy as np
import pytest
from golden.recipe import raw_mammogram

from glam_deploy.preprocess import prepare
from glam_deploy.records import Mammogram, View

CASES = json.loads((Path(__file__).parents[2] / "golden" / "preprocessing.json").read_text())


def lists(value):
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['seed']}-{case['view']}")
def test_published_case(case):
    pixels = raw_mammogram(case["seed"], case["view"], case["height"], case["width"])
    made = prepare(Mammogram(pixels=pixels, view=View(case["view"])))
    assert lists(made.placement.crop_window) == case["window_location"]
    assert lists(made.placement.best_center) == case["best_center"]
    assert lists(made.crop_facts.rightmost_points) == case["rightmost_points"]
    assert lists(made.crop_facts.bottommost_points) == case["bottommost_points"]
    assert made.crop_facts.distance_from_starting_side == case["distance_from_starting_side"]
    assert made.image.dtype == np.float32
    blocks = made.image.reshape(8, 368, 10, 192).mean(axis=(1, 3), dtype=np.float64)
    np.testing.assert_allclose(blocks, case["block_means"], rtol=0, atol=2e-6)
    assert made.image.min() == pytest.approx(case["minimum"], abs=2e-6)
    assert made.image.max() == pytest.approx(case["maximum"], abs=2e-6)
