"""Images with their ground truth for `glam-deploy gate`: a folder with masks, or a labelled set."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from glam_deploy.cli import console
from glam_deploy.cli.bench import bench_module
from glam_deploy.cli.options import export_module
from glam_deploy.errors import InputError, UsageError
from glam_deploy.gate.ground_truth import GroundTruth, ground_truth_of, is_mask_name
from glam_deploy.gate.trial import Image
from glam_deploy.images.image_files import MASK_ENDING, find_mask, read_mask
from glam_deploy.input_files import find_inputs
from glam_deploy.installation import require
from glam_deploy.reading import read, read_standardized
from glam_deploy.records import Mammogram, View
from glam_deploy.unchanged import file_sha256

EXAM_SEED = 0


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Paths of images and outlines, and how to read them."""

    images: Path | None = None
    """None: the exam of the demo folder that has the bundle, otherwise a temporary demo exam."""
    masks: Path | None = None
    dataset: tuple[str, Path] | None = None
    """Name and folder of a labelled set, instead of images and masks."""
    split: str | None = None
    view: View | None = None
    standardized: bool = False


class ImageSet(Protocol):
    """The images of one gate and their ground truth."""

    @property
    def images(self) -> Sequence[Path]: ...

    def name(self, path: Path) -> str:
        """Name of an image for users."""
        ...

    def read(self, path: Path) -> tuple[Image, GroundTruth | None]:
        """One image and its ground truth, if it has one. Raises InputError and as `reading.read`."""
        ...

    def sha256(self) -> str:
        """SHA-256 over all images and their ground truth in their order, hexadecimal, for the verdict."""
        ...


@dataclass(frozen=True, kw_only=True)
class FolderImages:
    """An ImageSet of files, and PNG masks with their names."""

    images: Sequence[Path]
    masks: Path | None
    options: ImageOptions

    def name(self, path: Path) -> str:
        return path.name

    def read(self, path: Path) -> tuple[Image, GroundTruth | None]:
        image = self._image(path)
        shape = image.pixels.shape if isinstance(image, Mammogram) else image.image.shape
        mask = self._mask(path)
        return image, ground_truth_of(read_mask(mask, shape)) if mask else None

    def sha256(self) -> str:
        total = hashlib.sha256()
        for path in self.images:
            for file in filter(None, (path, self._mask(path))):
                with suppress(InputError):  # reported as unreadable when it is read
                    total.update(bytes.fromhex(file_sha256(file)))
        return total.hexdigest()

    def _image(self, path: Path) -> Image:
        if not self.options.standardized:
            return read(path, view=self.options.view)
        return read_standardized(path, view=self.options.view)

    def _mask(self, path: Path) -> Path | None:
        return find_mask(self.masks, path) if self.masks else None


@dataclass(frozen=True, kw_only=True)
class DatasetImages:
    """An ImageSet of a labelled set: labels, and the outlines that the set has."""

    labelled: Mapping[Path, Any]
    """Image -> its `glam_bench.evaluation.labelled.LabelledImage`."""

    @property
    def images(self) -> Sequence[Path]:
        return tuple(self.labelled)

    def name(self, path: Path) -> str:
        return str(self.labelled[path].name)

    def read(self, path: Path) -> tuple[Image, GroundTruth | None]:
        records, image = bench_module("evaluation.labelled"), self.labelled[path]
        mammogram = records.read_labelled(image)
        outlines = records.masks_of(image, mammogram.pixels.shape)
        return mammogram, GroundTruth(positive=image.labels, outlines=outlines)

    def sha256(self) -> str:
        digest = bench_module("evaluation.labelled").digest
        total = hashlib.sha256()
        for image in self.labelled.values():
            total.update(repr((image.name, sorted(image.labels.items()))).encode(errors="backslashreplace"))
            with suppress(InputError):  # reported as unreadable when it is read
                total.update(digest(image).encode())
        return total.hexdigest()


def require_exam(bundle_folder: Path, options: ImageOptions) -> None:
    """Raises BackendUnavailable if `image_set` has to make a demo exam and packages are missing."""
    if options.images is None and options.dataset is None and _demo(bundle_folder) is None:
        require("export", "dicom")


@contextmanager
def image_set(bundle_folder: Path, options: ImageOptions) -> Iterator[ImageSet]:
    """Find the images, or make a demo exam that exists during the block.

    Raises UsageError for folders without images or masks and as `open_dataset`, BackendUnavailable if a demo exam
    cannot be made.
    """
    if options.dataset is not None:
        yield _of_dataset(*options.dataset, options)
        return
    if options.split is not None:
        raise UsageError("--split goes with --dataset: name the labelled set")
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


def _of_dataset(name: str, folder: Path, options: ImageOptions) -> ImageSet:
    """The images of a labelled set; prints its remarks to standard error."""
    if options.images or options.masks or options.view or options.standardized:
        raise UsageError(
            "--dataset has images, views and outlines of its own: omit --images, --masks, --view and --standardized"
        )
    with console.working(f"reading {name}"):
        found = bench_module("evaluation.datasets").open_dataset(name, folder, split=options.split)
    for remark in found.remarks:
        console.err.print(f"{name}: {remark}", soft_wrap=True)
    if not found.images:
        raise UsageError(f"{folder} has no image that the tables of {name} list: check the folder")
    return DatasetImages(labelled={image.path: image for image in found.images})


def _found(images: Path, masks: Path | None, options: ImageOptions) -> ImageSet:
    """The images of a folder, which may also hold their outlines."""
    paths = [path for path in find_inputs([images]) if not is_mask_name(path)]
    if not paths:
        raise UsageError(f"{images} holds nothing but masks: check the folder")
    if masks is not None:
        outlines = _outlines(masks, paths)
        paths = [path for path in paths if path.resolve() not in outlines]
    return FolderImages(images=paths, masks=masks, options=options)


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
