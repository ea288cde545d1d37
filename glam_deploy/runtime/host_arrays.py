"""Conversion of arrays of any library and number type to numpy arrays for the pipeline, without changing values."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import InputError, UsageError
from glam_deploy.records import Pixels

_PROTOCOLS = ("__array__", "__array_interface__", "__dlpack__", "__cuda_array_interface__")
_DOWNLOADS = ("get", "cpu", "copy_to_host")
"""Methods of CuPy, torch and numba that copy a GPU array to the host."""
_CPU = 1
"""DLPack's kDLCPU."""
WHOLE = 1 << 24
"""float32 represents all integers up to this one exactly."""


def is_array(value: object) -> bool:
    """Whether `value` is an array of any library: numpy, torch, CuPy, numba, JAX, Pillow, ..."""
    return not isinstance(value, type) and any(hasattr(value, name) for name in _PROTOCOLS)


def to_host(array: Any) -> NDArray[Any]:
    """Convert an array of any library to a numpy array in host memory; it is copied only if it is on a GPU.

    Uses common protocols (numpy's `__array__`, DLPack, CUDA Array Interface), so no library is imported. Raises
    UsageError if the array cannot be converted, and for a masked array with masked pixels.
    """
    if np.ma.isMaskedArray(array):
        if masked := np.count_nonzero(np.ma.getmaskarray(array)):
            raise UsageError(f"{masked} pixels of the array are masked, expected none: fill them first")
        return np.asarray(array)
    if isinstance(array, np.ndarray):
        return array
    try:
        return np.asarray(_downloaded(array.detach() if hasattr(array, "detach") else array))
    except Exception as error:  # another library's, of any type
        raise UsageError(
            f"an array of type {type(array).__module__}.{type(array).__name__} cannot be converted to numpy "
            f"({type(error).__name__}): convert it first, 16-bit floats with .float()"
        ) from error


def exact_pixels(array: NDArray[Any]) -> Pixels:
    """Convert pixels to uint8, uint16 or float32 without changing a value.

    uint8, uint16 and float32 are kept. Other integers become uint16 if all values fit, else float32; other floats
    become float32. `array`: any shape. Raises InputError for complex numbers and other types, and for a value that
    would change.
    """
    native = array.dtype.newbyteorder("=")
    if native in (np.uint8, np.uint16, np.float32):
        return array.astype(native, copy=False)
    if native.kind not in "iuf":
        raise InputError(f"The image is {array.dtype}, expected integers or floats, [rows, columns]: convert it.")
    if native.kind == "f":
        return _floats(array)
    fits = array.size and array.min() >= 0 and array.max() <= np.iinfo(np.uint16).max
    return array.astype(np.uint16) if fits else _integers(array)


def _floats(array: NDArray[Any]) -> Pixels:
    with np.errstate(over="ignore"):
        values = array.astype(np.float32)
    _require_same(array, (values != array) & ~np.isnan(array), "float32 cannot represent exactly")
    return values


def _integers(array: NDArray[Any]) -> Pixels:
    changed = (array > WHOLE) | (array < -WHOLE)
    _require_same(array, changed, f"is beyond {WHOLE}, up to which float32 represents every integer exactly")
    return array.astype(np.float32)


def _require_same(array: NDArray[Any], changed: NDArray[np.bool_], why: str) -> None:
    if changed.any():
        place = tuple(int(n) for n in np.argwhere(changed)[0])
        raise InputError(
            f"Pixel {place} is {array[place]!s} ({array.dtype}), which {why}; {np.count_nonzero(changed)} of "
            f"{array.size} pixels would change. Expected uint8, uint16, float32 or values that fit in these types. "
            "Round or rescale the image: astype(numpy.float32) rounds to the nearest values."
        )


def _downloaded(array: Any) -> Any:
    on_gpu = hasattr(array, "__cuda_array_interface__")
    if not on_gpu and hasattr(array, "__dlpack_device__"):
        on_gpu = array.__dlpack_device__()[0] != _CPU
    if not on_gpu:
        return array
    for name in _DOWNLOADS:
        if download := getattr(array, name, None):
            return download()
    return array
