"""The kernels as methods: each knows its grid, its blocks and the order of its arguments."""

from typing import Any, Protocol

import numpy as np

from glam_deploy.gpu.kernels import geometry, staging
from glam_deploy.networks import NetworkSpec

KERNELS = ("moments", "standardize", "propose", "crop", "fuse", "examine")
"""Names of the compiled functions; see `kernels_of`."""


class Memory(Protocol):
    """Device memory that knows where it begins."""

    @property
    def address(self) -> int: ...


Address = int | Memory
"""Of device memory, on a 16-byte bound."""


class Module(Protocol):
    """Compiled kernels by name."""

    def kernel(self, name: str) -> Any: ...


class Stream(Protocol):
    """Takes a launch and returns at once: grid and block are (x, y, z), addresses ints, other numbers of numpy."""

    def launch(
        self, kernel: Any, grid: tuple[int, int, int], block: tuple[int, int, int], *arguments: int | np.generic
    ) -> None: ...


def kernels_of(network: NetworkSpec) -> tuple[str, ...]:
    """Names of the functions compiled for a network: no `fuse` where its patches have no maps."""
    return tuple(name for name in KERNELS if name != "fuse" or network.patches.map_side)


def scratch_bytes(n: int, network: NetworkSpec) -> int:
    """Scratch for `n` images. Its owner fills it with zeros once; one stream at a time may use it."""
    return n * geometry.geometry_of(network).scratch_bytes


class Kernels:
    """Everything between the networks, each method one step for `n` images at once; all launches, nothing waits.

    Arrays are C-contiguous; shapes in the docstrings are those of GLAM. Every step may be captured into a CUDA graph
    and repeated.
    """

    def __init__(self, module: Module, network: NetworkSpec) -> None:
        """`module`: the kernels compiled from `source.source(network)`."""
        self._network, self._geometry = network, geometry.geometry_of(network)
        self._kernels = {name: module.kernel(name) for name in kernels_of(network)}

    def standardize(
        self,
        stream: Stream,
        *,
        areas: Address,
        image: Address,
        scratch: Address,
        n: int,
        area_bytes: int | None = None,
    ) -> None:
        """Raw views -> the global graph's `image`, float32 [n, 1, 2944, 1920], network frame.

        `areas`: n staging areas (`staging.pack`), `area_bytes` from one to the next, a multiple of 16; None takes
        `staging.largest_area`.
        Placed, mirrored, zeros around; then (x - mean) / max(deviation, 1e-5) with moments over the whole window:
        exact for integers; in float64 for float32 pixels, in an order that is always the same. Equals
        preprocess.standardize to rounding.
        """
        rows, _ = self._network.input_shape
        distance = area_bytes or staging.largest_area(self._network.input_shape)
        where = (_address(areas), np.int64(distance), _address(scratch))
        self._launch(stream, "moments", (rows // geometry.MOMENTS_ROWS, 1, n), (geometry.MOMENTS_THREADS, 1), *where)
        grid = (rows // geometry.STANDARDIZE_ROWS, 1, n)
        self._launch(stream, "standardize", grid, (self._geometry.row_threads, 1), *where, _address(image))

    def propose(
        self, stream: Stream, *, saliency: Address, locations: Address, flags: Address, scratch: Address, k: int, n: int
    ) -> None:
        """Global saliency -> where the `k` patches (1..6) lie: patches.host.choose_windows, bit for bit.

        `saliency`: float32 [n, 2, 184, 120]. `locations`: int64 [n, 6, 2], (row, column) of upper-left corners in
        input pixels, network frame; slots k..5 become (-1, -1). `flags`: uint32 [n], written anew: FLAT_BENIGN and
        FLAT_MALIGNANT of `flags.Flags`.
        """
        grid = (self._geometry.propose_blocks, 1, n)
        addresses = (_address(saliency), _address(locations), _address(flags), _address(scratch))
        for patch in range(k):
            self._launch(stream, "propose", grid, (geometry.PROPOSE_THREADS, 1), *addresses, np.int32(patch))

    def crop(self, stream: Stream, *, image: Address, locations: Address, patches: Address, k: int, n: int) -> None:
        """Standardized images -> the local graph's `patches`, float32 [n * k, 1, 512, 512], k of each image in turn.

        `image`: float32 [n, 1, 2944, 1920]; `locations`: as `propose` writes them. Equals patches.host.crop.
        """
        grid = (self._network.patches.side // geometry.CROP_ROWS, k, n)
        block = (self._geometry.crop_threads, geometry.CROP_ROWS)
        self._launch(stream, "crop", grid, block, _address(image), _address(locations), _address(patches))

    def fuse(
        self,
        stream: Stream,
        *,
        saliency_global: Address,
        saliency_patches: Address,
        locations: Address,
        saliency: Address,
        flags: Address,
        n: int,
    ) -> None:
        """Both saliencies -> the fused map, float32 [n, 2, 2944, 1920], network frame: patches.host.fuse, enlarged.

        `saliency_global`: float32 [n, 2, 184, 120]; `saliency_patches`: float32 [n, 6, 2, 128, 128], not read where
        the slot's location is (-1, -1). Sets NOT_FINITE_GLOBAL and NOT_FINITE_LOCAL in `flags`, uint32 [n], and leaves
        the other bits; so it runs after `propose`.
        """
        grid = (self._network.map_shape[0], len(self._network.classes), n)
        arguments = (saliency_global, saliency_patches, locations, saliency, flags)
        self._launch(stream, "fuse", grid, (self._geometry.row_threads, 1), *map(_address, arguments))

    def examine(self, stream: Stream, *, image: Address, flags: Address, n: int) -> None:
        """Sets NOT_FINITE_IMAGE in `flags`, uint32 [n], for each `image`, float32 [n, 1, 2944, 1920], that has NaN or
        infinity, and leaves the other bits; so it runs after `propose`.
        """
        grid = (self._network.input_shape[0] // geometry.EXAMINE_ROWS, 1, n)
        self._launch(stream, "examine", grid, (self._geometry.row_threads, 1), _address(image), _address(flags))

    def _launch(
        self,
        stream: Stream,
        name: str,
        grid: tuple[int, int, int],
        block: tuple[int, int],
        *arguments: int | np.generic,
    ) -> None:
        stream.launch(self._kernels[name], grid, (*block, 1), *arguments)


def _address(memory: Address) -> int:
    return memory if isinstance(memory, int) else memory.address
