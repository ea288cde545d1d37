"""ONNX Runtime's CUDA provider as an engine, with made-up sessions. Run by test_on_fake_gpu.py."""

import functools
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda.control import FakeDriver
from support.bundles import facts, write_manifest
from support.engines import FakeEngine
from support.onnxruntime_cuda import REAL, Session, World, has, said

from glam_deploy.bundle import Bundle, graph_file, open_bundle
from glam_deploy.engines import onnxruntime
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.engines.registry import check_engine, open_engines
from glam_deploy.errors import BackendBuildError, BackendRunError, BackendUnavailable, BundleError
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Stream
from glam_deploy.gpu.engines import onnxruntime_cuda
from glam_deploy.gpu.engines.base import GpuEngines
from glam_deploy.gpu.engines.onnxruntime_cuda import OnnxRuntimeCudaEngine, OnnxRuntimeCudaRun
from glam_deploy.gpu.kernels.launch import Kernels
from glam_deploy.json_records import to_json
from glam_deploy.networks import CAM, GLAM, GLAM_CONCATENATION, GMIC, STAGES, NetworkSpec, Stage

compile_once = functools.cache(onnxruntime_cuda.compile_cubin)


@pytest.fixture
def world(gpu: Gpu, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(gpu, driver)
    monkeypatch.setattr(onnxruntime, "ort", made.library)
    monkeypatch.setattr(onnxruntime_cuda, "ort", made.library)
    monkeypatch.setattr(onnxruntime_cuda, "compile_cubin", compile_once)
    return made


@pytest.fixture
def graphs(tmp_path: Path) -> Bundle:
    """A bundle whose graphs the made-up sessions read."""
    return bundle_of(tmp_path, GLAM_CONCATENATION)


def bundle_of(folder: Path, network: NetworkSpec) -> Bundle:
    (folder / "graphs").mkdir(parents=True)
    for stage, precision in product(network.stages, ("fp32", "fp16")):
        (folder / graph_file(stage, precision)).write_bytes(said(stage, network, precision))
    write_manifest(folder, facts_of(network))
    return open_bundle(folder)


def facts_of(network: NetworkSpec) -> dict[str, Any]:
    named = {"name": network.name, "aggregation": network.aggregation, "patches": network.patch_count(None)}
    described = facts()
    return described | {"network": described["network"] | named}


@pytest.fixture
def opened(world: World, graphs: Bundle, gpu: Gpu) -> OpenedEngines:
    return open_engines("onnx-cuda", graphs, EngineOptions(device=gpu.index))


def inputs_of(stage: Stage, batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    contract = GLAM_CONCATENATION.contract(stage)
    return {name: rng.integers(0, 9, (batch, *t.shape)).astype(t.dtype) for name, t in contract.inputs.items()}


@pytest.mark.parametrize("stage", STAGES)
def test_numbers(opened: OpenedEngines, stage: Stage) -> None:
    for batch in (1, 3):
        inputs = inputs_of(stage, batch)
        expected = FakeEngine(stage).run(inputs)
        found = opened.engines[stage].run(inputs)
        assert found.keys() == expected.keys() - {"saliency"}
        for name, values in found.items():
            np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize("name", ["onnx-cuda", "onnx-cuda-fp16"])
@pytest.mark.parametrize("network", [GMIC, CAM], ids=lambda network: network.name)
def test_another_network(world: World, tmp_path: Path, network: NetworkSpec, name: str) -> None:
    opened = open_engines(name, bundle_of(tmp_path / "other", network), EngineOptions())
    assert opened.network is network
    assert tuple(opened.engines) == tuple(opened.identity.sha256) == network.stages


def test_half_graphs_have_their_channels_last(world: World, graphs: Bundle) -> None:
    """The option of the CUDA provider that was timed on an H200; the fusion graph has no convolution."""
    opened = open_engines("onnx-cuda-fp16", graphs, EngineOptions(device=0))
    found = {s.engine.stage: (s.precision, s.options.get("prefer_nhwc")) for s in world.sessions}
    assert found == {"global": ("fp16", 1), "local": ("fp16", 1), "fusion": ("fp32", None)}
    files = {"global": "graphs/global.fp16.onnx", "local": "graphs/local.fp16.onnx", "fusion": "graphs/fusion.onnx"}
    assert opened.identity.sha256 == {stage: graphs.files[file].sha256 for stage, file in files.items()}
    assert (opened.identity.name, str(opened.identity.precision)) == ("onnx-cuda-fp16", "fp16")


def test_a_bundle_without_half_graphs(world: World, graphs: Bundle) -> None:
    (graphs.folder / "graphs/local.fp16.onnx").unlink()
    write_manifest(graphs.folder, facts())
    for ask in (open_engines, check_engine):
        with pytest.raises(BundleError, match=r"no graphs/local\.fp16\.onnx\. Export .* again with --precision fp16"):
            ask("onnx-cuda-fp16", open_bundle(graphs.folder), EngineOptions())
    assert world.sessions == []


def test_how_sessions_are_opened(world: World, opened: OpenedEngines, gpu: Gpu) -> None:
    opened.engines["local"].run(inputs_of("local", 2))
    session = world.sessions[-1]
    assert session.strict
    assert session.own_arena
    assert session.options["device_id"] == gpu.index
    assert session.options["use_tf32"] == 0
    assert "prefer_nhwc" not in session.options
    assert session.bound["patches"][:4] == ("cuda", gpu.index, np.float32, (2, 1, 512, 512))
    assert session.bound.keys() == {"patches", "saliency_patches", "z_k"}


def test_provenance(opened: OpenedEngines, graphs: Bundle, gpu: Gpu) -> None:
    assert to_json(opened.identity) == {
        "name": "onnx-cuda",
        "library": f"onnxruntime {REAL.__version__}",
        "device": gpu.name,
        "compute_capability": gpu.compute_capability,
        "driver": gpu.driver,
        "precision": "fp32",
        "sha256": {stage: graphs.files[f"graphs/{stage}.onnx"].sha256 for stage in STAGES},
    }
    assert isinstance(opened.kernels, Kernels)
    assert isinstance(opened.gpu, Gpu)


@pytest.mark.parametrize("network", [GLAM, GLAM_CONCATENATION], ids=lambda network: network.aggregation)
def test_weights_of_the_fusion_head_make_another_engine(world: World, tmp_path: Path, network: NetworkSpec) -> None:
    """A gate of the fusion engine is not one of the kernels; a bundle without weights keeps engine and gate."""
    before = open_engines("onnx-cuda", bundle_of(tmp_path / "bundle", network), EngineOptions())
    weights = {name: np.ones(shape, np.float32) for name, shape in network.fusion_weights.items()}
    np.savez(tmp_path / "bundle/graphs/fusion.npz", **weights)  # type: ignore[arg-type]
    write_manifest(tmp_path / "bundle", facts_of(network))
    bundle = open_bundle(tmp_path / "bundle")
    opened = open_engines("onnx-cuda", bundle, EngineOptions())
    assert isinstance(before, GpuEngines) and isinstance(opened, GpuEngines)
    assert (before.head, opened.head is None) == (None, False)
    assert opened.engines.keys() == before.engines.keys()
    assert "fusion_kernels" not in to_json(before.identity)
    assert to_json(opened.identity) == to_json(before.identity) | {
        "sha256": {**before.identity.sha256, "fusion": bundle.files["graphs/fusion.npz"].sha256},
        "fusion_kernels": True,
    }
    assert opened.identity.digest != before.identity.digest


@dataclass
class Bound:
    """The local stage on memory of its own, with streams to enqueue it in."""

    gpu: Gpu
    run: OnnxRuntimeCudaRun
    stream: Stream
    addresses: dict[str, int]
    memory: object

    def write(self, seed: int, stream: Stream) -> np.ndarray:
        """Put inputs into GPU memory; returns `z_k` for them."""
        inputs = np.random.default_rng(seed).integers(0, 9, (1, 1, 512, 512)).astype(np.float32)
        stream.copy_in(self.addresses["patches"], inputs.ctypes.data, inputs.nbytes)
        return np.asarray(FakeEngine("local").run({"patches": inputs})["z_k"])

    def read(self, stream: Stream) -> np.ndarray:
        found = np.zeros((1, 512), np.float32)
        stream.copy_out(found.ctypes.data, self.addresses["z_k"], found.nbytes)
        stream.synchronize()
        return found


@pytest.fixture
def bound(opened: OpenedEngines, gpu: Gpu) -> Bound:
    engine, stream = opened.engines["local"], gpu.stream()
    assert isinstance(engine, OnnxRuntimeCudaEngine)
    contract = {**engine.contract.inputs, **engine.contract.outputs}
    memory = {name: gpu.allocate(4 * int(np.prod(t.shape))) for name, t in contract.items()}
    addresses = {name: m.address for name, m in memory.items()}
    run = engine.bind(addresses, batch=1, scratch=0, stream=stream)
    return Bound(gpu, run, stream, addresses, memory)


@pytest.mark.parametrize("own", [True, False], ids=["in its own stream", "in another stream"])
def test_streams_and_graphs_have_its_work_in_order(bound: Bound, world: World, driver: FakeDriver, own: bool) -> None:
    stream = bound.stream if own else bound.gpu.stream()
    expected = bound.write(1, stream)
    assert not bound.run.capturable
    bound.run.enqueue(stream)
    np.testing.assert_array_equal(bound.read(stream), expected)
    assert bound.run.capturable, "the second run has allocated what later ones need"
    assert world.sessions[-1].runs == 2
    allocated = driver.live()
    with stream.capture() as graph:
        bound.run.enqueue(stream)
    for seed in (2, 3):
        expected = bound.write(seed, stream)
        graph.launch(stream)
        np.testing.assert_array_equal(bound.read(stream), expected)
    assert (world.sessions[-1].runs, driver.live()) == (3, allocated)


def test_arguments_that_are_freed_are_in_no_graph(bound: Bound, world: World) -> None:
    """Launched again, the copy would read freed memory, and the host function would free it twice."""
    world.copying = {"local"}
    bound.run.enqueue(bound.stream)
    found = r"1 HOST, 1 MEMCPY from or to host memory \(of 3 nodes\)"
    words = rf"local engine: onnxruntime [\d.]+ has recorded work that may not be launched again.*{found}"
    with pytest.raises(BackendRunError, match=words), bound.stream.capture():
        bound.run.enqueue(bound.stream)
    for seed in (1, 2):
        expected = bound.write(seed, bound.stream)
        bound.run.enqueue(bound.stream)
        np.testing.assert_array_equal(bound.read(bound.stream), expected)
    assert len(world.arguments) == 1, "only the recorded run, which was not launched, has freed nothing"


def test_the_error_of_a_failed_capture_is_not_that_of_the_next_run(bound: Bound, world: World) -> None:
    bound.run.enqueue(bound.stream)
    world.waiting = {"local"}
    with pytest.raises(BackendRunError, match=r"CUDA failure 900.*cudaStreamSynchronize"), bound.stream.capture():
        bound.run.enqueue(bound.stream)
    expected = bound.write(1, bound.stream)
    bound.run.enqueue(bound.stream)
    np.testing.assert_array_equal(bound.read(bound.stream), expected)


@pytest.mark.parametrize("release", ["1.26.0", "1.32.0", "2.27.0"])
def test_releases_whose_memory_may_be_shared_are_not_recorded(bound: Bound, world: World, release: str) -> None:
    world.library.__version__ = release
    bound.run.enqueue(bound.stream)
    assert not bound.run.capturable


def test_a_failing_run(world: World, opened: OpenedEngines) -> None:
    world.runs = False
    with pytest.raises(BackendRunError, match=r"local engine: ONNX Runtime [\d.]+ failed: CUDNN failure 4000"):
        opened.engines["local"].run(inputs_of("local", 1))


def test_package_without_the_provider(world: World, graphs: Bundle) -> None:
    world.has_provider = False
    with pytest.raises(BackendUnavailable, match=r"onnxruntime-gpu cannot be installed together.*pip uninstall"):
        open_engines("onnx-cuda", graphs, EngineOptions())
    assert world.sessions == []


def test_provider_whose_libraries_are_missing(world: World, graphs: Bundle) -> None:
    world.provider_loads = False
    with pytest.raises(BackendUnavailable, match="cannot load its CUDA provider: cuDNN or a CUDA library is missing"):
        open_engines("onnx-cuda", graphs, EngineOptions())


def test_a_node_that_the_provider_lacks_is_no_work_for_the_cpu(
    world: World, graphs: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(graph: bytes, settings: Any, **arguments: Any) -> Session:
        if has(settings, "session.disable_cpu_ep_fallback"):
            raise RuntimeError("This session contains graph nodes that are assigned to the default CPU EP")
        return Session(world, graph, settings, **arguments)

    monkeypatch.setattr(onnxruntime.ort, "InferenceSession", refuse)
    with pytest.raises(BackendBuildError, match=r"global graph: ONNX Runtime .* rejects it: This session"):
        open_engines("onnx-cuda", graphs, EngineOptions())


def test_graphs_of_another_network(world: World, graphs: Bundle) -> None:
    file = graphs.folder / "graphs/fusion.onnx"
    file.write_bytes(said("fusion", GLAM))
    write_manifest(graphs.folder, facts())
    with pytest.raises(BundleError, match="fusion graph: its inputs are"):
        open_engines("onnx-cuda", open_bundle(graphs.folder), EngineOptions())
