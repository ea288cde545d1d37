"""TensorRT engines at run time, with made-up libraries of both kinds. Run by test_on_fake_gpu.py."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fake_cuda.control import FakeDriver
from support import tensorrt_runtime as support_tensorrt_runtime
from support.engines import FakeEngine
from support.tensorrt_runtime import KINDS, ROW_BYTES, Allocation, Faults, Graphs, Specialization, library, plan

from glam_deploy.errors import BackendBuildError, BackendRunError, BackendUnavailable, BundleError
from glam_deploy.gpu.device.context import DeviceMemory
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Stream
from glam_deploy.gpu.engines.tensorrt.engine import TensorRtEngine, TensorRtRun
from glam_deploy.gpu.engines.tensorrt.flavours import Library
from glam_deploy.networks import GLAM, GLAM_CONCATENATION, NETWORKS, NetworkSpec, Stage


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def trt(kind: str, gpu: Gpu, driver: FakeDriver) -> Library:
    return library(kind, gpu, driver)


def opened(
    lib: Library, gpu: Gpu, stage: Stage = "local", *, network: NetworkSpec = GLAM_CONCATENATION, **changes: Any
) -> TensorRtEngine:
    content = plan(stage, network=network, **changes)
    return TensorRtEngine(lib, content, stage, network=network, gpu=gpu)


class Bound:
    """An engine bound to memory of its own."""

    def __init__(self, engine: TensorRtEngine, gpu: Gpu, batch: int, stream: Stream | None = None) -> None:
        self.stream = stream or gpu.stream()
        tensors = {**engine.contract.inputs, **engine.contract.outputs}
        rows = {name: int(np.prod(t.shape)) * np.dtype(t.dtype).itemsize for name, t in tensors.items()}
        self.memory: dict[str, DeviceMemory] = {name: gpu.allocate(batch * n) for name, n in rows.items()}
        self.scratch = gpu.allocate(engine.scratch_bytes(batch))
        addresses = {name: m.address for name, m in self.memory.items()}
        self.run: TensorRtRun = engine.bind(addresses, batch=batch, scratch=self.scratch.address, stream=self.stream)


def inputs_of(stage: Stage, batch: int, *, network: NetworkSpec = GLAM_CONCATENATION) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    contract = network.contract(stage)
    values = {name: rng.random((batch, *t.shape), np.float32) for name, t in contract.inputs.items()}
    if "patch_locations" in values:
        values["patch_locations"] = rng.integers(0, 100, (batch, 6, 2)) * 16
    return values


# opening


@pytest.mark.parametrize(("network", "stage"), [(network, stage) for network in NETWORKS for stage in network.stages])
def test_numbers(trt: Library, gpu: Gpu, stage: Stage, network: NetworkSpec) -> None:
    engine = opened(trt, gpu, stage, network=network)
    inputs = inputs_of(stage, 2, network=network)
    expected = FakeEngine(stage, network=network).run(inputs)
    found = engine.run(inputs)
    assert found.keys() == expected.keys() - {"saliency"}
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"renamed": {"patches": "input.1"}}, r"local graph: its inputs are input\.1 float32"),
        ({"renamed": {"z_k": "output"}}, "local graph: its outputs are"),
        ({"dtypes": {"patches": "float16"}}, r"inputs are patches float16 \['batch', 1, 512, 512\]"),
        ({"dtypes": {"z_k": "float16"}}, "z_k float16"),
        ({"short": "patches"}, r"patches float32 \['batch', 1, 512, 511\]"),
    ],
)
def test_engines_of_another_network(trt: Library, gpu: Gpu, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        opened(trt, gpu, **changes)


def test_engine_with_and_without_a_head_are_not_confused(trt: Library, gpu: Gpu) -> None:
    for built, asked in ((GLAM_CONCATENATION, GLAM), (GLAM, GLAM_CONCATENATION)):
        with pytest.raises(BundleError, match="fusion graph: its inputs are"):
            TensorRtEngine(trt, plan("fusion", network=built), "fusion", network=asked, gpu=gpu)


def test_a_file_that_is_no_engine(trt: Library, gpu: Gpu) -> None:
    with pytest.raises(
        BackendBuildError, match=r"local engine: TensorRT.* cannot load it: .*magicTag.*glam-deploy build"
    ):
        TensorRtEngine(trt, b"rubbish", "local", network=GLAM_CONCATENATION, gpu=gpu)


def test_a_gpu_that_the_library_cannot_run_on(gpu: Gpu, driver: FakeDriver) -> None:
    """TensorRT-RTX 1.7.1 on an H200: it builds, and refuses its own engine."""
    trt = library("tensorrt-rtx", gpu, driver, Faults("capability"))
    with pytest.raises(BackendBuildError, match=r"cannot load it: .*does not support this compute capability"):
        opened(trt, gpu)


def test_a_library_that_does_not_start(kind: str, gpu: Gpu, driver: FakeDriver) -> None:
    with pytest.raises(BackendUnavailable, match="does not start on this machine: CUDA initialization failure"):
        opened(library(kind, gpu, driver, Faults("runtime")), gpu)


# profiles and memory


def test_an_engine_that_needs_no_scratch(trt: Library, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support_tensorrt_runtime, "ROW_BYTES", 0)
    engine = opened(trt, gpu)
    assert engine.scratch_bytes(1) == 0
    engine.run(inputs_of("local", 1))
    address, nbytes = trt.trt.contexts[-1].memory
    assert address > 0
    assert nbytes == 0


def test_the_profile_of_a_batch_is_the_one_made_for_it_else_the_smallest_with_room(trt: Library, gpu: Gpu) -> None:
    engine = opened(trt, gpu, profiles=[(1, 4, 24), (1, 1, 6)])
    for batch, largest in {1: 6, 2: 6, 4: 24, 6: 6, 7: 24, 24: 24}.items():
        assert engine.scratch_bytes(batch) == batch * ROW_BYTES, "for this batch, not the largest of its profile"
        bound = Bound(engine, gpu, batch)
        context = trt.trt.contexts[-1]
        assert context.active_optimization_profile == (1 if largest == 6 else 0)
        assert context.memory == (bound.scratch.address, batch * ROW_BYTES)
        assert context.shapes == {"patches": (batch, 1, 512, 512)}
        assert (context.profile_stream is not None) == (largest == 6)
        bound.run.enqueue(bound.stream)
        bound.stream.synchronize()


def test_a_library_that_does_not_tell_a_size_gets_the_profiles(kind: str, gpu: Gpu, driver: FakeDriver) -> None:
    engine = opened(library(kind, gpu, driver, Faults("sizes")), gpu)
    assert [engine.scratch_bytes(batch) for batch in (1, 6, 7)] == [6 * ROW_BYTES, 6 * ROW_BYTES, 24 * ROW_BYTES]
    engine.run(inputs_of("local", 2))


def test_a_size_that_grows_after_the_memory_was_made_is_refused(
    trt: Library, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(trt, gpu)
    Bound(engine, gpu, 1)
    monkeypatch.setattr(support_tensorrt_runtime, "ROW_BYTES", 2 * ROW_BYTES)
    with pytest.raises(BackendRunError, match=f"needs {2 * ROW_BYTES} bytes of scratch for a batch of 1, but it"):
        Bound(engine, gpu, 1)


def test_the_size_of_a_batch_costs_no_context_of_its_own(trt: Library, gpu: Gpu) -> None:
    engine = opened(trt, gpu)
    for _ in range(3):
        engine.scratch_bytes(2)
    Bound(engine, gpu, 2)
    assert len(trt.trt.contexts) == 1
    Bound(engine, gpu, 2)
    assert len(trt.trt.contexts) == 2


@pytest.mark.parametrize("batch", [1, 4, 5])
def test_a_batch_that_no_profile_has(trt: Library, gpu: Gpu, batch: int) -> None:
    engine = opened(trt, gpu, profiles=[(2, 2, 2), (3, 3, 3)])
    words = f"local engine: the batch size is {batch}, expected 2 to 2, 3 to 3"
    for use in (engine.scratch_bytes, lambda n: engine.run(inputs_of("local", n))):
        with pytest.raises(BackendRunError, match=words):
            use(batch)


def test_every_binding_has_a_context_and_addresses_of_its_own(trt: Library, gpu: Gpu) -> None:
    engine = opened(trt, gpu)
    bounds = [Bound(engine, gpu, 1) for _ in range(2)]
    contexts = trt.trt.contexts
    assert len(contexts) == 2
    for bound, context in zip(bounds, contexts, strict=True):
        assert context.addresses == {name: memory.address for name, memory in bound.memory.items()}


def test_how_contexts_are_made(kind: str, trt: Library, gpu: Gpu) -> None:
    engine = opened(trt, gpu)
    for _ in range(2):
        Bound(engine, gpu, 1)
    first, second = (context.settings for context in trt.trt.contexts)
    assert first.allocation is second.allocation is Allocation.USER_MANAGED
    if kind == "tensorrt-rtx":
        assert first.cuda_graph_strategy is Graphs.DISABLED
        assert first.dynamic_shapes_kernel_specialization_strategy is Specialization.EAGER
        assert first.cache is second.cache is not None


def test_contexts_made_in_many_threads(trt: Library, gpu: Gpu) -> None:
    engine = opened(trt, gpu)
    inputs = inputs_of("local", 1)
    expected = FakeEngine("local").run(inputs)

    def one(_: int) -> np.ndarray:
        bound = Bound(engine, gpu, 1)
        bound.stream.copy_in(bound.memory["patches"].address, inputs["patches"].ctypes.data, inputs["patches"].nbytes)
        bound.run.enqueue(bound.stream)
        found = np.empty_like(expected["z_k"])
        bound.stream.copy_out(found.ctypes.data, bound.memory["z_k"].address, found.nbytes)
        bound.stream.synchronize()
        return found

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(one, range(8)):
            np.testing.assert_array_equal(found, expected["z_k"])


# running


def test_only_a_run_that_has_run_can_be_recorded(trt: Library, gpu: Gpu, driver: FakeDriver) -> None:
    bound = Bound(opened(trt, gpu), gpu, 1)
    assert not bound.run.capturable
    bound.run.enqueue(bound.stream)
    bound.stream.synchronize()
    assert bound.run.capturable
    with bound.stream.capture() as graph:
        bound.run.enqueue(bound.stream)
    inputs = inputs_of("local", 1)
    bound.stream.copy_in(bound.memory["patches"].address, inputs["patches"].ctypes.data, inputs["patches"].nbytes)
    graph.launch(bound.stream)
    bound.stream.synchronize()
    expected = FakeEngine("local").run(inputs)["z_k"]
    found = driver.peek(bound.memory["z_k"].address, expected.shape, np.float32)
    np.testing.assert_array_equal(found, expected)


def test_rtx_has_the_last_word_on_recording(gpu: Gpu, driver: FakeDriver) -> None:
    bound = Bound(opened(library("tensorrt-rtx", gpu, driver, Faults("capture")), gpu), gpu, 1)
    bound.run.enqueue(bound.stream)
    bound.stream.synchronize()
    assert not bound.run.capturable


@pytest.mark.parametrize("fault", ["", "graph"])
def test_a_recording_that_the_library_breaks_leaves_engine_and_stream_usable(
    kind: str, gpu: Gpu, driver: FakeDriver, fault: str
) -> None:
    """A first run that is recorded, and an engine that allocates in every run."""
    bound = Bound(opened(library(kind, gpu, driver, Faults(fault)), gpu), gpu, 1)
    if fault:
        bound.run.enqueue(bound.stream)
    words = r"local engine: TensorRT.* cannot run: Error Code 1: Cuda Runtime"
    with pytest.raises(BackendRunError, match=words), bound.stream.capture():
        bound.run.enqueue(bound.stream)
    bound.run.enqueue(bound.stream)
    bound.stream.synchronize()


def test_any_stream_may_run_it(trt: Library, gpu: Gpu) -> None:
    bound = Bound(opened(trt, gpu), gpu, 1)
    other = gpu.stream()
    bound.run.enqueue(other)
    assert not other.is_idle
    assert bound.stream.is_idle
    other.synchronize()


def test_nothing_is_allocated_and_nobody_waits_between_runs(trt: Library, gpu: Gpu) -> None:
    bound = Bound(opened(trt, gpu), gpu, 1)
    before = gpu.counts
    for _ in range(3):
        bound.run.enqueue(bound.stream)
    assert gpu.counts == before
    bound.stream.synchronize()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("context", "cannot create a context: Error Code 2: OutOfMemory"),
        ("profile", "cannot change its profile: Profile cannot be changed"),
        ("shape", "cannot set 24 rows for 'patches': setInputShape fails"),
        ("address", "cannot set the address of 'patches': setTensorAddress fails"),
        ("run", "cannot run: Error Code 1: Cuda Runtime"),
    ],
)
def test_the_librarys_words_are_told(kind: str, gpu: Gpu, driver: FakeDriver, fault: str, words: str) -> None:
    engine = opened(library(kind, gpu, driver, Faults(fault)), gpu)
    for _ in range(2):
        with pytest.raises(BackendRunError, match=f"^local engine: TensorRT.* {words}") as caught:
            engine.run(inputs_of("local", 24))
        assert str(caught.value).count("Error Code") <= 1
