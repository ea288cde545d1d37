"""Result -> the numbers, as a .npz that `numpy.load` reads."""

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from glam_deploy.runtime.result import Result


COMPRESSION_LEVEL = 1
"""zlib's; level 6 of `np.savez_compressed` takes twice the time on full-size saliency (docs/outputs.md)."""

NamedArrays = dict[str, NDArray[Any]]


def named_arrays(result: "Result", *, full: bool, save_input: bool) -> NamedArrays:
    """The arrays of one image by the names they have in the file (see `Result` for range and frame).

    float32 unless said otherwise: y_global [2], y_scale [3, 2], y_local [2], saliency_global [2, 184, 120],
    saliency_patches [K, 2, 128, 128], patch_locations int64 [K, 2]; y_fusion [2] and attention [K] only where the
    checkpoint has them. `full` adds saliency [2, 2944, 1920] (network frame) and saliency_source [2, rows, columns]
    (source frame); `save_input` adds input [2944, 1920], standardized, network frame.
    """
    always = ("y_global", "y_scale", "y_local", "saliency_global", "saliency_patches", "patch_locations")
    found: NamedArrays = {name: getattr(result, name) for name in always}
    optional = {"y_fusion": result.y_fusion, "attention": result.attention}
    found |= {name: array for name, array in optional.items() if array is not None}
    if full:
        found |= {"saliency": result.saliency(), "saliency_source": result.saliency_in_source()}
    if save_input:
        found["input"] = result.network_input.image
    return found


def write_npz(path: Path, named: NamedArrays) -> None:
    """Write a compressed .npz; the same arrays give the same bytes. Raises OSError as the file system does."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=COMPRESSION_LEVEL) as archive:
        for name, array in named.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
