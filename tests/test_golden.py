"""The published implementation's outputs for three cases, held against the whole chain on several engines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from expected import need_engine

from glam_deploy import load
from glam_deploy.networks import GLAM
from glam_deploy.preprocess import from_standardized
from glam_deploy.records import Source
from glam_deploy.runtime import patching
from glam_deploy.runtime.result import Result
from glam_export.reference.glam import GlamNetwork

CASES = ("case_k1", "case_k3_batch2", "case_k6")
RUNS = [
    *(pytest.param((engine, "case_k1"), id=f"{engine}-case_k1") for engine in ("onnx", "torch", "openvino")),
    *(
        pytest.param((engine, case), id=f"{engine}-{case}", marks=pytest.mark.slow)
        for engine in ("onnx", "torch")
        for case in CASES[1:]
    ),
]
TOLERANCE = 1e-4

pytestmark = pytest.mark.network


class Run(NamedTuple):
    golden: dict[str, Any]
    results: list[Result]

    def each(self, field: str) -> np.ndarray:
        """A field of every image's result, stacked."""
        return np.stack([getattr(result, field) for result in self.results])


def read_case(name: str) -> dict[str, Any]:
    with np.load(Path(__file__).parent / "golden" / f"{name}.npz") as case:
        return dict(case)


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest, golden_bundle: Path, golden_image: Callable[[int], np.ndarray]) -> Run:
    engine, name = request.param
    need_engine(engine)
    golden = read_case(name)
    pipeline = load(golden_bundle, engine=engine, patches=int(golden["k"]), ungated=True)
    source = Source(name="golden", kind="array")
    inputs = [from_standardized(golden_image(seed), source=source) for seed in golden["seeds"].tolist()]
    return Run(golden, [pipeline(network_input) for network_input in inputs])


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_patch_locations(run: Run) -> None:
    np.testing.assert_array_equal(run.each("patch_locations"), run.golden["patch_locations"])


def test_scores(run: Run) -> None:
    close(run.each("y_global"), run.golden["y_global"])
    close(run.each("y_scale"), run.golden["y_scale"].swapaxes(0, 1))
    close(run.each("y_local"), run.golden["y_local_concat"])


def test_maps(run: Run) -> None:
    close(run.each("saliency_global"), run.golden["saliency_global"])
    close(run.each("saliency_patches"), run.golden["saliency_local"])


def test_fused_map(run: Run) -> None:
    for n, result in enumerate(run.results):
        fused = result.saliency()
        close(fused.mean((1, 2), dtype=np.float64), run.golden["saliency_mean"][n])
        close(fused.max((1, 2)), run.golden["saliency_max"][n])
        close(fused[:, ::368], run.golden["saliency_rows"][n])
        # only a pixel within the tolerance of 0.5 may fall on the other side of it
        surely, perhaps = ((fused > 0.5 + margin).sum((1, 2)) for margin in (TOLERANCE, -TOLERANCE))
        count = run.golden["saliency_over_half"][n]
        assert (surely <= count).all()
        assert (count <= perhaps).all()


def test_patch_pixels(run: Run) -> None:
    for n, result in enumerate(run.results):
        patches = patching.crop(result.network_input.image, result.patch_locations, GLAM.patches.side)
        close(patches.mean((1, 2, 3), dtype=np.float64), run.golden["patch_mean"][n])
        close(patches.std((1, 2, 3), dtype=np.float64), run.golden["patch_std"][n])


@pytest.mark.parametrize("name", CASES)
def test_each_scale_of_the_reference(
    name: str, golden_network: GlamNetwork, golden_image: Callable[[int], np.ndarray]
) -> None:
    golden = read_case(name)
    for n, seed in enumerate(golden["seeds"].tolist()):
        scales, _ = golden_network.global_network.scale_saliency(torch.tensor(golden_image(seed))[None, None])
        for scale, found in enumerate(scales):
            close(found[0].numpy(), golden[f"s{scale}"][n])
