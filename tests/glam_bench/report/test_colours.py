"""Contrast, and difference under colour blindness, computed here from the published formulas.

Contrast: WCAG 2.2. Colour blindness: Machado, Oliveira, Fernandes 2009, complete. Difference: Oklab (Ottosson 2020).
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from glam_bench.report.style import DARK, LIGHT, STEPS, variables

Array = NDArray[np.float64]
SCHEMES = {"light": LIGHT, "dark": DARK}
SIGHT = {
    "all colours": np.eye(3),
    "no red": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "no blue": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]
    ),
}
TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.793617785, -0.0040720468],
        [1.9779984951, -2.428592205, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.808675766],
    ]
)
BESIDE = [("preprocess", "gpu"), ("copy", "gpu"), ("gpu", "fusion")]
"""Steps that only a bar of a GPU has, with their neighbours there."""


def linear(colour: str) -> Array:
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def difference(one: str, other: str, sight: Array) -> float:
    first, second = (TO_LAB @ np.cbrt(TO_CONES @ np.clip(sight @ linear(c), 0, 1)) for c in (one, other))
    return float(np.linalg.norm(first - second))


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> Mapping[str, str]:
    return dict(variables(SCHEMES[request.param]))


def test_both_schemes_have_the_same_colours() -> None:
    assert LIGHT.keys() == DARK.keys()


@pytest.mark.parametrize("ground", ["page", "surface"])
@pytest.mark.parametrize("text", ["ink", "faint", "link", "warn"])
def test_text_can_be_read(scheme: Mapping[str, str], text: str, ground: str) -> None:
    assert contrast(scheme[text], scheme[ground]) >= 4.5


def test_text_on_colours_can_be_read(scheme: Mapping[str, str]) -> None:
    assert contrast(scheme["warn"], scheme["warn-back"]) >= 4.5
    assert {step for step in STEPS if contrast(scheme[f"on-{step}"], scheme[step]) < 4.5} == set()


def test_shapes_stand_out_from_the_ground(scheme: Mapping[str, str]) -> None:
    assert {name for name in (*STEPS, "mark", "base") if contrast(scheme[name], scheme["surface"]) < 3} == set()


@pytest.mark.parametrize("sight", SIGHT)
def test_steps_differ_for_every_kind_of_sight(scheme: Mapping[str, str], sight: str) -> None:
    pairs = [*combinations([step for step in STEPS if step != "gpu"], 2), *BESIDE]
    near = {pair for pair in pairs if difference(scheme[pair[0]], scheme[pair[1]], SIGHT[sight]) < 0.1}
    assert near == set()
