"""What the comparison of graphs names, and what it feeds them."""

import numpy as np
import pytest
from support.engines import FakeEngine, fake_engines

from glam_deploy.agreement.golden import Examples, compare_graphs, reference_examples
from glam_deploy.agreement.limits import HALF_ROUNDINGS, ROUNDING
from glam_deploy.engines.base import Arrays
from glam_deploy.errors import BackendRunError
from glam_deploy.networks import GLAM, GLAM_CONCATENATION, STAGES, NetworkSpec
from glam_deploy.precision import PRECISIONS, Precision

OUTPUTS = [f"{stage}.{name}" for stage in STAGES for name in GLAM.contract(stage).outputs]


class Recorder(FakeEngine):
    """Keeps what it was given, and may return one output a cell short."""

    given: Arrays
    short: str | None = None

    def _run(self, inputs: Arrays) -> Arrays:
        self.given = inputs
        outputs = super()._run(inputs)
        return {name: values[..., 1:] if name == self.short else values for name, values in outputs.items()}


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """float32 [2944, 1920], standardized noise with one bright square."""
    pixels = np.random.default_rng(8).standard_normal(GLAM.input_shape, np.float32)
    pixels[1000:1400, 300:700] += 3
    return pixels


@pytest.fixture(scope="module")
def examples(image: np.ndarray) -> Examples:
    """Of engines with fusion head."""
    return reference_examples(fake_engines(network=GLAM), image, GLAM)


@pytest.mark.parametrize("network", [GLAM_CONCATENATION, GLAM])
def test_equal_engines_pass_with_no_difference(image: np.ndarray, network: NetworkSpec) -> None:
    examples = reference_examples(fake_engines(network=network), image, GLAM)
    table = compare_graphs(examples, fake_engines(network=network))
    head = ("fusion.y_fusion", "fusion.attention")
    assert [row.name for row in table] == [name for name in OUTPUTS if network is GLAM or name not in head]
    assert {row.max_abs for row in table} == {0}
    assert all(row.passed for row in table)


@pytest.mark.parametrize("wrong", OUTPUTS)
@pytest.mark.parametrize("offset", [1e-3, -2e-4])
def test_a_wrong_output_is_named_and_no_other(examples: Examples, wrong: str, offset: float) -> None:
    stage, name = wrong.split(".")
    candidate = fake_engines(network=GLAM)
    candidate[stage] = FakeEngine(stage, network=GLAM, offset={name: offset})
    missed = [row for row in compare_graphs(examples, candidate) if not row.passed]
    assert [row.name for row in missed] == [wrong]
    assert missed[0].max_abs == pytest.approx(abs(offset), rel=1e-3)
    assert missed[0].limit == pytest.approx(1e-4)


def test_rounding_passes(examples: Examples) -> None:
    names = {wrong.split(".")[1] for wrong in OUTPUTS}
    candidate = fake_engines(network=GLAM, wrong=dict.fromkeys(names, 5e-5))
    assert all(row.passed for row in compare_graphs(examples, candidate))


@pytest.mark.parametrize("precision", PRECISIONS[1:])
@pytest.mark.parametrize("wrong", OUTPUTS)
def test_half_graphs_are_judged_by_the_mean(examples: Examples, precision: Precision, wrong: str) -> None:
    stage, name = wrong.split(".")
    limit = HALF_ROUNDINGS * ROUNDING[precision] * float(np.abs(examples[stage].outputs[name]).mean())
    for share in (0.9, 1.1) if limit else (1,):  # the fake fused map is zero, and so is what it may be off by
        candidate = {stage: FakeEngine(stage, network=GLAM, offset={name: share * limit or 1e-6})}
        table = compare_graphs(examples, candidate, precision=precision)
        assert {row.precision for row in table} == {precision}
        assert [row.name for row in table if not row.passed] == ([wrong] if share >= 1 else [])


def test_another_shape_does_not_pass(image: np.ndarray) -> None:
    candidate = fake_engines()
    candidate["local"] = Recorder("local")
    candidate["local"].short = "z_k"
    missed = [
        row for row in compare_graphs(reference_examples(fake_engines(), image, GLAM), candidate) if not row.passed
    ]
    assert [(row.name, row.max_abs, row.mean_abs) for row in missed] == [("local.z_k", np.inf, np.inf)]


def test_nan_is_an_error(examples: Examples) -> None:
    with pytest.raises(BackendRunError, match="values of 'y_scale' are NaN"):
        compare_graphs(examples, fake_engines(network=GLAM, wrong={"y_scale": np.nan}))


def test_the_graphs_are_given_a_real_patch_and_six_slots_that_differ(image: np.ndarray, examples: Examples) -> None:
    candidate = {stage: Recorder(stage, network=GLAM) for stage in STAGES}
    compare_graphs(examples, candidate)
    np.testing.assert_array_equal(candidate["global"].given["image"][0, 0], image)
    fusion = candidate["fusion"].given
    places = fusion["patch_locations"][0].tolist()
    row, column = places[0]
    np.testing.assert_array_equal(candidate["local"].given["patches"][0, 0], image[row:, column:][:512, :512])
    assert len({tuple(place) for place in places}) == 6
    for key in ("saliency_patches", "z_k"):
        assert len({values.tobytes() for values in fusion[key][0]}) == (6 if key == "saliency_patches" else 1)
