"""The one pipeline: image -> preprocess -> global -> patches -> local -> fusion -> result. Knows no vendor."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy import spec
from glam_deploy.engines.base import OpenedEngines
from glam_deploy.errors import UsageError
from glam_deploy.preprocess import from_standardized, place
from glam_deploy.records import VIEW_NAMES, Mammogram, NetworkInput, PlacedView, Source, View, parse_view
from glam_deploy.runtime.chain import Chain
from glam_deploy.runtime.host_chain import HostChain
from glam_deploy.runtime.result import Result, result_of
from glam_deploy.runtime.stopwatch import Stopwatch


class Pipeline:
    """Finds lesions in one view at a time. Holds no state between calls; safe to call from several threads.

    Made by `glam_deploy.load`.
    """

    def __init__(self, opened: OpenedEngines, *, patches: int, provenance: Mapping[str, Any]) -> None:
        if patches not in range(1, spec.MAX_PATCHES + 1):
            raise UsageError(f"patches = {patches}: expected a whole number from 1 to {spec.MAX_PATCHES}")
        self.patches = patches
        self.provenance = {**provenance, "engine": opened.provenance, "patches": patches}
        self._chain: Chain = HostChain(opened.engines, patches)

    def __call__(
        self,
        image: Mammogram | NetworkInput | NDArray[Any],
        *,
        view: View | str | None = None,
        horizontal_flip: bool = False,
    ) -> Result:
        """Predictions, maps and patch places for one view.

        `image` is a Mammogram (see `glam_deploy.read`); or a raw array [rows, columns], uint8, uint16 or float32 >= 0
        with background 0, and its `view` ("L-CC", "R-CC", "L-MLO", "R-MLO"); or, with no view, a float32 [2944, 1920]
        array that is already cropped, mirrored and standardized. `horizontal_flip` says that a raw array is stored
        mirrored. Raises InputError for images that cannot be used, UsageError for wrong arguments, BackendRunError
        where an engine fails.
        """
        clock = Stopwatch()
        with clock("preprocess"):
            placed = _place(image, view=view, horizontal_flip=horizontal_flip)
        findings = self._chain.start([placed], clock)()
        return result_of(findings, 0, timings_ms=clock.times_ms, provenance=self.provenance)


def _place(
    image: Mammogram | NetworkInput | NDArray[Any], *, view: View | str | None, horizontal_flip: bool
) -> PlacedView | NetworkInput:
    if isinstance(image, NetworkInput | Mammogram):
        if view is not None or horizontal_flip:
            raise UsageError("view and horizontal_flip go with raw arrays; this image already carries its own")
        return image if isinstance(image, NetworkInput) else place(image)
    if not isinstance(image, np.ndarray):
        raise UsageError(f"image is a {type(image).__name__}; expected a Mammogram, a NetworkInput or a numpy array")
    if view is None and (horizontal_flip or not np.issubdtype(image.dtype, np.floating)):
        raise UsageError(
            f"an array of {image.dtype} is a raw image and needs its view: pass view=, one of {VIEW_NAMES}. Without a "
            f"view, the array is a standardized float [2944, 1920] that faces right, and takes no horizontal_flip."
        )
    if view is None:
        return from_standardized(image, source=Source(name="array", kind="array"))
    return place(Mammogram(pixels=image, view=parse_view(view), horizontal_flip=horizontal_flip))
