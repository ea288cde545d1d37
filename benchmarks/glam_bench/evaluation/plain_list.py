"""Reader of the plain list: a CSV file with a row for each image, and a folder of masks."""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from glam_bench.evaluation.csv_tables import Row, read_rows
from glam_bench.evaluation.labelled import LabelledImage, LabelledSet, MaskFile, Outline
from glam_deploy.errors import InputError, UsageError
from glam_deploy.images.image_files import MASK_ENDING, MASK_VALUES, find_mask, read_mask
from glam_deploy.records import VIEW_NAMES, View

CLASSES = ("benign", "malignant")
_LABELS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
_UNKNOWN = ("", "na", "nan")
"""Labels as spreadsheets, R and pandas write them, in lower case."""


def read_list(path: Path, masks: Path | None = None) -> LabelledSet:
    """Read a list of labelled images and the masks of these images.

    `path`: CSV file with the columns file (relative to the list), exam, benign and malignant (1, 0 or empty for
    unknown), and view, which may be empty or missing where the header or the name of the file states it. `masks`:
    folder of PNG files by `image_files.find_mask`, in folders as in the list (masks/A/1.png of the file A/1.dcm) or
    without them. The labels are of the images. Raises UsageError with line and value for a row that is wrong: a file
    that does not exist or is listed twice, another value, a mask that cannot be used or has a class that the labels
    deny; also if no image has a mask, and as `require_own_masks`.
    """
    images: dict[str, LabelledImage] = {}
    for row in read_rows(path, ("file", "exam", *CLASSES), optional=("view",)):
        image = _image(row, masks)
        if image.name in images:
            raise row.wrong("file", "each file once")
        images[image.name] = image
    if masks is not None and not any(image.outlines for image in images.values()):
        _refuse_masks(masks, list(images.values()))
    require_own_masks(images.values())
    return LabelledSet(name=path.stem, level="image", images=tuple(images.values()))


def require_own_masks(images: Iterable[LabelledImage]) -> None:
    """Raises UsageError if two images have the same mask: it outlines the lesions of one of them."""
    owner: dict[Path, Path] = {}
    for image in images:
        for outline in image.outlines:
            if isinstance(outline.shape, MaskFile):
                mask = outline.shape.path
                other = owner.setdefault(mask.resolve(), image.path)
                if other.resolve() != image.path.resolve():
                    raise UsageError(
                        f"{mask} is named like two images, {other} and {image.path}: put masks into folders as in the "
                        f"list, such as {mask.parent / PurePosixPath(image.name).parent / mask.name}, or rename both"
                    )


def _image(row: Row, masks: Path | None) -> LabelledImage:
    place = PurePosixPath(row.cells["file"].replace("\\", "/"))
    name, inside = place.as_posix(), not place.is_absolute() and ".." not in place.parts
    path = row.path.parent / name
    if not row.cells["file"] or not inside or not path.is_file():
        raise row.wrong("file", f"the name of a file in the folder {row.path.parent.resolve()}")
    if not row.cells["exam"]:
        raise row.wrong("exam", "an identifier, the same for all images of one exam")
    labels = {label: label_in(row, label) for label in CLASSES}
    return LabelledImage(
        name=name,
        path=path,
        view=_view(row),
        exam=row.cells["exam"],
        labels=labels,
        outlines=_outlines(row, _find_mask(masks, name, path), labels) if masks else (),
    )


def label_in(row: Row, column: str) -> bool | None:
    """The label in a cell; None for unknown. Raises UsageError."""
    text = row.cells[column].lower()
    if text in _UNKNOWN:
        return None
    if text not in _LABELS:
        raise row.wrong(column, "1 or 0 (also 1.0, 0.0, TRUE, FALSE), or nothing, NA or NaN for unknown")
    return _LABELS[text]


def _view(row: Row) -> View | None:
    text = row.cells["view"]
    if text and text not in set(View):
        raise row.wrong("view", f"one of {VIEW_NAMES}, or nothing if the file states it")
    return View(text) if text else None


def _find_mask(masks: Path, name: str, path: Path) -> Path | None:
    """The mask of the image `name` of a list, whose file is `path`: in its folder below `masks`, else in `masks`."""
    return find_mask(masks / PurePosixPath(name).parent, path) or find_mask(masks, path)


def _outlines(row: Row, mask: Path | None, labels: dict[str, bool | None]) -> tuple[Outline, ...]:
    """The classes in the mask of an image; none without a mask."""
    if mask is None:
        return ()
    try:
        values = read_mask(mask)
    except InputError as error:
        raise UsageError(f"{row.path}, line {row.line}: {error}") from error
    found = [label for label, value in MASK_VALUES.items() if (values == value).any()]
    for label in found:
        if labels[label] is False:
            raise row.wrong(label, f"1, because the mask {mask.name} has a {label} finding")
    return tuple(Outline(label=label, shape=MaskFile(path=mask, values=(MASK_VALUES[label],))) for label in found)


def _refuse_masks(masks: Path, images: Sequence[LabelledImage]) -> None:
    """Raises UsageError unless at least one image has a mask, which may be empty."""
    if not masks.is_dir():
        raise UsageError(f"{masks}: {'is not a folder' if masks.exists() else 'does not exist'}; check --masks")
    if not any(_find_mask(masks, image.name, image.path) for image in images):
        stem = images[0].path.stem
        raise UsageError(
            f"{masks}: no mask is named like an image, such as {stem}{MASK_ENDING}.png or {stem}.png; check --masks"
        )
