"""ONNX Runtime's CUDA provider as an engine, with made-up sessions. Run by test_on_fake_gpu.py."""

import functools
import json
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_cuda.control import FakeDriver
from support.bundles import facts, write_manifest
from support.engines import FakeEngine

from glam_deploy import networks
from glam_deploy.bundle import Bundle, graph_file, open_bundle
from glam_deploy.engines import onnxruntime
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.engines.registry import check_engine, open_engines
from glam_deploy.errors import BackendBuildError, BackendRunError, BackendUnavailable, BundleError
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.engines import onnxruntime_cuda
from glam_deploy.gpu.engines.base import DeviceEngine
from glam_deploy.gpu.kernels.launch import Kernels
from glam_deploy.json_records import to_json
from glam_deploy.networks import CAM, GLAM, GLAM_CONCATENATION, GMIC, STAGES, NetworkSpec, Stage, Tensor
from glam_deploy.precision import Precision

compile_once = functools.cache(onnxruntime_cuda.compile_cubin)
PROVIDER = "CUDAExecutionProvider"
TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)"}
REAL = onnxruntime.ort


class World:
    """The made-up library: what was opened, and what goes wrong."""

    def __init__(self, gpu: Gpu, driver: FakeDriver) -> None:
        self.gpu, self.driver = gpu, driver
        self.sessions: list[Session] = []
        self.has_provider = True
        self.provider_loads = True
        self.runs = True

    def session(self, graph: bytes, settings: Any, **arguments: Any) -> "Session":
        self.sessions.append(Session(self, graph, settings, **arguments))
        return self.sessions[-1]


class Session:
    """Computes with `support.engines` in the stream that it was given."""

    def __init__(
        self,
        world: World,
        graph: bytes,
        settings: Any,
        *,
        providers: list[tuple[str, Mapping[str, Any]]],
        enable_fallback: int,
    ) -> None:
        ((name, self.options),) = providers
        assert (name, enable_fallback) == (PROVIDER, 0)
        self.world = world
        self.strict = has(settings, "session.disable_cpu_ep_fallback")
        if self.strict and not world.provider_loads:
            raise RuntimeError("graph nodes are assigned to the default CPU EP, but fallback has been disabled")
        said = json.loads(graph)
        self.precision = said["precision"]
        self.engine = FakeEngine(said["stage"], network=networks.network(said["network"], said["aggregation"]))
        self.bound: dict[str, tuple[Any, ...]] = {}

    def get_providers(self) -> list[str]:
        return [PROVIDER, "CPUExecutionProvider"] if self.world.provider_loads else ["CPUExecutionProvider"]

    def get_inputs(self) -> list[Any]:
        return arguments_of(self.engine.contract.inputs)

    def get_outputs(self) -> list[Any]:
        return arguments_of(self.engine.contract.outputs)

    def io_binding(self) -> Any:
        def bind(name: str, *place: Any) -> None:
            self.bound[name] = place

        return SimpleNamespace(bind_input=bind, bind_output=bind)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
        if not self.world.runs:
            raise RuntimeError("CUDNN failure 4000")
        self.world.driver.put(self.world.gpu.adopt(self.options["user_compute_stream"]), self.compute)

    def compute(self) -> None:
        arrays = {name: FakeDriver.peek(at, shape, dtype) for name, (_, _, dtype, shape, at) in self.bound.items()}
        results = self.engine._run({name: arrays[name] for name in self.engine.contract.inputs})
        for name in arrays.keys() - self.engine.contract.inputs:
            arrays[name][:] = results[name]


def has(settings: Any, entry: str) -> bool:
    try:
        return bool(settings.get_session_config_entry(entry) == "1")
    except RuntimeError:
        return False


def arguments_of(tensors: Mapping[str, Tensor]) -> list[Any]:
    return [SimpleNamespace(name=n, type=TYPES[t.dtype], shape=["batch", *t.shape]) for n, t in tensors.items()]


@pytest.fixture
def world(gpu: Gpu, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(gpu, driver)
    library = SimpleNamespace(
        __version__=REAL.__version__,
        SessionOptions=REAL.SessionOptions,
        RunOptions=REAL.RunOptions,
        InferenceSession=made.session,
        get_available_providers=lambda: [PROVIDER] if made.has_provider else ["CPUExecutionProvider"],
    )
    monkeypatch.setattr(onnxruntime, "ort", library)
    monkeypatch.setattr(onnxruntime_cuda, "ort", library)
    monkeypatch.setattr(onnxruntime_cuda, "compile_cubin", compile_once)
    return made


@pytest.fixture
def graphs(tmp_path: Path) -> Bundle:
    """A bundle whose graphs the made-up sessions read."""
    return bundle_of(tmp_path, GLAM_CONCATENATION)


def bundle_of(folder: Path, network: NetworkSpec) -> Bundle:
    (folder / "graphs").mkdir(parents=True)
    for stage, precision in product(network.stages, ("fp32", "fp16")):
        (folder / graph_file(stage, precision)).write_text(said(stage, network, precision))
    named = {"name": network.name, "aggregation": network.aggregation, "patches": network.patch_count(None)}
    described = facts()
    write_manifest(folder, described | {"network": described["network"] | named})
    return open_bundle(folder)


def said(stage: Stage, network: NetworkSpec, precision: Precision = "fp32") -> str:
    whose = {"network": network.name, "aggregation": network.aggregation}
    return json.dumps({"stage": stage, **whose, "precision": "fp32" if stage == "fusion" else precision})


@pytest.fixture
def opened(world: World, graphs: Bundle) -> OpenedEngines:
    return open_engines("onnx-cuda", graphs, EngineOptions())


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


def test_another_stream_waits_for_it_and_is_waited_for(opened: OpenedEngines, gpu: Gpu, driver: FakeDriver) -> None:
    engine = opened.engines["local"]
    assert isinstance(engine, DeviceEngine)
    inputs = inputs_of("local", 1)["patches"]
    expected = FakeEngine("local").run({"patches": inputs})["z_k"]
    contract = {**engine.contract.inputs, **engine.contract.outputs}
    memory = {name: gpu.allocate(4 * int(np.prod(t.shape))) for name, t in contract.items()}
    addresses = {name: m.address for name, m in memory.items()}
    run = engine.bind(addresses, batch=1, scratch=0, stream=gpu.stream())
    other, found = gpu.stream(), np.zeros_like(expected)
    host = gpu.pinned(inputs.nbytes)
    host.array[:] = inputs.view(np.uint8).ravel()
    result = gpu.pinned(found.nbytes)
    other.copy_in(addresses["patches"], host.address, inputs.nbytes)
    run.enqueue(other)
    assert not run.capturable
    other.copy_out(result.address, addresses["z_k"], found.nbytes)
    other.synchronize()
    np.testing.assert_array_equal(result.array.view(np.float32), expected.ravel())


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
    file.write_text(said("fusion", GLAM))
    write_manifest(graphs.folder, facts())
    with pytest.raises(BundleError, match="fusion graph: its inputs are"):
        open_engines("onnx-cuda", open_bundle(graphs.folder), EngineOptions())
