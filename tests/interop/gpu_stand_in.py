"""What the libraries are asked, asked of a stand-in on the fake GPU, for none of them runs there.

Run by test_on_fake_gpu.py.
"""

import runpy

import numpy as np
import pytest
from fake_cuda.control import FakeDriver
from golden.recipe import mammogram
from support.chains import on_gpu, stage_engines
from support.commands import ROOT
from support.libraries import check_loading, check_writing_and_reading

from glam_deploy.gpu.device.arrays import DeviceArray
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Stream
from glam_deploy.runtime.pipeline import Pipeline


class StandIn:
    """The driver's own copies."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.stream: Stream = gpu.stream()

    def write(self, array: DeviceArray, values: np.ndarray) -> None:
        self.stream.copy_in(array.address, np.ascontiguousarray(values).ctypes.data, values.nbytes)

    def read(self, array: DeviceArray) -> np.ndarray:
        values = np.empty(array.shape, array.dtype)
        self.stream.copy_out(values.ctypes.data, array.address, values.nbytes)
        self.stream.synchronize()
        return values

    def array(self, values: np.ndarray) -> object:
        memory = self.gpu.allocate(values.nbytes)
        self.stream.copy_in(memory.address, np.ascontiguousarray(values).ctypes.data, values.nbytes)
        lent = {"shape": values.shape, "dtype": values.dtype, "owner": memory, "stream": self.stream}
        return DeviceArray(gpu=self.gpu, address=memory.address, **lent)


@pytest.fixture
def pipeline(gpu: Gpu, driver: FakeDriver) -> Pipeline:
    return on_gpu(stage_engines(), 2, gpu=gpu, driver=driver)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Two, the second of them the first upside down, for each takes seconds to make."""
    image = mammogram(1)
    return [image, np.ascontiguousarray(image[::-1])]


def test_writing_into_a_slot_and_reading_from_it(gpu: Gpu, pipeline: Pipeline, images: list[np.ndarray]) -> None:
    check_writing_and_reading(StandIn(gpu), pipeline, images)


def test_loading_an_array(gpu: Gpu, pipeline: Pipeline, images: list[np.ndarray]) -> None:
    check_loading(StandIn(gpu), pipeline, images)


def test_example_of_a_service(gpu: Gpu, pipeline: Pipeline, images: list[np.ndarray]) -> None:
    lesions_on_gpu = runpy.run_path(str(ROOT / "examples/embed_runtime.py"))["lesions_on_gpu"]
    said = lesions_on_gpu(pipeline, StandIn(gpu).array(images[0][None, None]))
    expected = pipeline(images[0])
    assert said == {"scores": expected.predictions, "patches": expected.patch_boxes}
