"""The one pipeline: image -> preprocess -> global -> patches -> local -> fusion -> result. Knows no vendor."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy import spec
from glam_deploy.engines.base import OpenedEngines
from glam_deploy.errors import UsageError
from glam_deploy.patches import host
from glam_deploy.preprocess import from_standardized, prepare
from glam_deploy.records import VIEW_NAMES, Mammogram, NetworkInput, Notice, Patches, Source, View, parse_view
from glam_deploy.runtime import stages
from glam_deploy.runtime.result import Result


class Pipeline:
    """Finds lesions in one view at a time. Holds no state between calls; safe to call from several threads.

    Made by `glam_deploy.load`.
    """

    def __init__(self, opened: OpenedEngines, *, patches: int, provenance: Mapping[str, Any]) -> None:
        if patches not in range(1, spec.MAX_PATCHES + 1):
            raise UsageError(f"patches = {patches}: expected a whole number from 1 to {spec.MAX_PATCHES}")
        self.patches = patches
        self.provenance = {**provenance, "engine": opened.provenance, "patches": patches}
        self._engines = opened.engines

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
            prepared = _prepare(image, view=view, horizontal_flip=horizontal_flip)
        return self._run(prepared, clock)

    def _run(self, prepared: NetworkInput, clock: "Stopwatch") -> Result:
        images = prepared.image[None, None]
        with clock("global"):
            maps = stages.run_global(self._engines["global"], images)
        with clock("patches"):
            patches = host.select(images, maps, self.patches)
        with clock("local"):
            local = stages.run_local(self._engines["local"], patches)
        with clock("fusion"):
            scores = stages.run_fusion(self._engines["fusion"], maps, patches, local)
        return Result(
            y_global=scores.y_global[0],
            y_scale=maps.y_scale[0],
            y_local=scores.y_local[0],
            y_fusion=None if scores.y_fusion is None else scores.y_fusion[0],
            attention=None if scores.attention is None else scores.attention[0],
            saliency_global=maps.saliency[0],
            saliency_patches=local.saliency[0],
            patch_locations=patches.locations[0],
            network_input=prepared,
            notices=(*prepared.notices, *_contrast_notices(patches)),
            timings_ms=clock.times_ms,
            provenance=self.provenance,
        )


class Stopwatch:
    """Wall time of named steps, in milliseconds; everything on a CPU has ended when its call returns."""

    def __init__(self) -> None:
        self.times_ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.times_ms[step] = (perf_counter() - start) * 1e3


def _prepare(
    image: Mammogram | NetworkInput | NDArray[Any], *, view: View | str | None, horizontal_flip: bool
) -> NetworkInput:
    if isinstance(image, NetworkInput | Mammogram):
        if view is not None or horizontal_flip:
            raise UsageError("view and horizontal_flip go with raw arrays; this image already carries its own")
        return image if isinstance(image, NetworkInput) else prepare(image)
    if not isinstance(image, np.ndarray):
        raise UsageError(f"image is a {type(image).__name__}; expected a Mammogram, a NetworkInput or a numpy array")
    if view is None and (horizontal_flip or not np.issubdtype(image.dtype, np.floating)):
        raise UsageError(
            f"an array of {image.dtype} is a raw image and needs its view: pass view=, one of {VIEW_NAMES}. Without a "
            f"view, the array is a standardized float [2944, 1920] that faces right, and takes no horizontal_flip."
        )
    if view is None:
        return from_standardized(image, source=Source(name="array", kind="array"))
    return prepare(Mammogram(pixels=image, view=parse_view(view), horizontal_flip=horizontal_flip))


def _contrast_notices(patches: Patches) -> tuple[Notice, ...]:
    flat = [name for name, is_flat in zip(spec.CLASSES, patches.flat[0], strict=True) if is_flat]
    if not flat:
        return ()
    message = f"the global saliency of {' and '.join(flat)} is the same everywhere and took no part in choosing patches"
    if len(flat) == len(spec.CLASSES):
        message += "; nothing was left to choose by, so every patch is the upper-left one"
    return (Notice(code="no-contrast", message=message),)
