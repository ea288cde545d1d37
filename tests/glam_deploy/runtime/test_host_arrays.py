"""Arrays of every number type and library, and values that would change."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from glam_deploy.errors import InputError, UsageError
from glam_deploy.runtime.host_arrays import exact_pixels, is_array, to_host

VALUES = np.array([[0, 1, 127], [2, 3, 100]])
TYPES = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "g", ">u2", "<i4", ">i4", ">f8", ">f4"]


@pytest.mark.parametrize("name", TYPES)
def test_values_stay_and_the_type_is_one_of_three(name: str) -> None:
    found = exact_pixels(VALUES.astype(name))
    assert found.dtype.isnative
    assert found.dtype == {"f": np.float32, "u": np.uint16, "i": np.uint16}[np.dtype(name).kind] or name == "u1"
    np.testing.assert_array_equal(found, VALUES)


@pytest.mark.parametrize("name", ["u1", "u2", "f4"])
def test_what_needs_no_change_is_no_copy(name: str) -> None:
    array = VALUES.astype(name)
    assert np.shares_memory(exact_pixels(array), array)


@pytest.mark.parametrize("name", ["i4", "i8", "u4", "u8", "f8"])
@pytest.mark.parametrize("value", [65536, 1 << 24, 16_777_215])
def test_whole_numbers_that_only_float32_holds(name: str, value: int) -> None:
    found = exact_pixels(np.array([[0, value]]).astype(name))
    assert found.dtype == np.float32
    assert [int(v) for v in found[0]] == [0, value]


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.array([[0, 0.1]]), r"Pixel \(0, 1\) is 0\.1 \(float64\).*1 of 2 pixels"),
        (np.array([[1e300, 0.5]]), r"Pixel \(0, 0\) is 1e\+300"),
        (np.array([[1e-60, 0.5]]), r"Pixel \(0, 0\) is 1e-60"),
        (np.array([[0, (1 << 24) + 1]], np.int64), r"is 16777217 \(int64\)"),
        (np.array([[0, (1 << 24) + 1]], np.uint32), r"is 16777217 \(uint32\)"),
        (np.array([[0, (1 << 63) + 1]], np.uint64), r"is 9223372036854775809 \(uint64\)"),
        (np.array([[0, -(1 << 63)]], np.int64), r"is -9223372036854775808 \(int64\)"),
        (np.array([[0, 4095 / 4096 + 1e-12]]), r"\(0, 1\)"),
    ],
)
def test_a_value_that_would_change_is_named(array: np.ndarray, told: str) -> None:
    with pytest.raises(InputError, match=told):
        exact_pixels(array)


def test_what_is_no_number_stays_for_the_later_checks() -> None:
    for name in ("f8", "f4", "f2"):
        np.testing.assert_array_equal(
            exact_pixels(np.array([np.nan, np.inf, -3], name)), np.array([np.nan, np.inf, -3], np.float32)
        )
    np.testing.assert_array_equal(exact_pixels(np.array([[-5, 3]], np.int16)), np.array([[-5, 3]], np.float32))
    for array in (np.zeros((2, 2), complex), np.array([["a"]]), np.array([[object()]]), np.zeros((2, 2), bool)):
        with pytest.raises(InputError, match="expected integers or floats"):
            exact_pixels(array)
    assert exact_pixels(np.zeros((0, 3), np.int32)).shape == (0, 3)


# other libraries


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64])
def test_torch(dtype: torch.dtype) -> None:
    tensor = torch.tensor(VALUES.tolist(), dtype=dtype)
    assert is_array(tensor)
    np.testing.assert_array_equal(to_host(tensor), VALUES)
    np.testing.assert_array_equal(to_host(tensor.T), VALUES.T)
    if dtype.is_floating_point:
        np.testing.assert_array_equal(to_host(tensor.requires_grad_()), VALUES)
        np.testing.assert_array_equal(to_host(tensor.half()), VALUES)


def test_a_type_that_numpy_lacks_is_told() -> None:
    with pytest.raises(UsageError, match=r"torch\.Tensor cannot be converted.*16-bit floats with \.float\(\)"):
        to_host(torch.zeros(2, dtype=torch.bfloat16))


class OnGpu:
    """An array in GPU memory, as far as this test's library offers it."""

    def __init__(self, download: str, interface: str) -> None:
        setattr(self, download, lambda: VALUES)
        if interface == "cuda":
            self.__cuda_array_interface__ = {"shape": VALUES.shape}
        else:
            self.__dlpack__ = self.__dlpack_device__ = lambda: (2, 0)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("implicit conversion is not allowed")


@pytest.mark.parametrize("interface", ["cuda", "dlpack"])
@pytest.mark.parametrize("download", ["get", "cpu", "copy_to_host"])  # CuPy, torch, numba
def test_arrays_on_a_gpu_are_copied(download: str, interface: str) -> None:
    array = OnGpu(download, interface)
    assert is_array(array)
    np.testing.assert_array_equal(to_host(array), VALUES)


def test_an_array_on_a_gpu_that_cannot_be_copied_is_told() -> None:
    with pytest.raises(UsageError, match=r"OnGpu cannot be converted to numpy \(TypeError\)"):
        to_host(OnGpu("unknown", "cuda"))


def test_pictures_of_pillow_are_arrays() -> None:
    picture = Image.fromarray(VALUES.astype(np.uint8))
    assert is_array(picture)
    np.testing.assert_array_equal(to_host(picture), VALUES)


def test_masked_pixels_are_refused() -> None:
    np.testing.assert_array_equal(to_host(np.ma.masked_array(VALUES)), VALUES)
    with pytest.raises(UsageError, match="1 pixels of the array are masked"):
        to_host(np.ma.masked_equal(VALUES, 127))


@pytest.mark.parametrize("value", [[[1]], (1,), "x", b"x", None, 3, {}, np.ndarray, torch.Tensor])
def test_what_is_no_array(value: Any) -> None:
    assert not is_array(value)
