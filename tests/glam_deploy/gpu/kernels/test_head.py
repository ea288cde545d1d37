"""The fusion head on the CPU: its kernels, its numpy twin and the modules that fusion graphs are traced from agree.

The ONNX graphs themselves take longer to write, so the test with them is slow.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_host.build import build_kernels
from cuda_host.run import HostModule, HostStream, Memory

from glam_deploy.engines.base import Arrays, EngineOptions
from glam_deploy.engines.fusion_head import FusionHead, top_mean
from glam_deploy.engines.onnxruntime import OnnxRuntimeEngine
from glam_deploy.gpu.kernels.head import HeadKernels, pack_weights, pooled_shape
from glam_deploy.networks import COMPOSED_MAP, GLAM, GLAM_CONCATENATION, GMIC, NetworkSpec, glam
from glam_export.graphs.onnx_file import write_graph
from glam_export.networks import family_of, graph_modules
from glam_export.reference.base import ReferenceNetwork
from glam_export.steps.write import fusion_weights

NETWORKS = {"GLAM": GLAM, "concatenation": GLAM_CONCATENATION, "GMIC": GMIC}
CELLS = glam.PATCH_MAP**2
CLOSE = 2e-6
EXACT = 3e-7
"""Largest difference from the twin, which computes in float64."""
KINDS = ("random", "tied", "constant", "saturated", "faint")
"""Of patch maps; see `maps`."""


class Head:
    """One network with random weights: the exported module, the twin and the kernels."""

    def __init__(self, network: NetworkSpec, module: HostModule) -> None:
        self.network, self.module = network, module
        self.reference = reference(network)
        with np.load(io.BytesIO(fusion_weights(self.reference)), allow_pickle=False) as arrays:
            self.weights = dict(arrays)
        self.twin = FusionHead(self.weights, network)
        self._exported = graph_modules(self.reference)["fusion"]
        self._packed = Memory.of(pack_weights(self.weights)) if self.weights else None
        self.kernels = HeadKernels(module, network, self._packed)

    def exported(self, inputs: Arrays) -> Arrays:
        """Outputs of the module, without the fused map."""
        outputs = self._exported(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        named = zip(self.network.contract("fusion").outputs, outputs, strict=True)
        return {name: tensor.numpy() for name, tensor in named if name != COMPOSED_MAP}

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs of the kernels; what they do not write is NaN."""
        n = len(inputs["patch_locations"])
        outputs = {name: (n, *t.shape) for name, t in self.twin.contract.outputs.items()}
        if shape := pooled_shape(self.network, n):
            outputs["pooled"] = shape
        memory = {name: Memory.of(array) for name, array in inputs.items()}
        memory |= {name: Memory(shape, np.float32) for name, shape in outputs.items()}
        stream = HostStream()
        self.kernels.launch(stream, {name: one.address for name, one in memory.items()}, n=n)
        assert len(stream.launches) == (2 if shape else 1)
        return {name: memory[name].read() for name in self.twin.contract.outputs}


def reference(network: NetworkSpec) -> ReferenceNetwork:
    """Random weights, with an attention that tells patches apart."""
    torch.manual_seed(3)
    made = family_of(network).reference(network).eval()
    if network.fusion_weights:
        made.mil_attn_w.weight.data *= 8  # type: ignore[union-attr, operator]
    return made


@pytest.fixture(scope="module")
def heads(module: HostModule, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Head]:
    """GLAM's kernels serve both of its variants."""
    modules = {"GMIC": HostModule(build_kernels(tmp_path_factory.mktemp("gmic"), GMIC))}
    return {name: Head(network, modules.get(name, module)) for name, network in NETWORKS.items()}


def filled(network: NetworkSpec, used: list[int], kind: str = "random", unused: float = 0) -> dict[str, np.ndarray]:
    """Inputs of the fusion stage for images with so many used slots; `kind`: of the patch maps."""
    rng, n = np.random.default_rng(used), len(used)
    inputs = {
        name: rng.random((n, *t.shape), np.float32) for name, t in network.contract("fusion").inputs.items()
    }  # as the networks' outputs are, which are maxima after a ReLU, or sigmoids
    inputs["patch_locations"] = rng.integers(0, 80, (n, 6, 2)) * 16
    if "saliency_patches" in inputs:
        inputs["saliency_patches"] = maps(kind, rng, n)
    for image, count in enumerate(used):
        inputs["patch_locations"][image, count:] = -1
        for name in {"saliency_patches", "z_k"} & inputs.keys():
            inputs[name][image, count:] = unused
    return inputs


def maps(kind: str, rng: np.random.Generator, n: int) -> np.ndarray:
    shape = (n, 6, 2, glam.PATCH_MAP, glam.PATCH_MAP)
    if kind == "tied":
        return rng.integers(0, 3, shape).astype(np.float32) / 3
    if kind == "constant":
        return np.broadcast_to(rng.random((n, 6, 2, 1, 1), np.float32), shape).copy()
    if kind == "saturated":
        return (rng.random(shape, np.float32) < 0.4).astype(np.float32)
    if kind == "faint":
        return (1 / (1 + np.exp(rng.normal(9, 2, shape)))).astype(np.float32)
    return rng.random(shape, np.float32)


def assert_close(found: Arrays, expected: Arrays, limit: float = CLOSE) -> None:
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=limit, err_msg=name)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("used", [[1], [2], [3], [4], [5], [6], [1, 6, 3, 2]], ids=str)
def test_every_number_of_patches(heads: Mapping[str, Head], name: str, used: list[int]) -> None:
    head = heads[name]
    inputs = filled(head.network, used)
    found = head.run(inputs)
    assert_close(found, head.exported(inputs))
    assert_close(found, head.twin.run(inputs), EXACT)
    if "attention" in found and used[-1] > 1:
        assert np.ptp(found["attention"][-1, : used[-1]]) > 0.01


@pytest.mark.parametrize("name", ["GLAM", "concatenation"])
@pytest.mark.parametrize("kind", KINDS[1:])
def test_maps_with_equal_values(heads: Mapping[str, Head], name: str, kind: str) -> None:
    head = heads[name]
    inputs = filled(head.network, [2], kind)
    found = head.run(inputs)
    assert_close(found, head.exported(inputs))
    assert_close(found, head.twin.run(inputs), EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_onnx_graph(heads: Mapping[str, Head], name: str, tmp_path: Path) -> None:
    head = heads[name]
    write_graph(graph_modules(head.reference)["fusion"], "fusion", tmp_path / "fusion.onnx", network=head.network)
    graph = (tmp_path / "fusion.onnx").read_bytes()
    engine = OnnxRuntimeEngine(graph, "fusion", EngineOptions(threads=1), network=head.network)
    for array in head.weights.values():
        assert array.tobytes() in graph or array.T.tobytes() in graph
    kinds = KINDS if head.network.has_patch_maps else KINDS[:1]
    # six constant maps in one pool are left out: the graph's own sum of them is 2.5e-6 off that of float64
    for used, kind in [*(([count], "random") for count in range(1, 7)), *(([1, 3, 2, 1], kind) for kind in kinds)]:
        inputs = filled(head.network, used, kind)
        expected = engine.run(inputs)
        assert_close(head.run(inputs), {name: expected[name] for name in head.twin.contract.outputs})


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_saturated_map_has_its_own_value(heads: Mapping[str, Head], value: float) -> None:
    inputs = filled(GLAM_CONCATENATION, [1])
    inputs["saliency_patches"][:] = value
    assert heads["concatenation"].run(inputs)["y_local"].tolist() == [[value, value]]


def test_ties_at_the_threshold_count_up_to_the_number_of_values(heads: Mapping[str, Head]) -> None:
    """Of the 4,915 largest values 4,914 are 0.75 and one of many ties is 0.5; or all, and one of the ties is left."""
    inputs = filled(GLAM_CONCATENATION, [1])
    cells = inputs["saliency_patches"][0, 0].reshape(2, CELLS)
    cells[:] = 0.25
    cells[:, 100:10000] = 0.5
    cells[0, 3:4917] = 0.75
    cells[1, 3:4919] = 0.75
    found = heads["concatenation"].run(inputs)["y_local"][0]
    np.testing.assert_allclose(found, [(4914 * 0.75 + 0.5) / 4915, 0.75], rtol=0, atol=1e-7)


def test_values_of_every_sign_and_exponent(heads: Mapping[str, Head]) -> None:
    """The selection is exact for floats outside of 0..1 too."""
    rng = np.random.default_rng(8)
    inputs = filled(GLAM_CONCATENATION, [1])
    shape = inputs["saliency_patches"][0, 0].shape
    inputs["saliency_patches"][0, 0] = rng.standard_normal(shape) * 10.0 ** rng.integers(-30, 0, shape)
    inputs["saliency_patches"][0, 0, 1] = -np.abs(inputs["saliency_patches"][0, 0, 1])
    found = heads["concatenation"].run(inputs)["y_local"][0]
    expected = top_mean(inputs["saliency_patches"][0, 0].reshape(2, -1).astype(np.float64), 0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_unused_slots_are_not_read(heads: Mapping[str, Head], name: str) -> None:
    head = heads[name]
    found = head.run(filled(head.network, [2, 1], unused=np.nan))
    expected = head.run(filled(head.network, [2, 1]))
    for output, values in expected.items():
        np.testing.assert_array_equal(found[output], values, err_msg=output)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_order_of_blocks_and_threads_does_not_matter(heads: Mapping[str, Head], name: str) -> None:
    head = heads[name]
    inputs = filled(head.network, [3, 1], "tied")
    expected = head.run(inputs)
    with head.module.backwards():
        found = head.run(inputs)
    for output, values in expected.items():
        np.testing.assert_array_equal(found[output], values, err_msg=output)


SPOILT = {
    "y_scale": {"y_global"},
    "saliency_patches": {"y_local"},
    "z_g": {"y_local", "y_fusion", "attention"},
    "z_k": {"y_local", "y_fusion", "attention"},
}
"""Input -> outputs that are NaN or infinite if it is."""


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize(
    ("name", "spoilt"),
    [(name, i) for name, network in NETWORKS.items() for i in SPOILT if i in network.contract("fusion").inputs],
)
def test_no_plausible_score_from_values_that_are_not_finite(
    heads: Mapping[str, Head], name: str, spoilt: str, value: float
) -> None:
    head = heads[name]
    inputs = filled(head.network, [1, 2])
    expected = head.run(inputs)
    place = inputs[spoilt][1].reshape(-1)
    place[len(place) // 3 if spoilt in {"z_g", "y_scale"} else len(place) // 6 - 1] = value
    found = head.run(inputs)
    for output, values in expected.items():
        np.testing.assert_array_equal(found[output][0], values[0], err_msg=output)
        if output not in SPOILT[spoilt]:
            np.testing.assert_array_equal(found[output][1], values[1], err_msg=output)
        elif output == "y_global" or (output == "y_local" and spoilt == "saliency_patches"):
            assert not np.isfinite(found[output][1]).all(), output
        else:
            used = 2 if output == "attention" else None
            assert not np.isfinite(found[output][1][:used]).any(), output


def test_the_number_of_pooled_values_is_that_of_the_published_code() -> None:
    """Half to even of 4915.2 per patch, by hand: for the values 1, 2, 3, ... the mean tells the number."""
    for used, count in enumerate((4915, 9830, 14746, 19661, 24576, 29491), start=1):
        size = used * CELLS
        values = np.arange(1, size + 1, dtype=np.float64)
        assert top_mean(values, 0.3) == (size + size - count + 1) / 2
