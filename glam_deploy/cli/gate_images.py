"""Images and masks for `glam-deploy gate`."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from glam_deploy.cli.options import export_module
from glam_deploy.errors import UsageError
from glam_deploy.gate.ground_truth import MASK_ENDING, Mask, find_mask, is_mask_name, read_mask
from glam_deploy.gate.trial import Image
from glam_deploy.installation import require
from glam_deploy.reading import find_inputs, read, read_standardized
from glam_deploy.records import Mammogram, View
from glam_deploy.regular import open_regular

EXAM_SEED = 0


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Paths of images and outlines, and how to read them."""

    images: Path | None = None
    """None: the exam of the demo folder that has the bundle, otherwise a temporary demo exam."""
    masks: Path | None = None
    view: View | None = None
    standardized: bool = False


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """The images of one gate and their masks."""

    images: Sequence[Path]
    masks: Path | None
    options: ImageOptions

    def read(self, path: Path) -> tuple[Image, Mask | None]:
        """One image and its mask, if it has one. Raises InputError and as `reading.read`."""
        image = self._image(path)
        shape = image.pixels.shape if isinstance(image, Mammogram) else image.image.shape
        mask = self._mask(path)
        return image, read_mask(mask, shape) if mask else None

    def sha256(self) -> str:
        """SHA-256 over all images and masks in their order, hexadecimal, for the verdict."""
        total = hashlib.sha256()
        for path in self.images:
            for file in filter(None, (path, self._mask(path))):
                total.update(_file_sha256(file))
        return total.hexdigest()

    def _image(self, path: Path) -> Image:
        if not self.options.standardized:
            return read(path, view=self.options.view)
        return read_standardized(path, view=self.options.view)

    def _mask(self, path: Path) -> Path | None:
        return find_mask(self.masks, path) if self.masks else None


def require_exam(bundle_folder: Path, options: ImageOptions) -> None:
    """Raises BackendUnavailable if `image_set` has to make a demo exam and packages are missing."""
    if options.images is None and _demo(bundle_folder) is None:
        require("export", "dicom")


@contextmanager
def image_set(bundle_folder: Path, options: ImageOptions) -> Iterator[ImageSet]:
    """Find the images, or make a demo exam that exists during the block.

    Raises UsageError for folders without images or masks, BackendUnavailable if a demo exam cannot be made.
    """
    if options.images is not None:
        yield _found(options.images, options.masks, options)
        return
    if options.masks is not None or options.standardized:
        raise UsageError("--masks and --standardized go with --images: name the images")
    if (demo := _demo(bundle_folder)) is not None:
        yield _found(demo / "exam", demo / "masks", options)
        return
    maker = export_module("demo.material", "dicom")
    with TemporaryDirectory(prefix="glam-gate-") as room:
        exam, outlines = Path(room) / "exam", Path(room) / "masks"
        maker.write_exam(exam, outlines, EXAM_SEED)
        yield _found(exam, outlines, options)


def _found(images: Path, masks: Path | None, options: ImageOptions) -> ImageSet:
    """The images of a folder, which may also hold their outlines."""
    paths = [path for path in find_inputs([images]) if not is_mask_name(path)]
    if not paths:
        raise UsageError(f"{images} holds nothing but masks: check the folder")
    if masks is not None:
        outlines = _outlines(masks, paths)
        paths = [path for path in paths if path.resolve() not in outlines]
    return ImageSet(images=paths, masks=masks, options=options)


def _outlines(masks: Path, paths: Sequence[Path]) -> set[Path]:
    """The masks of these images. Raises UsageError if there are none, or if two images have the same mask."""
    if not masks.is_dir():
        raise UsageError(f"{masks}: {'is not a folder' if masks.exists() else 'does not exist'}; check --masks")
    found = [(mask.resolve(), path) for path in paths if (mask := find_mask(masks, path))]
    if not found:
        stem = paths[0].stem
        raise UsageError(
            f"{masks}: no mask is named like an image, such as {stem}.png or {stem}{MASK_ENDING}.png; check --masks"
        )
    owner: dict[Path, Path] = {}
    for mask, path in found:
        if (other := owner.setdefault(mask, path)) != path:
            raise UsageError(
                f"{mask} is named like two images, {other} and {path}: give images names of their own, or run one gate "
                f"for each folder"
            )
    return set(owner)


def _demo(bundle_folder: Path) -> Path | None:
    """The folder of `glam-deploy demo` that has the bundle; None if it is in no such folder."""
    place = bundle_folder.resolve().parent
    return place if (place / "exam").is_dir() and (place / "masks").is_dir() else None


def _file_sha256(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""  # reported as unreadable when it is read
