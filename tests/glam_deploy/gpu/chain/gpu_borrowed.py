"""The GPU's arrays in the caller's hands. Run by test_on_fake_gpu.py.

Work is done as late as CUDA allows here: an order that is missing between two streams shows in the numbers.
"""

import gc
import re
from collections.abc import Callable

import numpy as np
import pytest
from fake_cuda.control import FakeDriver
from support.chains import assert_same, break_gpu, raw_view
from support.commands import ROOT

from glam_deploy.errors import BackendRunError, UsageError
from glam_deploy.gpu.device.arrays import DeviceArray
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Stream
from glam_deploy.gpu.kernels.geometry import Flags
from glam_deploy.networks import GLAM
from glam_deploy.preprocess import place, prepare
from glam_deploy.records import NetworkInput
from glam_deploy.runtime.borrowed_slot import BorrowedSlot
from glam_deploy.runtime.pipeline import Pipeline

Pair = Callable[..., tuple[Pipeline, Pipeline]]
OUTPUTS = ("y_scale", "y_global", "y_local", "saliency_global", "saliency_patches", "patch_locations", "saliency")


@pytest.fixture(scope="module")
def inputs() -> list[NetworkInput]:
    return [prepare(raw_view(seed)) for seed in range(4)]


def foreign(gpu: Gpu, image: np.ndarray) -> DeviceArray:
    """An array of somebody else's, in memory of its own, filled."""
    memory, stream = gpu.allocate(image.nbytes), gpu.stream()
    stream.copy_in(memory.address, np.ascontiguousarray(image).ctypes.data, image.nbytes)
    stream.synchronize()
    return DeviceArray(gpu=gpu, address=memory.address, shape=image.shape, dtype=image.dtype, owner=memory)


def read(array: DeviceArray, stream: Stream) -> np.ndarray:
    """Downloaded in a stream, in order with what that stream holds and with nothing else."""
    values = np.empty(array.shape, array.dtype)
    stream.copy_out(values.ctypes.data, array.address, array.nbytes)
    stream.synchronize()
    return values


class OnlyInterface:
    """What PyCUDA offers: no DLPack."""

    def __init__(self, array: DeviceArray) -> None:
        self.held = array
        self.__cuda_array_interface__ = array.__cuda_array_interface__


@pytest.mark.parametrize("offer", [lambda array: array, OnlyInterface], ids=["DLPack", "CAI"])
def test_an_image_of_another_library(
    pair: Pair, gpu: Gpu, inputs: list[NetworkInput], offer: Callable[[DeviceArray], object]
) -> None:
    host, device = pair(2, network=GLAM)
    with device.slot() as slot:
        for prepared in inputs[:3]:
            slot.load(offer(foreign(gpu, prepared.image[None, None])))
            slot.run()
            assert_same(slot.result(placed=prepared), host(prepared))


def test_results_stay_on_the_gpu(pair: Pair, gpu: Gpu, inputs: list[NetworkInput]) -> None:
    """A caller's stream writes the image and reads the results: in order, with no wait by the host in between."""
    host, device = pair(3, network=GLAM)
    mine = gpu.stream()
    with device.slot() as slot:
        for prepared in inputs[:3]:
            source = foreign(gpu, prepared.image)
            before = gpu.counts
            mine.copy(slot.image.address, source.address, source.nbytes)
            slot.run(mine)
            assert gpu.counts == before
            expected = host(prepared)
            np.testing.assert_array_equal(read(slot.patch_locations, mine)[0, :3], expected.patch_locations)
            np.testing.assert_array_equal(read(slot.patch_locations, mine)[0, 3:], -1)
            np.testing.assert_allclose(read(slot.saliency, mine)[0], expected.saliency(), rtol=0, atol=1e-6)
            np.testing.assert_array_equal(read(slot.saliency_patches, mine)[0, 3:], 0)
            assert slot.y_fusion and slot.attention
            for array, value in ((slot.y_fusion, expected.y_fusion), (slot.y_scale, expected.y_scale)):
                np.testing.assert_allclose(read(array, mine)[0], value, rtol=0, atol=1e-6)
            np.testing.assert_allclose(read(slot.attention, mine)[0], [1 / 3] * 3 + [0] * 3, atol=1e-6)


def test_consumers_wait_for_the_run(pair: Pair, gpu: Gpu, inputs: list[NetworkInput], driver: FakeDriver) -> None:
    """A reader that knows the protocols alone."""
    host, device = pair(1)
    expected = host(inputs[0])
    with device.slot() as slot:
        slot.load(foreign(gpu, inputs[0].image[None, None]))
        slot.run()
        reader = gpu.stream()
        slot.y_scale.__dlpack__(stream=reader.handle)
        np.testing.assert_allclose(read(slot.y_scale, reader)[0], expected.y_scale, rtol=0, atol=1e-6)
        assert slot.y_scale.__cuda_array_interface__["stream"] == slot.stream.handle


def test_four_images(pair: Pair, gpu: Gpu, inputs: list[NetworkInput]) -> None:
    host, device = pair(2)
    with device.slot(4) as slot:
        slot.load(foreign(gpu, np.stack([prepared.image[None] for prepared in inputs])))
        slot.run()
        for n, prepared in enumerate(inputs):
            found = slot.result(n, placed=prepared)
            assert_same(found, host(prepared))
            assert found.network_input is prepared


def test_where_an_image_lies_may_be_told(pair: Pair, gpu: Gpu) -> None:
    host, device = pair(1)
    view = raw_view(5)
    with device.slot() as slot:
        slot.load(foreign(gpu, prepare(view).image[None, None]))
        slot.run()
        told, untold = slot.result(placed=place(view)), slot.result()
    assert_same(told, host(view))
    assert told.patch_boxes_in_source == host(view).patch_boxes_in_source
    assert untold.patch_boxes_in_source == untold.patch_boxes
    assert list(untold.timings_ms) == ["gpu"]
    with pytest.raises(UsageError, match=r"was made on the GPU, copy `slot\.image`"):
        _ = untold.network_input


def test_the_next_owner_waits_for_the_callers_stream(pair: Pair, gpu: Gpu, inputs: list[NetworkInput]) -> None:
    """The caller reads on after the block has ended, as far as it had asked before."""
    host, device = pair(1)
    mine, kept = gpu.stream(), gpu.pinned(GLAM.input_shape[0] * GLAM.input_shape[1] * 4 * 2)
    with device.slot() as slot:
        slot.load(foreign(gpu, inputs[0].image[None, None]))
        slot.run(mine)
        mine.copy_out(kept.address, slot.saliency.address, slot.saliency.nbytes)
    assert_same(device(inputs[1]), host(inputs[1]))
    found = kept.array.view(np.float32).reshape(2, *GLAM.input_shape)
    np.testing.assert_allclose(found, host(inputs[0]).saliency(), rtol=0, atol=1e-6)


def test_the_run_waits_for_the_callers_stream(pair: Pair, gpu: Gpu, inputs: list[NetworkInput]) -> None:
    """Only the run is waited for, and what it must wait for itself is not done yet."""
    host, device = pair(1)
    mine, source = gpu.stream(), foreign(gpu, inputs[0].image)
    with device.slot() as slot:
        mine.copy(slot.image.address, source.address, source.nbytes)
        slot.run(mine)
        assert_same(slot.result(placed=inputs[0]), host(inputs[0]))


def test_a_loaded_array_is_held_until_it_was_copied(
    pair: Pair, gpu: Gpu, driver: FakeDriver, inputs: list[NetworkInput]
) -> None:
    """Nobody else holds it here. Memory that is freed under work stays with the fake driver, and is counted."""
    _, device = pair(1)
    with device.slot() as slot:
        before = driver.live()
        slot.load(foreign(gpu, inputs[0].image[None, None]))
        gc.collect()
        assert driver.live() == before + 1
    del slot
    gc.collect()
    assert driver.live() == before


def test_an_array_that_does_not_fit(pair: Pair, gpu: Gpu, inputs: list[NetworkInput]) -> None:
    host, device = pair(1)
    with device.slot() as slot:
        for wrong in (np.zeros((1, 1, 8, 8), np.float32), np.zeros((1, 1, *GLAM.input_shape), np.float16)):
            with pytest.raises(BackendRunError, match=r"expected float32 \[1, 1, 2944, 1920\]"):
                slot.load(foreign(gpu, wrong))
        with pytest.raises(BackendRunError, match=r"numpy\.ndarray"):
            slot.load(inputs[0].image[None, None])
        with pytest.raises(BackendRunError, match="is not a CUDA stream"):
            slot.run(stream="mine")
    assert_same(device(inputs[0]), host(inputs[0]))


def test_results_before_a_run(pair: Pair) -> None:
    with pair()[1].slot() as slot, pytest.raises(UsageError, match=r"call run\(\) first"):
        slot.result()


def test_a_slot_ends_with_its_block(pair: Pair, gpu: Gpu) -> None:
    with pair()[1].slot() as slot:
        pass
    uses: list[Callable[[BorrowedSlot], object]] = [
        lambda slot: slot.run(),
        lambda slot: slot.result(),
        lambda slot: slot.load(slot.image),
    ]
    for use in uses:
        with pytest.raises(UsageError, match="released at the end of its `with` block"):
            use(slot)


def test_nan_in_the_results(pair: Pair, gpu: Gpu, inputs: list[NetworkInput]) -> None:
    _, device = pair(1, wrong={"saliency_patches": np.nan})
    with device.slot() as slot:
        slot.load(foreign(gpu, inputs[0].image[None, None]))
        slot.run()
        assert read(slot.flags, slot.stream).tolist() == [8]
        with pytest.raises(BackendRunError, match="local engine: 32768 of 32768 values of 'saliency_patches'"):
            slot.result()


def test_an_image_that_is_not_finite(pair: Pair, gpu: Gpu, inputs: list[NetworkInput]) -> None:
    """Also by the graph that the first run recorded; the next image is not blamed for it."""
    images = np.stack([prepared.image[None] for prepared in inputs])
    spoilt = images.copy()
    spoilt[2, 0, 2943, 1919] = np.nan
    with pair()[1].slot(4) as slot:
        for given, expected in ((images, [0] * 4), (spoilt, [0, 0, 16, 0]), (images, [0] * 4)):
            slot.load(foreign(gpu, given))
            slot.run()
            flags = read(slot.flags, slot.stream) & Flags.NOT_FINITE_IMAGE
            assert flags.tolist() == expected
            if any(expected):
                with pytest.raises(BackendRunError, match=r"'image' has NaN .* in 1 of the slot's 4 .*: 2,"):
                    slot.result()
            else:
                assert np.isfinite(slot.result().y_global).all()


def test_the_page_names_what_is_there(pair: Pair) -> None:
    text = (ROOT / "docs/gpu.md").read_text("utf-8")
    _, device = pair(network=GLAM)
    with device.slot() as slot:
        for owner, thing in (("slot", slot), ("pipeline", device)):
            names = set(re.findall(rf"\b{owner}\.(\w+)", text))
            assert {name for name in names if not hasattr(thing, name)} == set()
        arrays = {name for name, value in vars(slot).items() if isinstance(value, DeviceArray)}
        assert {name for name in arrays if f"`slot.{name}`" not in text} == set()


def test_a_checkpoint_without_fusion_layer(pair: Pair) -> None:
    with pair()[1].slot() as slot:
        assert slot.y_fusion is None
        assert slot.attention is None


def test_a_failure_inside_the_block(pair: Pair, gpu: Gpu, driver: FakeDriver) -> None:
    _, device = pair()
    with pytest.raises(BackendRunError, match="ILLEGAL_ADDRESS"), device.slot() as slot:
        break_gpu(gpu)
        slot.run()
    driver.repair()
    with pytest.raises(BackendRunError, match="Restart the process"):
        device(raw_view(0))
