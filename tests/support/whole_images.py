"""Placement of whole images by the kernels on the CPU, and the same in numpy."""

import numpy as np
from cuda_host.run import HostStream, Memory
from numpy.typing import NDArray

from glam_deploy.gpu.kernels import placed, staging
from glam_deploy.gpu.kernels.launch import Kernels, scratch_bytes
from glam_deploy.gpu.kernels.placed import Located, PlaceStatus
from glam_deploy.networks import NetworkSpec
from glam_deploy.preprocess import foreground, frame, samples
from glam_deploy.preprocess.prepare import _place, crop_window
from glam_deploy.records import Mammogram, Placement


class Placer:
    """Memory for `n` images, used again and again as a pipeline does: what was there before stays there."""

    def __init__(self, kernels: Kernels, network: NetworkSpec, *, area_bytes: int, n: int = 1) -> None:
        self._kernels, self._network, self._n = kernels, network, n
        self.areas = Memory((n, area_bytes), np.uint8)
        self._scratch = Memory.of(np.zeros(scratch_bytes(n, network), np.uint8))
        self._placing = Memory(placed.place_scratch_bytes(n), np.uint8)
        self._samples = Memory((n, placed.samples_bytes()), np.uint8)
        self._image = Memory((n, *network.input_shape), np.float32)
        self.stream = HostStream()

    def pack(self, *views: Mammogram) -> None:
        for area, view in zip(self.areas.array, views, strict=True):
            used = staging.pack_whole(area, view.pixels, mirrored=view.faces_left, is_mlo=view.view.is_mlo)
            area[used:][:4096] = 0xFF

    def __call__(self, *views: Mammogram) -> list[Located]:
        self.pack(*views)
        blocks = self.launch(*views)
        return [placed.read(block, view.pixels.dtype) for block, view in zip(blocks, views, strict=True)]

    def launch(self, *views: Mammogram) -> list[NDArray[np.uint8]]:
        """Blocks of the areas as they are, as much of them as a pipeline downloads for such views."""
        used = [placed.used_samples_bytes(*view.pixels.shape, view.pixels.dtype) for view in views]
        for block, nbytes in zip(self._samples.array, used, strict=True):
            assert nbytes <= len(block)
            block[: nbytes + 4096] = 0xFF
        where = {"scratch": self._scratch, "place_scratch": self._placing, "samples": self._samples}
        area_bytes = self.areas.array.shape[1]
        self._kernels.place(self.stream, areas=self.areas, area_bytes=area_bytes, n=self._n, **where)
        for memory in (self._scratch, self._placing, self._samples):
            memory.check()
        for block, nbytes in zip(self._samples.array, used, strict=True):
            assert (block[nbytes:][:4096] == 0xFF).all()
        return [block[:nbytes] for block, nbytes in zip(self._samples.array, used, strict=True)]

    def images(self) -> NDArray[np.float32]:
        """The images that `standardize` makes of the windows: [n, rows, columns]."""
        area_bytes = self.areas.array.shape[1]
        where = {"areas": self.areas, "image": self._image, "scratch": self._scratch}
        self._kernels.standardize(self.stream, **where, n=self._n, area_bytes=area_bytes)
        return self._image.read()


def assert_same(
    located: Located, view: Mammogram, window: tuple[int, int], erosions: int = foreground.EROSIONS
) -> Placement:
    """Fails unless every fact and sample is that of numpy; returns the placement. The breast must be found."""
    pixels, bordered = view.pixels, foreground.bordered_mask(view.pixels)
    columns = pixels.shape[1]
    breast = foreground.find_breast(bordered, erosions)
    upright = breast.mirrored(columns) if view.faces_left else breast
    placement, facts = _place(bordered[1:-1, 1:-1], upright, view, window)
    assert located.status is PlaceStatus.OK
    assert (located.low, located.high) == (pixels.min(), pixels.max())
    found = located.found
    assert found is not None
    assert found.breast.top == breast.top
    for side in ("left", "right"):
        np.testing.assert_array_equal(getattr(found.breast, side), getattr(breast, side), strict=True)
    assert found.crop_facts == facts
    assert crop_window(found.crop, columns, mirrored=view.faces_left) == placement.crop_window
    assert found.best_center == placement.best_center
    assert (found.row_shift, found.column_shift) == (placement.row_shift, placement.column_shift)
    top, bottom, left, right = placement.crop_window
    assert found.foreground == np.count_nonzero(pixels[top:bottom, left:right])
    assert found.seen_foreground == np.count_nonzero(frame.seen(placement).read(pixels))
    for name, values in vars(samples.take(view.upright, upright)).items():
        np.testing.assert_array_equal(getattr(found.samples, name), values, err_msg=name, strict=True)
    return placement
