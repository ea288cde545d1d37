"""Launch the kernels of a host library from Python, as the GPU's modules and streams do."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

MARGIN = 4096
"""Bytes of 0xff (NaN, -1, 65535) before and behind every array."""


class HostModule:
    """The library's kernels by name."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    def kernel(self, name: str) -> Any:
        return self._library[f"glam_host_{name}"], self.sizes(name)

    def sizes(self, name: str) -> list[int]:
        """Bytes of each parameter."""
        found = (ctypes.c_size_t * 16)()
        count = self._library[f"glam_host_parameters_{name}"](found)
        return found[:count]

    @contextmanager
    def backwards(self) -> Iterator[None]:
        """Blocks and threads run from the last to the first."""
        self._library.glam_host_backwards(1)
        try:
            yield
        finally:
            self._library.glam_host_backwards(0)


class HostStream:
    """Does what it is given at once; `launches` tells what that was."""

    def __init__(self) -> None:
        self.launches: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def launch(self, kernel: Any, grid: tuple[int, ...], block: tuple[int, ...], *arguments: int | np.generic) -> None:
        function, sizes = kernel
        values = [np.asarray(a, None if isinstance(a, np.generic) else np.uint64) for a in arguments]
        assert [value.nbytes for value in values] == sizes
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        function((ctypes.c_uint * 3)(*grid), (ctypes.c_uint * 3)(*block), pointers)
        self.launches.append((grid, block))


class Memory:
    """An array on a 16-byte bound, between margins: what is read beyond it is NaN, what is written there is seen."""

    def __init__(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> None:
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        everything = np.full(count + 2 * MARGIN + 16, 0xFF, np.uint8)
        start = MARGIN + -(everything.ctypes.data + MARGIN) % 16
        self._margins = everything[:start], everything[start + count :]
        self.array: NDArray[Any] = everything[start : start + count].view(dtype).reshape(shape)
        self.address: int = self.array.ctypes.data

    @classmethod
    def of(cls, values: NDArray[Any]) -> "Memory":
        memory = cls(values.shape, values.dtype)
        memory.array[...] = values
        return memory

    def read(self) -> NDArray[Any]:
        """A copy; fails if anything was written outside."""
        self.check()
        return self.array.copy()

    def check(self) -> None:
        """Fails if anything was written outside."""
        assert all((margin == 0xFF).all() for margin in self._margins), "written outside of the array"
