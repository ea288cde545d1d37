"""Views placed by the GPU: which ones, and what the host makes of what the GPU found in them."""

from dataclasses import replace

import numpy as np

from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.kernels import staging
from glam_deploy.gpu.kernels.placed import Found
from glam_deploy.gpu.kernels.placed import Located as GpuLocated
from glam_deploy.preprocess import place
from glam_deploy.preprocess.prepare import Located, check_type, judge, placement_of
from glam_deploy.records import ChainInput, Mammogram, Placed


class GpuPlacing:
    """Placing of the views of a network with this frame, half by the GPU (`Kernels.place`), half by the host."""

    def __init__(self, network_shape: tuple[int, int]) -> None:
        self._network_shape = network_shape

    def prepare(self, view: ChainInput) -> ChainInput:
        """The view as it is uploaded: a Mammogram that the GPU places, or one that the host has placed.

        The host places images that are stored rotated or too large (`staging.fits`). Raises InputError as
        `preprocess.place`: all of its refusals for these, and those of type and shape for the others.
        """
        if not isinstance(view, Mammogram):
            return view
        check_type(view.pixels)
        if view.half_turn or not staging.fits(view.pixels.shape, view.pixels.dtype):
            return place(view, network_shape=self._network_shape)
        return replace(view, pixels=np.ascontiguousarray(view.pixels))

    def judge(self, view: ChainInput, found: GpuLocated | None) -> Placed | Exception:
        """The placed view, or the error of `preprocess.place`, for its caller; `found`: None if the host has placed it.

        Raises BackendRunError if the GPU finds no breast in an image that the host can place.
        """
        if not isinstance(view, Mammogram):
            return view
        assert found is not None
        try:
            if found.found is None:
                place(view, network_shape=self._network_shape)
                raise BackendRunError(
                    f"the GPU finds no breast in an image ({found.status.name}), and the host finds one: a fault of "
                    "the GPU or of glam-deploy. Restart the process; if it happens again, report it."
                )
            return judge(view, self._located(view, found.found))
        except BackendRunError:
            raise
        except Exception as error:  # an InputError, or a fault that must not keep the slot
            return error

    def _located(self, view: Mammogram, found: Found) -> Located:
        shift = (found.row_shift, found.column_shift)
        return Located(
            breast=found.breast.mirrored(view.pixels.shape[1]) if view.faces_left else found.breast,
            samples=found.samples,
            placement=placement_of(view, found.crop, found.best_center, shift, self._network_shape),
            crop_facts=found.crop_facts,
            tissue_in_crop=found.foreground,
            tissue_in_window=found.seen_foreground,
        )
