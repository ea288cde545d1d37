"""Weights of the fusion head: read from bundles that have them, refused where they are not those of the graph."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.bundles import facts, write_manifest

from glam_deploy.bundle import FUSION_WEIGHTS_FILE, Bundle, graph_file, open_bundle
from glam_deploy.engines import onnxruntime
from glam_deploy.engines.fusion_head import (
    FusionHead,
    Weights,
    read_fusion_weights,
    require_scores_of_graph,
    require_weights_of_graph,
)
from glam_deploy.errors import BundleError
from glam_deploy.networks import GLAM, GLAM_CONCATENATION, GMIC, NetworkSpec
from glam_export.reference.gmic import GmicNetwork
from glam_export.steps.write import fusion_weights


def random_weights(network: NetworkSpec) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in network.fusion_weights.items()}


def write_bundle(folder: Path, network: NetworkSpec, weights: Weights | None, graph: bytes = b"graph") -> Bundle:
    """A made-up bundle of a network; `weights` None is one of an earlier release."""
    (folder / "graphs").mkdir(parents=True)
    for stage in network.stages:
        (folder / graph_file(stage)).write_bytes(graph)
    if weights is not None:
        file = io.BytesIO()
        np.savez(file, **weights)  # type: ignore[arg-type]
        (folder / FUSION_WEIGHTS_FILE).write_bytes(file.getvalue())
    write_manifest(folder, described_as(network))
    return open_bundle(folder)


def described_as(network: NetworkSpec) -> dict[str, Any]:
    described = facts()
    described["network"] |= {"name": network.name, "aggregation": network.aggregation}
    return described


@pytest.mark.parametrize("network", [GLAM, GLAM_CONCATENATION, GMIC], ids=lambda n: f"{n.name}-{n.aggregation}")
def test_weights_that_are_there(tmp_path: Path, network: NetworkSpec) -> None:
    weights = random_weights(network)
    found = read_fusion_weights(write_bundle(tmp_path / "bundle", network, weights))
    assert found is not None
    assert found.keys() == weights.keys()
    for name, values in weights.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_bundle_of_an_earlier_release(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", GLAM, None)
    assert read_fusion_weights(bundle) is None
    require_weights_of_graph(bundle)


@pytest.mark.parametrize(
    "changed",
    [
        {"fusion_dnn.bias": None},
        {"another": np.zeros(2, np.float32)},
        {"fusion_dnn.bias": np.zeros(3, np.float32)},
        {"fusion_dnn.bias": np.zeros(2)},
        {"fusion_dnn.bias": np.array([0, np.nan], np.float32)},
    ],
    ids=["missing", "unknown", "shape", "dtype", "NaN"],
)
def test_weights_of_no_network(tmp_path: Path, changed: dict[str, np.ndarray | None]) -> None:
    weights = {name: array for name, array in (random_weights(GLAM) | changed).items() if array is not None}
    said = r"graphs/fusion\.npz (has .*; expected finite values of float32|cannot be read .* expected).*Export"
    with pytest.raises(BundleError, match=said):
        read_fusion_weights(write_bundle(tmp_path / "bundle", GLAM, weights))


def npz(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}"
HOSTILE = {
    "nothing": b"",
    "no archive": b"graph",
    "array": header(HUGE),
    "pickle": pickle.dumps({"fusion_dnn.bias": 1}),
    "bomb": npz(**{name: bytes(100_000_000) for name in GLAM.fusion_weights}),
    "no arrays": npz(**dict.fromkeys(GLAM.fusion_weights, b"")),
    "huge shape": npz(**dict.fromkeys(GLAM.fusion_weights, header(HUGE))),
    "objects": npz(**dict.fromkeys(GLAM.fusion_weights, header(HUGE.replace("<f4", "|O")))),
    "truncated": npz(**dict.fromkeys(GLAM.fusion_weights, header(HUGE)))[:-30],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_files_that_are_no_weights(tmp_path: Path, what: str) -> None:
    """Their hashes are those of the manifest."""
    bundle = write_bundle(tmp_path / "bundle", GLAM, random_weights(GLAM))
    (bundle.folder / FUSION_WEIGHTS_FILE).write_bytes(HOSTILE[what])
    write_manifest(bundle.folder, described_as(GLAM))
    with pytest.raises(BundleError, match=r"graphs/fusion\.npz cannot be read .*Export the checkpoint again"):
        read_fusion_weights(open_bundle(bundle.folder))


def test_weights_that_are_exchanged_or_short_give_other_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All their bytes are somewhere in the graph."""
    true = random_weights(GLAM)
    monkeypatch.setattr(onnxruntime, "OnnxRuntimeEngine", lambda *_, network: FusionHead(true, network))
    require_scores_of_graph(write_bundle(tmp_path / "same", GLAM, true))
    v, u = true["mil_attn_V.weight"], true["mil_attn_U.weight"]
    wrong = {
        "exchanged": {"mil_attn_V.weight": u, "mil_attn_U.weight": v},
        "zero": {"fusion_dnn.bias": np.zeros(2, np.float32)},
    }
    for name, changed in wrong.items():
        bundle = write_bundle(tmp_path / name, GLAM, true | changed)
        with pytest.raises(BundleError, match=r"give other scores than graphs/fusion\.onnx: .* by 0\.\d+; expected"):
            require_scores_of_graph(bundle)


def test_a_changed_file(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", GLAM, random_weights(GLAM))
    file = bundle.folder / FUSION_WEIGHTS_FILE
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match=r"graphs/fusion\.npz was changed"):
        read_fusion_weights(bundle)


def test_weights_of_the_graph(tmp_path: Path) -> None:
    """Each as it is or transposed, in any order; one value that differs is found and its weight is named."""
    weights = random_weights(GMIC)
    parts = [array.T.tobytes() if n % 2 else array.tobytes() for n, array in enumerate(weights.values())]
    require_weights_of_graph(write_bundle(tmp_path / "same", GMIC, weights, b"--".join(reversed(parts))))
    weights["mil_attn_U.weight"][7, 9] = np.nextafter(weights["mil_attn_U.weight"][7, 9], np.float32(9))
    other = write_bundle(tmp_path / "other", GMIC, weights, b"--".join(parts))
    with pytest.raises(
        BundleError, match=r"other: mil_attn_U\.weight of graphs/fusion\.npz: other values than in graph"
    ):
        require_weights_of_graph(other)


def test_equal_weights_give_equal_bytes() -> None:
    torch.manual_seed(0)
    network = GmicNetwork(GMIC)
    assert fusion_weights(network) == fusion_weights(network)


def test_attention_and_fusion_worked_by_hand() -> None:
    """Units of tanh(0.5) * sigmoid(0) for one patch and none for the other, whose z is 0; sums of a few weights."""
    weights = {name: np.zeros(shape, np.float32) for name, shape in GMIC.fusion_weights.items()}
    weights["mil_attn_V.weight"][0, 0] = 0.5
    weights["mil_attn_w.weight"][0, 0] = 4
    weights["classifier_linear.weight"][1, 0] = 2
    weights["fusion_dnn.weight"][0, [3, 256]] = 1, -1
    weights["fusion_dnn.bias"][:] = 0.25, -0.5
    inputs = {name: np.zeros((1, *t.shape), t.dtype) for name, t in GMIC.contract("fusion").inputs.items()}
    inputs["patch_locations"][0, 2:] = -1
    inputs["z_k"][0, 0, 0], inputs["z_g"][0, 3] = 1, 2
    found = FusionHead(weights, GMIC).run(inputs)
    share = 1 / (1 + np.exp(-4 * np.tanh(0.5) / 2))
    np.testing.assert_allclose(found["attention"][0], [share, 1 - share, 0, 0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(found["y_local"][0], [0.5, 1 / (1 + np.exp(-2 * share))], atol=1e-7)
    np.testing.assert_allclose(found["y_fusion"][0], 1 / (1 + np.exp([share - 2.25, 0.5])), atol=1e-7)
