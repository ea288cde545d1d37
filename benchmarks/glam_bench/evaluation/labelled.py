"""Labelled images: records that every reader of a labelled set makes, and masks from outlines.

Frames as in `glam_deploy.records`: the source frame is the pixel grid of the image as read.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import InputError
from glam_deploy.images import image_files
from glam_deploy.json_records import to_json
from glam_deploy.reading import read
from glam_deploy.records import Mammogram, Pixels, View
from glam_deploy.unchanged import file_sha256, unchanged

Mask = NDArray[np.bool_]
"""bool [rows, columns], source frame."""


@dataclass(frozen=True, kw_only=True)
class Rectangle:
    """A box around a finding, source frame, pixels; half-open: `bottom` and `right` are the first ones outside."""

    top: float
    left: float
    bottom: float
    right: float


@dataclass(frozen=True, kw_only=True)
class Polygon:
    """A closed outline of a finding: (row, column) of its corners, source frame, pixels."""

    corners: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class MaskFile:
    """A PNG, TIFF, npy or DICOM file of the shape of the mammogram.

    A finding is where its values are in `values`, or not 0.
    """

    path: Path
    values: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A finding with its place."""

    label: str
    """Class of the network that it belongs to, such as "malignant"."""
    shape: Rectangle | Polygon | MaskFile


@dataclass(frozen=True, kw_only=True)
class LabelledImage:
    """One image of a labelled set."""

    name: str
    """Unique within its set; the path relative to the set's folder, with "/"."""
    path: Path
    view: View | None
    """None: the file says it."""
    exam: str
    """Identifier of the exam, unique within the set: images with the same one are of one woman at one time."""
    labels: Mapping[str, bool | None]
    """Class -> whether it has the class; None where the set does not say."""
    outlines: tuple[Outline, ...] = ()
    film: bool = False
    """Whether the file is the scan of a film: a DICOM object of another class, whose header states no view."""

    @property
    def breast(self) -> str | None:
        """Identifier of the breast, unique within the set; None if the view is unknown."""
        return None if self.view is None else f"{self.exam}/{self.view.value[0]}"


@dataclass(frozen=True, kw_only=True)
class LabelledSet:
    """Images with their labels."""

    name: str
    level: Literal["image", "breast"]
    """What the labels are of: a finding in this image, or in any image of the breast."""
    images: tuple[LabelledImage, ...]
    remarks: tuple[str, ...] = ()
    """What was left out and which rule made the labels, sentences for the reader of an evaluation."""


def read_labelled(image: LabelledImage) -> Mammogram:
    """Read the mammogram of a labelled set: as `glam_deploy.read`, but also the scan of a film. Raises as it.

    The name of its source is `image.name`, because many sets name their files 1-1.dcm.
    """
    if image.film and image.view is not None:
        from glam_deploy.dicom.read import read_film

        mammogram = read_film(image.path, image.view)
    else:
        mammogram = read(image.path, view=image.view)
    return replace(mammogram, source=replace(mammogram.source, name=image.name))


def masks_of(image: LabelledImage, shape: tuple[int, int]) -> dict[str, Mask]:
    """Class -> union of its outlines, for the classes that have one; as `drawn`."""
    return drawn(image, shape)[0]


def drawn(image: LabelledImage, shape: tuple[int, int]) -> tuple[dict[str, Mask], int]:
    """Class -> union of its outlines, for the classes that have one; and the number of outlines without a pixel.

    `shape`: rows and columns of the image as read. Raises InputError for a mask file that cannot be read or has
    another shape.
    """
    found: dict[str, NDArray[np.uint8]] = {}
    empty = 0
    for outline in image.outlines:
        if outline.label not in found:
            found[outline.label] = np.zeros(shape, np.uint8)
        empty += not _draw(outline.shape, found[outline.label])
    return {label: canvas.astype(np.bool_) for label, canvas in found.items()}, empty


def digest(image: LabelledImage) -> str:
    """SHA-256 of what the results of an image depend on: its file, view and outlines. Raises InputError."""
    return _digest(image, [file_sha256(path) for path in _files(image)])


@contextmanager
def identified(image: LabelledImage) -> Iterator[str]:
    """Context in which an image and its masks are read, with its `digest`.

    Raises InputError, also at the end if a file has another content than at the beginning.
    """
    with ExitStack() as stack:
        yield _digest(image, [stack.enter_context(unchanged(path)) for path in _files(image)])


def _files(image: LabelledImage) -> list[Path]:
    return [image.path, *(one.shape.path for one in image.outlines if isinstance(one.shape, MaskFile))]


def _digest(image: LabelledImage, hashes: Sequence[str]) -> str:
    facts = [hashes, image.view, [to_json(one) for one in image.outlines]]
    return sha256(json.dumps(facts, default=_name).encode()).hexdigest()


def _name(path: object) -> str:
    return Path(str(path)).name


def _draw(area: Rectangle | Polygon | MaskFile, canvas: NDArray[np.uint8]) -> bool:
    """Set the pixels of `canvas` in the area to 1; whether it has any."""
    if isinstance(area, MaskFile):
        mask = _from_file(area, canvas.shape)
        canvas |= mask
        return bool(mask.any())
    if isinstance(area, Rectangle):
        rows = slice(max(0, round(area.top)), max(0, round(area.bottom)))
        inside = canvas[rows, max(0, round(area.left)) : max(0, round(area.right))]
        inside[...] = 1
        return inside.size > 0
    corners = np.array([[round(column), round(row)] for row, column in area.corners], np.int32)
    cv2.fillPoly(canvas, [corners], 1)
    last = np.array(canvas.shape[::-1]) - 1
    return bool(((corners.max(axis=0) >= 0) & (corners.min(axis=0) <= last)).all())


def _from_file(area: MaskFile, shape: tuple[int, ...]) -> Mask:
    try:
        values = _mask_values(area.path)
    except InputError as error:
        raise InputError(f"the mask {area.path.name} cannot be used: {error}", *error.remedies) from error
    if values.shape != shape:
        raise InputError(
            f"the mask {area.path.name} is {list(values.shape)}, expected a grey image of the mammogram's {list(shape)}"
        )
    return values != 0 if area.values is None else np.isin(values, area.values)


def _mask_values(path: Path) -> Pixels:
    if path.suffix.lower() in image_files.SUFFIXES:
        return image_files.read_pixels(path)[0]
    from glam_deploy.dicom.read import read_grey

    return read_grey(path)
