"""PNG, TIFF and npy files -> Mammogram. Only grey images are read; images that need a conversion are refused."""

import os
import tokenize
import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from glam_deploy import signatures
from glam_deploy.errors import InputError, unreadable
from glam_deploy.images import codec, foreign
from glam_deploy.images.structure import REMEDY, check_size, sound_png
from glam_deploy.images.tiff import sound_tiff
from glam_deploy.preprocess.prepare import check_raw
from glam_deploy.records import MAX_PIXELS, Mammogram, Notice, Pixels, Source, View
from glam_deploy.regular import open_regular

Kind = Literal["png", "tiff", "npy"]

READ: Mapping[signatures.Kind, Kind] = MappingProxyType(
    {signatures.Kind.PNG: "png", signatures.Kind.TIFF: "tiff", signatures.Kind.NPY: "npy"}
)
"""The file formats that are read here."""
SUFFIXES: dict[str, Kind] = {".png": "png", ".tif": "tiff", ".tiff": "tiff", ".npy": "npy"}

MASK_ENDING = "_mask"
MASK_VALUES: Mapping[str, int] = MappingProxyType({"benign": 100, "malignant": 200})
"""Class -> grey value in the mask of an image; 0 is background."""

MAX_BYTES = 8 * MAX_PIXELS
"""Largest file in bytes: `MAX_PIXELS` float64 values."""

# a npy header is a Python literal, and numpy does not catch the exceptions of its parser
_NO_NUMBERS = {
    "c": "complex numbers", "O": "Python objects", "S": "text", "U": "text", "T": "text", "m": "times", "M": "times",
}  # fmt: skip
"""Kind of a numpy type that is not read -> what its values are; others are records."""
_NPY_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, EOFError, OSError, SyntaxError, RecursionError,
               MemoryError, tokenize.TokenError)  # fmt: skip


def read_image(path: Path, *, view: View, horizontal_flip: bool = False) -> Mammogram:
    """Read the mammogram in a PNG, TIFF or npy file.

    Pixels are as stored, [rows, columns], source frame: uint8, uint16, or float32 (from float TIFF and float32 or
    float64 npy; `preprocess.prepare` refuses values that are not finite or below 0). `horizontal_flip`: the image is
    stored mirrored. Raises InputError unless the file holds one grey image with brighter values for denser tissue.
    """
    pixels, kind, notices = read_pixels(path)
    source = Source(name=path.name, kind=kind)
    return Mammogram(pixels=pixels, view=view, horizontal_flip=horizontal_flip, source=source, notices=notices)


def read_pixels(path: Path) -> tuple[Pixels, Kind, tuple[Notice, ...]]:
    """Pixels (see `read_image`), format and notices of a PNG, TIFF or npy file. Raises InputError."""
    content = _content(path)
    kind = image_kind(path, content)
    pixels, notices = _npy_pixels(content) if kind == "npy" else _picture(content, kind)
    return pixels, kind, notices


def read_array(path: Path) -> Pixels:
    """The array in a npy file, as stored: bool, integer or float, any shape. Raises InputError."""
    content = _content(path)
    if image_kind(path, content) != "npy":
        raise InputError("the file is not a npy file, expected an array written by numpy.save: convert it")
    return _npy(content)


def refuse_standardized(path: Path) -> None:
    """Raise InputError if a npy file holds an already standardized input, or if the file cannot be read.

    Call it before the view is required, because a standardized input needs no view.
    """
    content = _content(path)
    if image_kind(path, content) == "npy":
        check_raw(_npy_pixels(content)[0])


def find_mask(folder: Path, image: Path) -> Path | None:
    """The mask of an image: the PNG <stem>_mask.png in `folder`, else <stem>.png; None if there is none.

    An image is never its own mask, so that images and masks may be in one folder.
    """
    paths = (folder / f"{image.stem}{ending}.png" for ending in (MASK_ENDING, ""))
    return next((path for path in paths if path.is_file() and not path.samefile(image)), None)


def read_mask(path: Path, shape: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
    """Read a mask in the source frame: uint8 [rows, columns] with 0 and MASK_VALUES.

    `shape`: shape of the image; None accepts any. Raises InputError for other shapes and values, and for files that
    `read_pixels` rejects.
    """
    try:
        mask, _, _ = read_pixels(path)
    except InputError as error:
        raise InputError(f"the mask {path.name} cannot be used: {error}", *error.remedies) from error
    if shape is not None and mask.shape != tuple(shape):
        raise InputError(
            f"the mask {path.name} is {list(mask.shape)}, expected a grey PNG of the image's {list(shape)}"
        )
    if strange := sorted(set(np.unique(mask).tolist()) - {0, *MASK_VALUES.values()}):
        raise InputError(f"the mask {path.name} has values {strange[:5]}, expected 0, 100 (benign), 200 (malignant)")
    return np.asarray(mask, np.uint8)


def image_kind(path: Path, head: bytes) -> Kind:
    """Format of the file by its first bytes (`head`, 8 or more).

    Raises InputError if the format is not read here, or contradicts the suffix.
    """
    found = signatures.kind_of(head[: signatures.HEAD])
    kind = READ.get(found) if found else None
    if kind is None:
        if known := foreign.kind_of(head[: foreign.HEAD]):
            raise InputError(f"the file is {known.name}: {known.remedy}")
        raise InputError(
            f"the format of the content is unknown (it starts with {head[:4].hex()}), expected DICOM, PNG, TIFF or "
            f"npy: {REMEDY}"
        )
    named = SUFFIXES.get(path.suffix.lower(), kind)
    if named != kind:
        raise InputError(f"the content is {kind}, but the suffix {path.suffix} means {named}: rename or export again")
    return kind


def _content(path: Path) -> bytes:
    """The bytes of a file. Raises InputError for more than MAX_BYTES, before reading; a sparse file has any size."""
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1) if os.fstat(file.fileno()).st_size <= MAX_BYTES else None
    except OSError as error:
        raise InputError(f"the file cannot be read {unreadable(error)}") from error
    if content is None or len(content) > MAX_BYTES:
        raise InputError(f"the file has more than {MAX_BYTES} bytes, too many for one mammogram: {REMEDY}")
    return content


def _picture(content: bytes, kind: Kind) -> tuple[Pixels, tuple[Notice, ...]]:
    if kind == "png":
        content, (rows, columns, samples) = sound_png(content)
        decoded, notices = _decoded(content, kind), tuple[Notice, ...]()
        if decoded.shape[:2] != (rows, columns):
            raise InputError(f"the png states {[rows, columns]}, the decoder returned {list(decoded.shape)}: {REMEDY}")
        if samples == 2 and decoded.shape[2:] == (4,):  # OpenCV writes the grey sample three times
            decoded = decoded[..., 2:]
    else:
        sound = sound_tiff(content)
        decoded = sound.pixels(_decoded(sound.content, kind))
        message = f"the pixels were compressed with loss ({sound.lossy})"
        notices = (Notice(code="lossy", message=message),) if sound.lossy else ()
    opaque, alpha_notices = _without_alpha(decoded)
    grey, channel_notices = _one_channel(opaque)
    return grey, (*notices, *alpha_notices, *channel_notices)


def _decoded(content: bytes, kind: Kind) -> Pixels:
    """Decode a PNG or TIFF. Raises InputError, also for a warning, after which pixels may be invented."""
    found = codec.decode(content)
    if found.pixels is None or found.messages:
        reason = "; ".join(found.messages) or "the decoder returned no image"
        raise InputError(f"the {kind} is damaged or incomplete ({reason}): {REMEDY}")
    return found.pixels


def _without_alpha(image: Pixels) -> tuple[Pixels, tuple[Notice, ...]]:
    if image.ndim != 3 or image.shape[2] not in (2, 4):
        return image, ()
    if (image[..., -1] != np.iinfo(image.dtype).max).any():
        raise InputError(f"the image has transparent pixels, expected none: {REMEDY}")
    rest = image[..., 0] if image.shape[2] == 2 else image[..., :-1]
    return np.ascontiguousarray(rest), (
        Notice(code="alpha-dropped", message="a fully opaque alpha channel was removed"),
    )


def _one_channel(image: Pixels) -> tuple[Pixels, tuple[Notice, ...]]:
    if image.ndim == 2:
        return image, ()
    if (image != image[..., :1]).any():
        raise InputError(f"the image is in colour, expected grey (is an annotation burned in?): {REMEDY}")
    message = f"{image.shape[2]} identical channels were read as one"
    return np.ascontiguousarray(image[..., 0]), (Notice(code="rgb-grey", message=message),)


def _npy_pixels(content: bytes) -> tuple[Pixels, tuple[Notice, ...]]:
    array = _npy(content)
    if array.ndim != 2 or array.dtype.newbyteorder("=") not in (np.uint8, np.uint16, np.float32, np.float64):
        raise InputError(
            f"the array is {array.dtype} {list(array.shape)}, expected uint8, uint16, float32 or float64 "
            "[rows, columns]: convert it"
        )
    check_size(*array.shape)
    native = np.float32 if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, native), ()


def _npy(content: bytes) -> Pixels:
    """The array in a npy file, without a copy, read-only. Raises InputError."""
    try:
        stream = BytesIO(content)
        shape, dtype, order = _npy_header(stream)
        if dtype.hasobject or dtype.kind not in "biuf":
            raise InputError(
                f"the npy holds {dtype} ({_NO_NUMBERS.get(dtype.kind, 'records')}), expected real numbers: convert it"
            )
        # numpy would allocate memory for any shape that a damaged header states
        length = len(content) - stream.tell()
        if int(np.prod(shape, dtype=object)) * dtype.itemsize != length:
            raise InputError(
                f"the npy has {length} bytes after its header, which states {dtype} {list(shape[:6])}: write it again"
            )
        return np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape, order=order)
    except _NPY_ERRORS as error:
        raise InputError("the npy is damaged or incomplete (its header is invalid): write it again") from error


def _npy_header(stream: BytesIO) -> tuple[tuple[int, ...], np.dtype[Any], Literal["C", "F"]]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0), (3, 0)):
        number = ".".join(map(str, version))
        raise InputError(f"the npy has format version {number}, expected 1.0, 2.0 or 3.0: write it with numpy.save")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings(action="ignore"):  # numpy warns of headers written by Python 2
        shape, fortran, dtype = read(stream)
    return shape, dtype, "F" if fortran else "C"
