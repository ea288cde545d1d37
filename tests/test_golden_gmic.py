"""The published implementation's outputs of GMIC for two cases, compared with the whole chain on several engines."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from expected import need_engine
from golden import network

from glam_deploy import load
from glam_deploy.errors import CheckpointError, UsageError
from glam_deploy.networks import GMIC
from glam_deploy.preprocess import from_standardized
from glam_deploy.records import Source
from glam_deploy.runtime.result import Result
from glam_export.checkpoint import load_checkpoint
from glam_export.exporter import ExportOptions, export_bundle

TOLERANCE = 1e-4

pytestmark = [pytest.mark.network, pytest.mark.slow]


@pytest.fixture(scope="module", params=["onnx", "torch", "openvino"])
def results(
    request: pytest.FixtureRequest, gmic_bundle: Path, golden_image: Callable[[int], np.ndarray]
) -> list[tuple[dict[str, np.ndarray], Result]]:
    """Each case's published outputs, and those of the engine with the bundle's own number of patches."""
    need_engine(request.param)
    found = []
    with load(gmic_bundle, engine=request.param, ungated=True) as pipeline:
        for name in ("case_1", "case_2"):
            with np.load(network.GMIC / f"{name}.npz") as case:
                expected = dict(case)
            image = from_standardized(golden_image(int(expected["seed"])), source=Source(name=name, kind="array"))
            found.append((expected, pipeline(image)))
    return found


@pytest.mark.parametrize("name", ["y_global", "y_local", "y_fusion", "attention"])
def test_scores(results: list[tuple[dict[str, np.ndarray], Result]], name: str) -> None:
    for expected, result in results:
        np.testing.assert_allclose(getattr(result, name), expected[name][0], rtol=0, atol=TOLERANCE)


def test_maps_and_patches(results: list[tuple[dict[str, np.ndarray], Result]]) -> None:
    for expected, result in results:
        assert result.network is GMIC
        np.testing.assert_allclose(result.saliency_global, expected["saliency"][0], rtol=0, atol=TOLERANCE)
        np.testing.assert_array_equal(result.patch_locations, expected["patch_locations"][0])
        assert result.saliency_patches is None
        np.testing.assert_array_equal(result.saliency()[:, ::64, ::64], result.saliency_global)


def test_patches_have_the_published_means(results: list[tuple[dict[str, np.ndarray], Result]]) -> None:
    for expected, result in results:
        image = result.network_input.image
        means = [image[r : r + 256, c : c + 256].mean() for r, c in result.patch_locations]
        np.testing.assert_allclose(means, expected["patch_mean"][0], rtol=0, atol=TOLERANCE)


def test_the_search_is_refused_before_any_work(gmic_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    options = ExportOptions(precisions=("fp32", "int8"), search=True)
    with pytest.raises(UsageError, match="--precision auto judges mixtures by the saliency maps of patches"):
        export_bundle(gmic_checkpoint, tmp_path / "bundle", options)
    assert not (tmp_path / "bundle").exists()


def test_a_variant_with_another_trunk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "variant.pt"
    torch.save(network.state_dict(network.GMIC) | {"ds_net.conv1.weight": torch.zeros(64, 3, 7, 7)}, path)
    with pytest.raises(CheckpointError, match="GMIC network with a ResNet-18 as global module"):
        load_checkpoint(path)


def test_files_of_a_run_have_what_the_network_has(
    results: list[tuple[dict[str, np.ndarray], Result]], tmp_path: Path
) -> None:
    _, result = results[0]
    found = {path.suffix: path for path in result.save(tmp_path, stem="a")}
    with np.load(found[".npz"]) as written:
        shapes = {name: written[name].shape for name in written}
    assert shapes == {
        "y_global": (2,),
        "y_local": (2,),
        "y_fusion": (2,),
        "saliency_global": (2, 46, 30),
        "patch_locations": (6, 2),
        "attention": (6,),
    }
    assert "peak_saliency" not in json.loads(found[".json"].read_text())["patches"][0]


def test_the_checkpoint_is_recognized_by_its_keys(gmic_checkpoint: Path) -> None:
    found = load_checkpoint(gmic_checkpoint)
    assert (found.network.spec, found.parameters) == (GMIC, 14_110_322)
    assert any("shared_rep_filter.weight" in note for note in found.notes)
