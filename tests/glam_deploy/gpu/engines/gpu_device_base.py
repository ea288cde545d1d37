"""What engines on a GPU owe their callers, with an engine of plain arithmetic. Run by test_on_fake_gpu.py."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fake_cuda.control import FakeDriver
from support.device import HostFunctionEngine
from support.engines import FakeEngine

from glam_deploy.engines.base import Arrays
from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.networks import GLAM_CONCATENATION, NETWORKS, NetworkSpec, Stage


def inputs_of(
    stage: Stage, batch: int, *, network: NetworkSpec = GLAM_CONCATENATION, seed: int = 0
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    contract = network.contract(stage)
    values = {name: rng.random((batch, *t.shape), np.float32) for name, t in contract.inputs.items()}
    if "patch_locations" in values:
        values["patch_locations"] = rng.integers(0, 100, (batch, 6, 2)) * 16
    return values


def assert_equal(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys() - {"saliency"}
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


@pytest.mark.parametrize(("network", "stage"), [(network, stage) for network in NETWORKS for stage in network.stages])
def test_numbers_are_those_of_the_same_engine_on_the_host(
    gpu: Gpu, driver: FakeDriver, stage: Stage, network: NetworkSpec
) -> None:
    host = FakeEngine(stage, network=network)
    engine = HostFunctionEngine(host, gpu, driver)
    inputs = inputs_of(stage, 2, network=network)
    outputs = engine.run(inputs)
    assert_equal(outputs, host.run(inputs))
    assert outputs.keys() == engine.contract.outputs.keys()
    assert "saliency" not in outputs


def test_outputs_belong_to_the_caller(gpu: Gpu, driver: FakeDriver) -> None:
    engine = HostFunctionEngine(FakeEngine("local"), gpu, driver)
    first = engine.run(inputs_of("local", 1, seed=1))
    copies = {name: values.copy() for name, values in first.items()}
    second = engine.run(inputs_of("local", 1, seed=2))
    assert_equal(first, copies)
    assert not np.array_equal(first["z_k"], second["z_k"])


def test_inputs_in_any_order_of_memory(gpu: Gpu, driver: FakeDriver) -> None:
    engine = HostFunctionEngine(FakeEngine("local"), gpu, driver)
    inputs = inputs_of("local", 2)
    strange = {name: np.asfortranarray(values) for name, values in inputs.items()}
    assert_equal(engine.run(strange), engine.run(inputs))


def test_a_batch_is_bound_once_and_its_memory_is_free_before_that_of_another_is_asked_for(
    gpu: Gpu, driver: FakeDriver
) -> None:
    engine = HostFunctionEngine(FakeEngine("local"), gpu, driver)
    gc.collect()
    before = driver.live()
    for batch in (1, 1, 3, 3, 1):
        engine.run(inputs_of("local", batch))
        tensors_and_scratch = 3 + 1
        assert driver.live() == before + tensors_and_scratch
    assert engine.binds == [1, 3, 1]
    with driver.recorded() as lines:
        engine.run(inputs_of("local", 2))
    assert lines.index("cuMemFree") < lines.index("cuMemAlloc")
    assert lines.count("cuMemFree") == lines.count("cuMemAlloc")


def test_one_wait_a_run_and_no_memory_after_the_first(gpu: Gpu, driver: FakeDriver) -> None:
    engine = HostFunctionEngine(FakeEngine("local"), gpu, driver)
    engine.run(inputs_of("local", 1))
    before = gpu.counts
    engine.run(inputs_of("local", 1))
    assert gpu.counts.allocations == before.allocations
    assert gpu.counts.synchronisations == before.synchronisations + 1


def test_many_threads(gpu: Gpu, driver: FakeDriver) -> None:
    host = FakeEngine("local")
    engine = HostFunctionEngine(host, gpu, driver)
    many = [inputs_of("local", 1 + seed % 2, seed=seed) for seed in range(12)]
    with ThreadPoolExecutor(6) as pool:
        for inputs, found in zip(many, pool.map(engine.run, many), strict=True):
            assert_equal(found, host.run(inputs))


def test_numbers_that_are_not_finite_are_not_handed_on(
    gpu: Gpu, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLAM_TEST_NAN", "1")
    engine = HostFunctionEngine(FakeEngine("global"), gpu, driver)
    with pytest.raises(BackendRunError, match="global engine: 6 of 6 values of 'y_scale' are NaN"):
        engine.run(inputs_of("global", 1))


def test_a_run_is_recorded_and_replayed_over_the_same_addresses(gpu: Gpu, driver: FakeDriver) -> None:
    host = FakeEngine("local")
    engine = HostFunctionEngine(host, gpu, driver)
    stream = gpu.stream()
    tensors = {**engine.contract.inputs, **engine.contract.outputs}
    memory = {name: gpu.allocate(4 * int(np.prod(t.shape))) for name, t in tensors.items()}
    scratch = gpu.allocate(engine.scratch_bytes(1))
    addresses = {name: m.address for name, m in memory.items()}
    run = engine.bind(addresses, batch=1, scratch=scratch.address, stream=stream)
    assert not run.capturable
    run.enqueue(stream)
    stream.synchronize()
    assert run.capturable
    with stream.capture() as graph:
        run.enqueue(stream)
    for seed in range(2):
        inputs = inputs_of("local", 1, seed=seed)
        stream.copy_in(addresses["patches"], inputs["patches"].ctypes.data, inputs["patches"].nbytes)
        graph.launch(stream)
        stream.synchronize()
        expected = host.run(inputs)
        for name in engine.contract.outputs:
            found = driver.peek(addresses[name], expected[name].shape, np.float32)
            np.testing.assert_array_equal(found, expected[name])
