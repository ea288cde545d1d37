"""The views that benchmarks work on: phantoms, a demo exam as DICOM files, standardized images in npy files."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, product
from pathlib import Path

import numpy as np

from glam_deploy.errors import BackendUnavailable
from glam_deploy.installation import refusal
from glam_deploy.preprocess import from_standardized, prepare
from glam_deploy.records import Mammogram, NetworkInput, Source, View

TWELVE_MEGAPIXELS = (4096, 3072)
"""Rows and columns of the views of the demo exam."""
SEED = 0


def phantoms(seeds: Iterable[int], *, shape: tuple[int, int] | None = None) -> list[Mammogram]:
    """The four views of each phantom exam, exam after exam. `shape`: rows and columns [those of `phantom.SHAPE`]."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda which: phantom(*which, shape=shape), product(seeds, View)))


def phantom(seed: int, view: View, *, shape: tuple[int, int] | None = None) -> Mammogram:
    """One phantom view, uint16, named by its seed and view."""
    from glam_export.demo.phantom import SHAPE, phantom_view

    source = Source(name=f"phantom {seed} {view.value}", kind="array")
    return Mammogram(pixels=phantom_view(seed, view, shape=shape or SHAPE).pixels, view=view, source=source)


def demo_exam(folder: Path, views: int = 4) -> list[Path]:
    """The first views of a phantom exam as JPEG 2000 lossless DICOM. Raises BackendUnavailable without pydicom."""
    try:
        from pydicom.uid import JPEG2000Lossless

        from glam_deploy.dicom.mammography import Exam, write_view
    except ModuleNotFoundError as error:
        if (absence := refusal(error, user="the demo exam")) is None:
            raise
        raise BackendUnavailable(f"{absence}, or name images of your own with --images") from error

    paths = []
    for view in islice(View, views):
        path, pixels = folder / f"{view.value}.dcm", phantom(SEED, view, shape=TWELVE_MEGAPIXELS).pixels
        write_view(path, pixels, view=view, exam=Exam(seed="bench"), transfer_syntax=JPEG2000Lossless)
        paths.append(path)
    return paths


def standardized(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Write the network's input of each view, float32 [2944, 1920], as an npy file. Raises what `read` raises."""
    from glam_deploy.reading import in_file, read  # packages that a machine for `gpu_check` may lack

    made = []
    for number, path in enumerate(paths):
        made.append(folder / f"{number}_{path.stem}.npy")
        with in_file(path):
            np.save(made[-1], prepare(read(path)).image)
    return made


def standardized_view(path: Path) -> NetworkInput:
    """The view in an npy file that holds the network's input."""
    return from_standardized(np.load(path), source=Source(name=path.name, kind="npy"))


def image_name(made: Path) -> str:
    """The name, for people, of the view in a file that `standardized` has written."""
    return made.stem.partition("_")[2]
