"""The numpy twin of the kernels that place whole images."""

from typing import Any

import numpy as np

from glam_deploy.errors import InputError
from glam_deploy.gpu.kernels.placed import Found, Located, PlaceStatus
from glam_deploy.preprocess import foreground, frame, samples, window
from glam_deploy.preprocess.foreground import Breast
from glam_deploy.preprocess.prepare import placement_of
from glam_deploy.preprocess.standardize import standardize
from glam_deploy.records import Float32, Mammogram


def locate(view: Mammogram, network_shape: tuple[int, int]) -> Located:
    """What `Kernels.place` writes about an image, by the functions of `preprocess`."""
    low, high = float(view.pixels.min()), float(view.pixels.max())
    status = _status(low, high)
    if status is PlaceStatus.OK:
        try:
            breast = foreground.find_breast(foreground.bordered_mask(view.pixels))
        except InputError:
            status = PlaceStatus.THIN
    found = _found(view, breast, network_shape) if status is PlaceStatus.OK else None
    return Located(status=status, low=low, high=high, found=found)


def image_of(view: Mammogram, located: Located, network_shape: tuple[int, int]) -> Float32:
    """The standardized image, float32 [*network_shape]; zeros for an image that is refused."""
    if located.found is None:
        return np.zeros(network_shape, np.float32)
    found = located.found
    shift = (found.row_shift, found.column_shift)
    placement = placement_of(view, found.crop, found.best_center, shift, network_shape)
    image = frame.map_to_network(placement, view.pixels).astype(np.float32)
    standardize(image)
    return image


def differing(one: Located | None, other: Located) -> list[str]:
    """Names of the facts and samples that are not equal; `one` is None for results that cannot be read."""
    if one is None:
        return ["status"]
    if one.status is not other.status or one.found is None or other.found is None:
        return [] if one.status is other.status else ["status"]
    facts, others = _facts(one, one.found), _facts(other, other.found)
    return [name for name, value in facts.items() if not np.array_equal(value, others[name])]


def _status(low: float, high: float) -> PlaceStatus:
    if not (np.isfinite(low) and np.isfinite(high)):
        return PlaceStatus.NOT_FINITE
    if low < 0:
        return PlaceStatus.NEGATIVE
    if high == 0:
        return PlaceStatus.EMPTY
    return PlaceStatus.CONSTANT if low == high else PlaceStatus.OK


def _found(view: Mammogram, breast: Breast, network_shape: tuple[int, int]) -> Found:
    rows, columns = view.pixels.shape
    is_mlo, mirrored = view.view.is_mlo, view.faces_left
    upright, pixels = breast.mirrored(columns) if mirrored else breast, view.upright
    crop = window.crop_box(upright, (rows, columns))
    facts = window.crop_facts(upright, crop, faces_left=mirrored)
    tissue = pixels[crop[0] : crop[2], crop[1] : crop[3]] > 0
    center = window.best_center(tissue, facts, is_mlo=is_mlo, window=network_shape)
    shape = (crop[2] - crop[0], crop[3] - crop[1])
    shift = window.window_shift(center, shape, is_mlo=is_mlo, window=network_shape)
    seen = frame.seen(placement_of(view, crop, center, shift, network_shape)).read(view.pixels)
    return Found(
        breast=breast,
        crop=crop,
        crop_facts=facts,
        best_center=center,
        row_shift=shift[0],
        column_shift=shift[1],
        foreground=int(np.count_nonzero(tissue)),
        seen_foreground=int(np.count_nonzero(seen)),
        samples=samples.take(pixels, upright),
    )


def _facts(located: Located, found: Found) -> dict[str, Any]:
    breast = {f"breast.{name}": value for name, value in vars(found.breast).items()}
    facts = {name: value for name, value in vars(found).items() if name not in {"breast", "samples"}}
    facts["crop_facts"] = str(found.crop_facts)
    return {"range": (located.low, located.high), **breast, **facts, **vars(found.samples)}
