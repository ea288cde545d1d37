"""Phantom exams as a modality would send them, small enough to be worked on in a blink."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from glam_deploy.dicom.mammography import Encoding, Exam, write_view
from glam_deploy.records import Pixels, View

SHAPE = (500, 400)
"""Rows and columns; the breast must be thicker than the 200 pixels that the published preprocessing erodes."""
ALL_VIEWS = tuple(View)


def phantom(seed: str, view: View) -> Pixels:
    """uint16 [500, 400], 12 bits: an even breast at the chest wall with one bright spot, elsewhere for each seed."""
    rng = np.random.default_rng([*seed.encode(), *view.value.encode()])
    pixels = np.zeros(SHAPE, np.uint16)
    pixels[50:450, :250] = rng.integers(900, 1100, (400, 250))
    top, left = rng.integers(80, 380), rng.integers(20, 180)
    pixels[top : top + 40, left : left + 40] = 3500
    return pixels[:, ::-1].copy() if view.is_right else pixels


def exam_of(seed: str, **facts: str) -> Exam:
    """An invented patient's exam; the same seed gives the same UIDs."""
    return Exam(seed=seed, patient_name=f"PHANTOM^{seed.upper()}", patient_id=seed, **facts)


def write_exam(
    folder: Path, seed: str, views: Iterable[View] = ALL_VIEWS, *, photometric: str = "MONOCHROME2", **options: object
) -> list[Path]:
    """Files of an exam, one a view; `options` are those of `write_view`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{view.value}.dcm" for view in views]
    for path, view in zip(paths, views, strict=True):
        encoding = Encoding(photometric=photometric)
        write_view(path, phantom(seed, view), view=view, exam=exam_of(seed), encoding=encoding, **options)  # type: ignore[arg-type]
    return paths
