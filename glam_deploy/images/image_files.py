"""PNG, TIFF and npy files -> Mammogram. Grey values only, never guessed: what would have to be converted is refused."""

import os
import tokenize
import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from glam_deploy import signatures
from glam_deploy.errors import InputError, disk_reason
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
"""The kinds of files that are read here."""
SUFFIXES: dict[str, Kind] = {".png": "png", ".tif": "tiff", ".tiff": "tiff", ".npy": "npy"}

MAX_BYTES = 8 * MAX_PIXELS
"""Largest file that is read: a npy of so many float64."""

# a npy header is a Python literal, and numpy lets what its parser raises through
_NPY_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, EOFError, OSError, SyntaxError, RecursionError,
               MemoryError, tokenize.TokenError)  # fmt: skip


def read_image(path: Path, *, view: View, horizontal_flip: bool = False) -> Mammogram:
    """The mammogram in a PNG, TIFF or npy file.

    Pixels come as stored, [rows, columns], source frame: uint8, uint16, or float32 (from float TIFF and float32 or
    float64 npy, not yet known to be finite and >= 0: `preprocess.prepare` refuses the rest). `horizontal_flip` says
    that the image is stored mirrored. Raises InputError on anything but one grey image whose brighter values are
    denser.
    """
    pixels, kind, notices = read_pixels(path)
    source = Source(name=path.name, kind=kind)
    return Mammogram(pixels=pixels, view=view, horizontal_flip=horizontal_flip, source=source, notices=notices)


def read_pixels(path: Path) -> tuple[Pixels, Kind, tuple[Notice, ...]]:
    """The pixels in a PNG, TIFF or npy file as `read_image` gives them, what it is, and what was noticed."""
    content = _content(path)
    kind = image_kind(path, content)
    pixels, notices = _npy_pixels(content) if kind == "npy" else _picture(content, kind)
    return pixels, kind, notices


def read_array(path: Path) -> Pixels:
    """The array in a npy file, as stored: bool, integer or float, any shape. Raises InputError."""
    content = _content(path)
    if image_kind(path, content) != "npy":
        raise InputError("the file is no npy file, expected an array written by numpy.save: convert it")
    return _npy(content)


def refuse_standardized(path: Path) -> None:
    """Raises InputError where a npy file holds an input that is standardized already, and InputError as a reader does.

    To be asked before its view is: such an input needs none.
    """
    content = _content(path)
    if image_kind(path, content) == "npy":
        check_raw(_npy_pixels(content)[0])


def image_kind(path: Path, head: bytes) -> Kind:
    """What the first bytes of the file (`head`, 8 or more) say it is. Raises InputError where its suffix disagrees."""
    found = signatures.kind_of(head[: signatures.HEAD])
    kind = READ.get(found) if found else None
    if kind is None:
        if known := foreign.kind_of(head[: foreign.HEAD]):
            raise InputError(f"the file is {known.name}: {known.remedy}")
        raise InputError(
            f"the content is no DICOM, PNG, TIFF or npy (it starts with {head[:4].hex()}), nor another kind of file "
            f"that is known here: {REMEDY}"
        )
    claimed = SUFFIXES.get(path.suffix.lower(), kind)
    if claimed != kind:
        raise InputError(f"the content is {kind}, the suffix {path.suffix} says {claimed}: rename or export again")
    return kind


def _content(path: Path) -> bytes:
    """The bytes of a file, no more than an image may have; a sparse file may claim any number."""
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1) if os.fstat(file.fileno()).st_size <= MAX_BYTES else None
    except OSError as error:
        raise InputError(f"the file cannot be read ({disk_reason(error)}): check its path and rights") from error
    if content is None or len(content) > MAX_BYTES:
        raise InputError(f"the file has more than {MAX_BYTES} bytes, too many for one mammogram: {REMEDY}")
    return content


def _picture(content: bytes, kind: Kind) -> tuple[Pixels, tuple[Notice, ...]]:
    if kind == "png":
        content, shape = sound_png(content)
        decoded, notices = _decoded(content, kind), tuple[Notice, ...]()
        if decoded.shape[:2] != shape:
            raise InputError(f"the png states {list(shape)}, the decoder gave {list(decoded.shape)}: {REMEDY}")
    else:
        sound = sound_tiff(content)
        decoded = sound.pixels(_decoded(sound.content, kind))
        told = f"the pixels were compressed with loss ({sound.lossy})"
        notices = (Notice(code="lossy", message=told),) if sound.lossy else ()
    opaque, more = _without_alpha(decoded)
    grey, channels = _one_channel(opaque)
    return grey, (*notices, *more, *channels)


def _decoded(content: bytes, kind: Kind) -> Pixels:
    """A decoder that warns may have made up pixels, so its warnings count as errors."""
    found = codec.decode(content)
    if found.pixels is None or found.messages:
        why = "; ".join(found.messages) or "the decoder gives no image"
        raise InputError(f"the {kind} is damaged or incomplete: {why}. Expected a whole one: {REMEDY}")
    return found.pixels


def _without_alpha(image: Pixels) -> tuple[Pixels, tuple[Notice, ...]]:
    if image.ndim != 3 or image.shape[2] not in (2, 4):
        return image, ()
    if (image[..., -1] != np.iinfo(image.dtype).max).any():
        raise InputError(f"the image has transparent pixels, expected none: {REMEDY}")
    rest = image[..., 0] if image.shape[2] == 2 else image[..., :-1]
    return np.ascontiguousarray(rest), (
        Notice(code="alpha-dropped", message="a fully opaque alpha channel was left out"),
    )


def _one_channel(image: Pixels) -> tuple[Pixels, tuple[Notice, ...]]:
    if image.ndim == 2:
        return image, ()
    if (image != image[..., :1]).any():
        raise InputError(f"the image is in colour, expected grey (is an annotation burned in?): {REMEDY}")
    told = f"{image.shape[2]} identical channels were read as one"
    return np.ascontiguousarray(image[..., 0]), (Notice(code="rgb-grey", message=told),)


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
    """The array in a npy file, without a copy, read-only."""
    try:
        stream = BytesIO(content)
        shape, dtype, order = _npy_header(stream)
        if dtype.hasobject or dtype.kind not in "biuf":
            raise InputError(f"the npy holds {dtype} (Python objects, text or records), expected numbers: convert it")
        # numpy would reserve the memory for any shape that a damaged header claims
        if int(np.prod(shape, dtype=object)) * dtype.itemsize != len(content) - stream.tell():
            raise InputError(f"the npy does not hold what its header says, {dtype} {list(shape[:6])}: write it again")
        return np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape, order=order)
    except _NPY_ERRORS as error:
        raise InputError(
            "the npy is damaged or incomplete (its header is none that numpy writes): write it again"
        ) from error


def _npy_header(stream: BytesIO) -> tuple[tuple[int, ...], np.dtype[Any], Literal["C", "F"]]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0), (3, 0)):
        told = ".".join(map(str, version))
        raise InputError(f"the npy is of format version {told}, expected 1.0, 2.0 or 3.0: write it with numpy.save")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings(action="ignore"):  # numpy advises to write a header of Python 2 anew
        shape, fortran, dtype = read(stream)
    return shape, dtype, "F" if fortran else "C"
