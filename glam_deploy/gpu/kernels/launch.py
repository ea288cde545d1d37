"""Launches of the kernels: one method per step, with its grid, block size and argument order."""

from typing import Any, Protocol

import numpy as np

from glam_deploy.gpu.kernels import geometry, staging
from glam_deploy.networks import NetworkSpec

PLACE_KERNELS = (
    *("foreground", "erode", "list_runs", "join_runs", "measure_runs", "core_rows", "dilate", "outline"),
    *("count_rows", "center", "gather"),
)
"""Kernels that place whole images, in the order of their launches."""
KERNELS = (*PLACE_KERNELS, "moments", "standardize", "propose", "crop", "pool", "attend", "fuse", "enlarge", "examine")
"""Names of the compiled functions; see `kernels_of`."""


class Memory(Protocol):
    """Device memory with its start address."""

    @property
    def address(self) -> int: ...


Address = int | Memory
"""Device memory with 16-byte alignment."""


class Module(Protocol):
    """Module of compiled kernels."""

    def kernel(self, name: str) -> Any: ...


class Stream(Protocol):
    """Stream with asynchronous launches: grid and block are (x, y, z); addresses are ints, other arguments numpy's."""

    def launch(
        self, kernel: Any, grid: tuple[int, int, int], block: tuple[int, int, int], *arguments: int | np.generic
    ) -> None: ...


def kernels_of(network: NetworkSpec) -> tuple[str, ...]:
    """Names of the kernels of a network.

    `propose` and `crop` only if it has patches; `pool` and `fuse` only if the patches have maps, else `enlarge`;
    `attend` only if its fusion stage has weights.
    """
    absent = {"enlarge"} if network.has_patch_maps else {"pool", "fuse"}
    absent |= set() if network.fusion_weights else {"attend"}
    absent |= set() if network.selection else {"propose", "crop"}
    return tuple(name for name in KERNELS if name not in absent)


def scratch_bytes(n: int, network: NetworkSpec) -> int:
    """Size in bytes of the scratch memory for `n` images. The caller fills it with zeros; it is for one stream only."""
    return n * geometry.geometry_of(network).scratch_bytes


class Kernels:
    """The steps between the network stages; each method launches one step for a batch of `n` images and does not wait.

    Arrays are C-contiguous; shapes in the docstrings are those of GLAM. Every step may be captured in a CUDA graph and
    repeated.
    """

    def __init__(self, module: Module, network: NetworkSpec) -> None:
        """`module`: the kernels compiled from `source.source(network)`."""
        self._network, self._geometry = network, geometry.geometry_of(network)
        self._kernels = {name: module.kernel(name) for name in kernels_of(network)}

    def place(
        self,
        stream: Stream,
        *,
        areas: Address,
        area_bytes: int,
        scratch: Address,
        place_scratch: Address,
        samples: Address,
        n: int,
    ) -> None:
        """Find the breast in whole images and the position of the network's window, for `standardize`.

        `areas`: n staging areas (`staging.pack_whole`) at distances of `area_bytes`, a multiple of 16. Images that were
        placed on the host (`staging.pack`) are skipped. `place_scratch`: `placed.place_scratch_bytes(n)` of any
        content. `samples` (output): n blocks of `placed.samples_bytes()`, which `placed.read` reads. Where an image is
        refused, its window is empty. Equals preprocess.place; the checks of `diagnosis` are left to the host, which has
        the samples.
        """
        memory = map(_address, (scratch, place_scratch, samples))
        where: tuple[int | np.generic, ...] = (_address(areas), np.int64(area_bytes), *memory)
        blocks = min(geometry.PLACE_BLOCKS, -(-area_bytes // (64 * geometry.PLACE_THREADS)))
        fixed = {"dilate": staging.LARGEST_SIDE // geometry.DILATE_ROWS, "outline": 1, "center": 1}
        for name in PLACE_KERNELS:
            self._launch(stream, name, (fixed.get(name, blocks), 1, n), (geometry.PLACE_THREADS, 1), *where)

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
        """Standardize raw views: writes the global graph's input `image`, float32 [n, 1, 2944, 1920], network frame.

        `areas`: n staging areas (`staging.pack`, or `staging.pack_whole` and then `place` with the same `scratch`) at
        distances of `area_bytes`, a multiple of 16; None means `staging.largest_area`.
        Pixels are placed, mirrored and padded with zeros; then (x - mean) / max(deviation, 1e-5) with the moments of
        the whole window. Moments are exact for integer pixels, and summed in float64 in a fixed order for float32
        pixels. Equals preprocess.standardize up to rounding.
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
        """Select the locations of `k` patches (1..6) from the global saliency; bit-identical to choose_windows.

        `saliency`: float32 [n, 2, 184, 120]. `locations` (output): int64 [n, 6, 2], (row, column) of the upper-left
        corners in pixels of the network frame; slots k..5 become (-1, -1). `flags` (output): uint32 [n], overwritten
        with FLAT_BENIGN and FLAT_MALIGNANT of `geometry.Flags`. Reference in numpy: runtime.patching.choose_windows.
        """
        grid = (self._geometry.propose_blocks, 1, n)
        addresses = (_address(saliency), _address(locations), _address(flags), _address(scratch))
        for patch in range(k):
            self._launch(stream, "propose", grid, (geometry.PROPOSE_THREADS, 1), *addresses, np.int32(patch))

    def crop(self, stream: Stream, *, image: Address, locations: Address, patches: Address, k: int, n: int) -> None:
        """Copy patches from standardized images to the local graph's `patches`, float32 [n * k, 1, 512, 512].

        Row i * k + j is patch j of image i. `image`: float32 [n, 1, 2944, 1920]; `locations`: output of `propose`.
        Equals runtime.patching.crop.
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
        """Compute the fused map `saliency`, float32 [n, 2, 2944, 1920], in the network frame.

        `saliency_global`: float32 [n, 2, 184, 120]; `saliency_patches`: float32 [n, 6, 2, 128, 128], not read for
        slots with location (-1, -1). Sets NOT_FINITE_GLOBAL and NOT_FINITE_LOCAL in `flags`, uint32 [n], and keeps the
        other bits, so it must run after `propose`. Equals runtime.patching.fuse, enlarged.
        """
        grid = (self._network.map_shape[0], len(self._network.classes), n)
        arguments = (saliency_global, saliency_patches, locations, saliency, flags)
        self._launch(stream, "fuse", grid, (self._geometry.row_threads, 1), *map(_address, arguments))

    def enlarge(self, stream: Stream, *, saliency_global: Address, saliency: Address, flags: Address, n: int) -> None:
        """Compute the map of a network without patch maps: the global map, nearest neighbour.

        `saliency_global`: float32 [n, 2, 46, 30] (GMIC). `saliency` (output): float32 [n, 2, 2944, 1920], network
        frame. Sets NOT_FINITE_GLOBAL in `flags`, uint32 [n], and keeps the other bits, so it must run after `propose`.
        Equals runtime.patching.enlarge.
        """
        grid = (self._network.input_shape[0] // geometry.EXAMINE_ROWS, len(self._network.classes), n)
        addresses = map(_address, (saliency_global, saliency, flags))
        self._launch(stream, "enlarge", grid, (self._geometry.row_threads, 1), *addresses)

    def examine(self, stream: Stream, *, image: Address, flags: Address, n: int) -> None:
        """Set NOT_FINITE_IMAGE in `flags` for images with NaN or infinite values.

        `image`: float32 [n, 1, 2944, 1920]. `flags`: uint32 [n]; the other bits are kept, so it must run after
        `propose`.
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
