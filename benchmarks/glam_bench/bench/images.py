"""The views that a bench works on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from glam_deploy.errors import BackendUnavailable
from glam_deploy.installation import refusal
from glam_deploy.preprocess import prepare
from glam_deploy.reading import read

TWELVE_MEGAPIXELS = (4096, 3072)
SEED = 0
LADDER_IMAGES = 4
"""The first is timed, all give answers."""


def demo_exam(folder: Path, shape: tuple[int, int] = TWELVE_MEGAPIXELS) -> list[Path]:
    """The four views of a phantom exam as JPEG 2000 lossless DICOM. Raises BackendUnavailable without pydicom."""
    try:
        from pydicom.uid import JPEG2000Lossless

        from glam_deploy.dicom.mammography import Exam, write_view
    except ModuleNotFoundError as error:
        if (absence := refusal(error, user="the demo exam")) is None:
            raise
        raise BackendUnavailable(f"{absence}, or name images of your own with --images") from error
    from glam_export.demo.phantom import phantom_exam

    paths = []
    for view in phantom_exam(SEED, shape=shape):
        path = folder / f"{view.view.value}.dcm"
        write_view(path, view.pixels, view=view.view, exam=Exam(seed="bench"), transfer_syntax=JPEG2000Lossless)
        paths.append(path)
    return paths


def standardized(paths: Sequence[Path], folder: Path) -> list[Path]:
    """The network's input of the first few views, as npy files that every rung reads. Raises what reading raises."""
    made = []
    for number, path in enumerate(paths[:LADDER_IMAGES]):
        made.append(folder / f"{number}_{path.stem}.npy")
        np.save(made[-1], prepare(read(path)).image)
    return made


def image_name(made: Path) -> str:
    """What a file of `standardized` is called for people."""
    return made.stem.partition("_")[2]
