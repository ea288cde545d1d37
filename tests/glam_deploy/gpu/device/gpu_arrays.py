"""Arrays lent and taken. cuda.core, which knows both protocols, stands for the other libraries: none is needed here.

Run by test_on_fake_gpu.py.
"""

import ctypes
from typing import Any

import numpy as np
import pytest
from cuda.core import Device
from cuda.core.utils import StridedMemoryView
from fake_cuda.control import FakeDriver

from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.arrays import DeviceArray, as_device_array
from glam_deploy.gpu.device.context import DeviceMemory
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Stream

SHAPE = (2, 3, 4)
F4 = np.dtype(np.float32)


class Foreign:
    """Another library's array: some of the protocols over an array of ours."""

    def __init__(self, array: DeviceArray, *protocols: str, **changes: Any) -> None:
        self.interface = array.__cuda_array_interface__ | changes
        self.array = array
        for name in protocols:
            setattr(type(self), name, PROTOCOLS[name])


PROTOCOLS = {
    "__cuda_array_interface__": property(lambda self: self.interface),
    "__dlpack__": lambda self, **wishes: self.array.__dlpack__(**wishes),
    "__dlpack_device__": lambda self: self.array.__dlpack_device__(),
}


def foreign(array: DeviceArray, *protocols: str, **changes: Any) -> Foreign:
    """A class of its own each time, so that it has these protocols and no others."""
    return type("Foreign", (Foreign,), {})(array, *protocols, **changes)


@pytest.fixture
def memory(gpu: Gpu) -> DeviceMemory:
    return gpu.allocate(96)


@pytest.fixture
def stream(gpu: Gpu) -> Stream:
    return gpu.stream()


@pytest.fixture
def array(gpu: Gpu, memory: DeviceMemory) -> DeviceArray:
    return DeviceArray(gpu=gpu, address=memory.address, shape=SHAPE, dtype=F4, owner=memory)


def written_by(array: DeviceArray, stream: Stream | None) -> DeviceArray:
    return DeviceArray(
        gpu=array.gpu, address=array.address, shape=array.shape, dtype=array.dtype, owner=array.owner, stream=stream
    )


def take(gpu: Gpu, stream: Stream, array: object, dtype: Any = F4, shape: tuple[int, ...] = SHAPE) -> DeviceArray:
    return as_device_array(array, gpu=gpu, stream=stream, dtype=dtype, shape=shape)


def test_interface_is_what_the_protocol_says(array: DeviceArray, stream: Stream) -> None:
    assert array.__cuda_array_interface__ == {
        "shape": SHAPE,
        "typestr": "<f4",
        "data": (array.address, False),
        "strides": None,
        "stream": None,
        "version": 3,
    }
    assert written_by(array, stream).__cuda_array_interface__["stream"] == stream.handle
    assert array.nbytes == 96


def test_the_default_stream_has_a_number_of_its_own(gpu: Gpu, array: DeviceArray) -> None:
    assert written_by(array, gpu.adopt(0)).__cuda_array_interface__["stream"] == 1


def test_capsule_is_what_dlpack_says(array: DeviceArray) -> None:
    """Read field by field, as the C header lays them out."""
    assert array.__dlpack_device__() == (2, 0)
    capsule = array.__dlpack__(stream=-1)
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    at = get(capsule, b"dltensor")
    data, device, device_id, ndim = np.frombuffer(ctypes.string_at(at, 20), "<u8,<i4,<i4,<i4")[0]
    code, bits, lanes = np.frombuffer(ctypes.string_at(at + 20, 4), "u1,u1,<u2")[0]
    shape, strides, offset = np.frombuffer(ctypes.string_at(at + 24, 24), "<u8")
    assert (data, device, device_id, ndim, offset) == (array.address, 2, 0, 3, 0)
    assert (code, bits, lanes) == (2, 32, 1)
    assert tuple(np.frombuffer(ctypes.string_at(int(shape), 24), "<i8")) == SHAPE
    assert not strides or tuple(np.frombuffer(ctypes.string_at(int(strides), 24), "<i8")) == (12, 4, 1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint16", "int64", "uint8"])
@pytest.mark.parametrize("read", [StridedMemoryView.from_dlpack, StridedMemoryView.from_cuda_array_interface])
def test_cuda_core_reads_it(gpu: Gpu, memory: DeviceMemory, stream: Stream, dtype: str, read: Any) -> None:
    array = DeviceArray(gpu=gpu, address=memory.address, shape=(3, 4), dtype=np.dtype(dtype), owner=memory)
    view = read(array, stream_ptr=stream.handle)
    assert (view.ptr, view.shape, view.dtype, view.device_id) == (array.address, (3, 4), np.dtype(dtype), 0)
    assert view.is_device_accessible
    assert not view.readonly


def test_a_capsule_holds_the_memory(driver: FakeDriver, gpu: Gpu) -> None:
    before, memory = driver.live(), gpu.allocate(4)
    array = DeviceArray(gpu=gpu, address=memory.address, shape=(1,), dtype=F4, owner=memory)
    capsule = array.__dlpack__(stream=-1)
    del memory, array
    assert driver.live() == before + 1
    del capsule
    assert driver.live() == before


@pytest.mark.parametrize("protocol", ["dlpack", "interface"])
def test_arrays_come_without_a_copy(gpu: Gpu, stream: Stream, array: DeviceArray, protocol: str) -> None:
    protocols = ("__cuda_array_interface__",) if protocol == "interface" else ("__dlpack__", "__dlpack_device__")
    taken = take(gpu, stream, foreign(array, *protocols))
    assert (taken.address, taken.shape, taken.dtype) == (array.address, SHAPE, F4)


@pytest.mark.parametrize("protocol", ["dlpack", "interface"])
def test_the_taker_waits_for_the_giver(
    driver: FakeDriver, gpu: Gpu, stream: Stream, array: DeviceArray, protocol: str
) -> None:
    """The giver's stream has not done its work when the array changes hands, and the host waits for nothing."""
    protocols = ("__cuda_array_interface__",) if protocol == "interface" else ("__dlpack__", "__dlpack_device__")
    giver, host = gpu.stream(), gpu.pinned(96)
    giver.fill(array.address, 96, 1)
    waits = gpu.counts.synchronisations
    taken = take(gpu, stream, foreign(written_by(array, giver), *protocols))
    assert gpu.counts.synchronisations == waits
    stream.copy_out(host.address, taken.address, 96)
    stream.synchronize()
    assert (host.array == 1).all()


def test_what_was_taken_holds_the_giver(driver: FakeDriver, gpu: Gpu, stream: Stream) -> None:
    before, memory = driver.live(), gpu.allocate(4)
    array = DeviceArray(gpu=gpu, address=memory.address, shape=(1,), dtype=F4, owner=memory)
    taken = [take(gpu, stream, foreign(array, name), shape=(1,)) for name in ("__cuda_array_interface__",)]
    taken.append(take(gpu, stream, array, shape=(1,)))
    del memory, array
    assert driver.live() == before + 1
    taken.clear()
    assert driver.live() == before


def test_axes_of_one_element_may_have_any_stride(gpu: Gpu, stream: Stream, array: DeviceArray) -> None:
    given = foreign(array, "__cuda_array_interface__", shape=(1, 24, 1), strides=(7, 4, 99))
    assert take(gpu, stream, given, shape=(1, 24, 1)).address == array.address


def test_wrong_arrays_are_named(gpu: Gpu, stream: Stream, array: DeviceArray) -> None:
    cai = "__cuda_array_interface__"
    host = gpu.pinned(96)
    cases = [
        (np.zeros(SHAPE, np.float32), r"numpy\.ndarray is on DLPack device \(1, 0\), expected \(2, 0\)"),
        ([1.0], r"builtins\.list is not a GPU array: it has neither"),
        (foreign(array, cai, typestr="<f8"), r"Foreign is float64 \[2, 3, 4\], expected float32 \[2, 3, 4\]"),
        (foreign(array, cai, shape=(24,)), r"is float32 \[24\], expected float32 \[2, 3, 4\]"),
        (foreign(array, cai, strides=(4, 8, 24)), r"has strides \[4, 8, 24\], expected C order: copy it first"),
        (foreign(array, cai, mask=array), "masked"),
        (foreign(array, cai, data=(host.address, False)), r"is not in memory of GPU 0's primary context"),
        (foreign(array, cai, data=(4096, False)), r"Foreign at 0x1000 is not in memory of GPU 0"),
    ]
    for given, words in cases:
        with pytest.raises(BackendRunError, match=words):
            take(gpu, stream, given)


def test_another_contexts_array_and_stream_are_refused(driver: FakeDriver, gpu: Gpu, stream: Stream) -> None:
    from cuda.bindings import driver as cuda

    with driver.other_context():
        address = int(cuda.cuMemAlloc(96)[1])
        strange = int(cuda.cuStreamCreate(1)[1])
    array = DeviceArray(gpu=gpu, address=address, shape=SHAPE, dtype=F4, owner=None)
    with pytest.raises(BackendRunError, match=r"primary context.*pycuda\.autoprimaryctx"):
        take(gpu, stream, array)
    with pytest.raises(BackendRunError, match=r"another CUDA context.*pycuda\.autoprimaryctx"):
        gpu.adopt(strange)


def test_a_callers_stream_is_used_and_left_alone(driver: FakeDriver, gpu: Gpu, memory: DeviceMemory) -> None:
    device = Device(0)
    device.set_current()
    theirs = device.create_stream()
    before = driver.count("cuStreamDestroy")
    adopted = gpu.adopt(theirs)
    assert adopted.handle == int(theirs.handle)
    assert gpu.adopt(int(theirs.handle)).handle == adopted.handle
    adopted.fill(memory.address, 96, 5)
    assert not adopted.is_idle
    adopted.close()
    theirs.sync()
    assert (driver.peek(memory.address, (96,), np.uint8) == 5).all()
    assert driver.count("cuStreamDestroy") == before


@pytest.mark.parametrize("given", ["0", 1.5, True, -1, None])
def test_what_is_no_stream_is_refused(gpu: Gpu, given: object) -> None:
    with pytest.raises(BackendRunError, match=r"is not a CUDA stream: expected a handle \(int\)"):
        gpu.adopt(given)


def test_our_streams_are_streams_to_others(driver: FakeDriver, gpu: Gpu, stream: Stream, memory: DeviceMemory) -> None:
    device = Device(0)
    device.set_current()
    stream.fill(memory.address, 96, 6)
    device.create_stream(stream).sync()
    assert (driver.peek(memory.address, (96,), np.uint8) == 6).all()
