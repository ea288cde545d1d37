"""The views that a bench works on."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from glam_deploy.errors import BackendUnavailable
from glam_deploy.installation import refusal
from glam_deploy.preprocess import prepare
from glam_deploy.reading import read
from glam_deploy.records import View

TWELVE_MEGAPIXELS = (4096, 3072)
SEED = 0


def demo_exam(folder: Path, views: int = 4) -> list[Path]:
    """The first views of a phantom exam as JPEG 2000 lossless DICOM. Raises BackendUnavailable without pydicom."""
    try:
        from pydicom.uid import JPEG2000Lossless

        from glam_deploy.dicom.mammography import Exam, write_view
    except ModuleNotFoundError as error:
        if (absence := refusal(error, user="the demo exam")) is None:
            raise
        raise BackendUnavailable(f"{absence}, or name images of your own with --images") from error
    from glam_export.demo.phantom import phantom_view

    paths = []
    for view in islice(View, views):
        path, pixels = folder / f"{view.value}.dcm", phantom_view(SEED, view, shape=TWELVE_MEGAPIXELS).pixels
        write_view(path, pixels, view=view, exam=Exam(seed="bench"), transfer_syntax=JPEG2000Lossless)
        paths.append(path)
    return paths


def standardized(paths: Sequence[Path], folder: Path) -> list[Path]:
    """The network's input of these views, as npy files that every rung reads. Raises what reading raises."""
    made = []
    for number, path in enumerate(paths):
        made.append(folder / f"{number}_{path.stem}.npy")
        np.save(made[-1], prepare(read(path)).image)
    return made


def image_name(made: Path) -> str:
    """What a file of `standardized` is called for people."""
    return made.stem.partition("_")[2]
