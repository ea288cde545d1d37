"""A small exam for servers, and repositories made of the tiny bundle."""

from pathlib import Path

import numpy as np

from glam_deploy.cli.main import exit_code
from glam_deploy.dicom.mammography import write_view
from glam_deploy.records import View
from support.engines import small_view
from support.tiny_bundle import write_tiny_bundle


def write_repository(folder: Path, *options: str) -> Path:
    """A repository of the tiny bundle, made by the command line; the bundle is `folder/bundle`."""
    if not (folder / "bundle").exists():
        write_tiny_bundle(folder / "bundle")
    repository = folder / "models"
    arguments = ["triton", "--quiet", "--bundle", str(folder / "bundle"), "--out", str(repository), *options]
    assert exit_code(arguments) == 0
    return repository


def versions(repository: Path, model: str = "glam") -> list[Path]:
    """Folders of a model's versions, in order of their numbers."""
    return sorted((one for one in (repository / model).iterdir() if one.is_dir()), key=lambda one: int(one.name))


def exam(folder: Path) -> dict[View, bytes]:
    """View -> content of a DICOM file of `small_view`; each has another size and another place of the bright spot."""
    folder.mkdir(exist_ok=True)
    for number, view in enumerate(View):
        pixels = np.pad(np.roll(small_view().pixels, 10 * number, axis=0), ((0, number), (0, 0)))
        write_view(folder / f"{view}.dcm", pixels[:, ::-1].copy() if view.is_right else pixels, view=view)
    return {view: (folder / f"{view}.dcm").read_bytes() for view in View}


def standardized() -> np.ndarray:
    """float32 [2944, 1920], mean 0, standard deviation 1, with other values in every row and column."""
    image = np.random.default_rng(3).random((2944, 1920), np.float32)
    return ((image - image.mean()) / image.std()).astype(np.float32)
