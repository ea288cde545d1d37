"""Views on their way to the GPU: pinned memory, and the bytes of each kind of view."""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from glam_deploy.gpu.device.context import PinnedMemory
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.kernels import staging
from glam_deploy.preprocess import frame
from glam_deploy.records import ChainInput, Mammogram, NetworkInput, Pixels, PlacedView

_UNIT = 1 << 20


class Feed(StrEnum):
    """Kind of input of a run. Each has its own CUDA graph."""

    RAW = "raw"
    """Raw views: whole images, or parts that the host has placed."""
    STANDARDIZED = "standardized"
    """Images that the host has standardized."""
    RESIDENT = "resident"
    """Images that are already in the slot's GPU memory; the results stay in GPU memory too."""


def feed_of(views: Sequence[ChainInput]) -> Feed:
    """Kind of input of a run of these views, which are all raw or all standardized."""
    return Feed.STANDARDIZED if isinstance(views[0], NetworkInput) else Feed.RAW


class GrowingMemory:
    """Pinned host memory that is allocated again if more is needed. Not thread-safe."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._memory: PinnedMemory | None = None

    def room(self, nbytes: int) -> PinnedMemory:
        """Memory of at least `nbytes`; its content is lost if it is allocated again. No copy may be under way."""
        if self._memory is None or self._memory.nbytes < nbytes:
            self._memory = None  # freed before the next allocation
            self._memory = self._gpu.pinned(-(-nbytes // _UNIT) * _UNIT)
        return self._memory


class Upload:
    """One view in pinned memory. Not thread-safe."""

    def __init__(self, gpu: Gpu) -> None:
        self._memory = GrowingMemory(gpu)
        self.view: ChainInput | None = None
        """The view of the last `put`."""
        self.address = self.nbytes = 0
        """Host address and size of its upload."""

    @property
    def is_whole(self) -> bool:
        """Whether the GPU places the view."""
        return isinstance(self.view, Mammogram)

    def put(self, view: ChainInput) -> None:
        """Copy a view to the pinned memory, the only copy on the host. Raises BackendRunError if memory lacks."""
        self.nbytes = _nbytes(view)
        memory = self._memory.room(self.nbytes)
        self.view, self.address = view, memory.address
        area = memory.array[: self.nbytes]
        if isinstance(view, NetworkInput):
            area.view(np.float32).reshape(view.image.shape)[...] = view.image
        elif isinstance(view, Mammogram):
            staging.pack_whole(area, view.pixels, mirrored=view.faces_left, is_mlo=view.view.is_mlo)
        else:
            part = frame.seen(view.placement)
            staging.pack(
                area,
                part_of(view),
                row=part.network[0],
                column=part.network[1],
                mirrored=part.columns_reversed,
                network_shape=view.placement.network_shape,
            )


def part_of(view: PlacedView) -> Pixels:
    """The pixels inside the window, with rows from top to bottom and columns as in the source frame."""
    part = frame.seen(view.placement)
    top, left, bottom, right = part.source
    pixels = view.pixels[top:bottom, left:right]
    return np.ascontiguousarray(pixels[::-1]) if part.rows_reversed else pixels


def _nbytes(view: ChainInput) -> int:
    if isinstance(view, NetworkInput):
        return view.image.nbytes
    if isinstance(view, Mammogram):
        rows, columns = view.pixels.shape
        return staging.whole_bytes(rows, columns, view.pixels.dtype)
    rows, columns = part_of(view).shape
    return staging.area_bytes(rows, columns, view.pixels.dtype.name)
