"""PNG, TIFF and npy files -> Mammogram. Grey values only, never guessed: what would have to be converted is refused."""

import re
import struct
import tokenize
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np

from glam_deploy.errors import InputError
from glam_deploy.records import MAX_PIXELS, Mammogram, Notice, Pixels, Source, View

Kind = Literal["png", "tiff", "npy"]

MAGICS: dict[bytes, Kind] = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"\x93NUMPY": "npy",
}
SUFFIXES: dict[str, Kind] = {".png": "png", ".tif": "tiff", ".tiff": "tiff", ".npy": "npy"}

# a npy header is a Python literal, and numpy lets what its parser raises through
_NPY_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, EOFError, OSError, SyntaxError, RecursionError,
               MemoryError, tokenize.TokenError)  # fmt: skip

_REMEDY = "export the original mammogram as 16-bit grey PNG or TIFF"


def read_image(path: Path, *, view: View, horizontal_flip: bool = False) -> Mammogram:
    """The mammogram in a PNG, TIFF or npy file.

    Pixels come as stored, [rows, columns], source frame: uint8, uint16, or float32 (from float TIFF and float32 or
    float64 npy, not yet known to be finite and >= 0: `preprocess.prepare` refuses the rest). `horizontal_flip` says
    that the image is stored mirrored. Raises InputError on anything but one grey image whose brighter values are
    denser.
    """
    content = _content(path)
    kind = image_kind(path, content)
    pixels, notices = _npy_pixels(content) if kind == "npy" else _picture(content, kind)
    source = Source(name=path.name, kind=kind)
    return Mammogram(pixels=pixels, view=view, horizontal_flip=horizontal_flip, source=source, notices=notices)


def read_array(path: Path) -> Pixels:
    """The array in a npy file, as stored: bool, integer or float, any shape. Raises InputError."""
    content = _content(path)
    if image_kind(path, content) != "npy":
        raise InputError("the file is no npy file, expected an array written by numpy.save: convert it")
    return _npy(content)


def image_kind(path: Path, head: bytes) -> Kind:
    """What the first bytes of the file (`head`, 8 or more) say it is. Raises InputError where its suffix disagrees."""
    kind = next((kind for magic, kind in MAGICS.items() if head.startswith(magic)), None)
    if kind is None:
        start = head[:4].hex() or "nothing"
        raise InputError(f"the content is no DICOM, PNG, TIFF or npy (it starts with {start}): {_REMEDY}")
    claimed = SUFFIXES.get(path.suffix.lower(), kind)
    if claimed != kind:
        raise InputError(f"the content is {kind}, the suffix {path.suffix} says {claimed}: rename or export again")
    return kind


def view_from_name(path: Path) -> View | None:
    """The view that the file name tells by a token such as L-CC, L_CC or LCC; None where there is no token.

    Raises InputError where tokens name different views.
    """
    tokens = re.findall(r"(?<![A-Z0-9])([LR])[-_ ]?(CC|MLO)(?![A-Z0-9])", path.stem.upper())
    found = sorted({View(f"{side}-{projection}") for side, projection in tokens})
    if len(found) > 1:
        raise InputError(f"the file name tells different views ({', '.join(found)}): name one with --view")
    return found[0] if found else None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"the file cannot be read ({type(error).__name__}): check its path and rights") from error


def _picture(content: bytes, kind: Kind) -> tuple[Pixels, tuple[Notice, ...]]:
    (_check_png if kind == "png" else _check_tiff)(content)
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise InputError(f"the {kind} cannot be decoded: {_REMEDY}") from error
    if decoded is None:
        raise InputError(f"the {kind} is damaged or incomplete: {_REMEDY}")
    opaque, notices = _without_alpha(decoded)
    grey, more = _one_channel(opaque)
    return grey, (*notices, *more)


def _without_alpha(image: Pixels) -> tuple[Pixels, tuple[Notice, ...]]:
    if image.ndim != 3 or image.shape[2] not in (2, 4):
        return image, ()
    if (image[..., -1] != np.iinfo(image.dtype).max).any():
        raise InputError(f"the image has transparent pixels, expected none: {_REMEDY}")
    return image[..., :-1], (Notice(code="alpha-dropped", message="a fully opaque alpha channel was left out"),)


def _one_channel(image: Pixels) -> tuple[Pixels, tuple[Notice, ...]]:
    if image.ndim == 2:
        return image, ()
    if (image != image[..., :1]).any():
        raise InputError(f"the image is in colour, expected grey (is an annotation burned in?): {_REMEDY}")
    told = f"{image.shape[2]} identical channels were read as one"
    return np.ascontiguousarray(image[..., 0]), (Notice(code="rgb-grey", message=told),)


def _check_png(content: bytes) -> None:
    """OpenCV would widen 1, 2 and 4 bits, look colours up and pass over tRNS without a word (PNG, 11.2.1, 11.3.1)."""
    if len(content) < 26:
        raise InputError(f"the png is incomplete ({len(content)} bytes): {_REMEDY}")
    columns, rows, bits, colour = struct.unpack(">IIBB", content[16:26])
    _check_size(rows, columns)
    if bits not in (8, 16) or colour == 3:
        told = "indexes of a palette" if colour == 3 else f"{bits} bits deep"
        raise InputError(f"the png's pixels are {told}, expected 8- or 16-bit grey: {_REMEDY}")
    if b"tRNS" in _png_chunks(content):
        raise InputError(f"the png declares a transparent colour (tRNS), expected no transparency: {_REMEDY}")


def _png_chunks(content: bytes) -> list[bytes]:
    """The types of the chunks, as far as the file is whole (PNG, 5.3)."""
    types, at = [], 8
    while at + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        types.append(name)
        at += 12 + length
    return types


def _check_tiff(content: bytes) -> None:
    """Tags that OpenCV would act on, or pass over, without a word (TIFF 6.0, section 8)."""
    tags, pages = _tiff_tags(content)
    _check_size(tags.get(257, 0), tags.get(256, 0))
    depth = tags.get(258, 1), tags.get(339, 1)
    if pages > 1:
        raise InputError(f"the tiff has several pages, expected one: {_REMEDY}")
    if tags.get(262) not in (1, 2):
        raise InputError(f"the tiff's PhotometricInterpretation is {tags.get(262)}, expected 1 (0 is black): {_REMEDY}")
    if tags.get(274, 1) != 1:
        raise InputError(f"the tiff's Orientation is {tags[274]}, expected 1 (first row on top): {_REMEDY}")
    if depth not in ((8, 1), (16, 1), (32, 3)):
        raise InputError(
            f"the tiff has {depth[0]} bits of sample format {depth[1]}, expected 8 or 16 of format 1 (unsigned) or 32 "
            f"of 3 (float): {_REMEDY}"
        )


def _tiff_tags(content: bytes) -> tuple[dict[int, int], int]:
    """Tag -> first value (short and long integers only) of the first page, and 2 where another page follows, else 1."""
    order = "<" if content[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", content, 4)
        (count,) = struct.unpack_from(order + "H", content, start)
        tags = dict(_tiff_entry(content, order, start + 2 + 12 * i) for i in range(count))
        (following,) = struct.unpack_from(order + "I", content, start + 2 + 12 * count)
    except struct.error as error:
        raise InputError(f"the tiff is damaged or incomplete: {_REMEDY}") from error
    return tags, 2 if following else 1


def _tiff_entry(content: bytes, order: str, at: int) -> tuple[int, int]:
    tag, kind, count, far = struct.unpack_from(order + "HHII", content, at)
    letter = {3: "H", 4: "I"}.get(kind)
    if letter is None:
        return tag, -1
    # values that do not fit in four bytes stand elsewhere
    place = at + 8 if count * struct.calcsize(letter) <= 4 else far
    return tag, struct.unpack_from(order + letter, content, place)[0]


def _check_size(rows: int, columns: int) -> None:
    if not 0 < rows * columns <= MAX_PIXELS:
        raise InputError(f"the image has {rows} x {columns} pixels, expected 1 to {MAX_PIXELS}: {_REMEDY}")


def _npy_pixels(content: bytes) -> tuple[Pixels, tuple[Notice, ...]]:
    array = _npy(content)
    if array.ndim != 2 or array.dtype.newbyteorder("=") not in (np.uint8, np.uint16, np.float32, np.float64):
        raise InputError(
            f"the array is {array.dtype} {list(array.shape)}, expected uint8, uint16, float32 or float64 "
            "[rows, columns]: convert it"
        )
    _check_size(*array.shape)
    native = np.float32 if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, native), ()


def _npy(content: bytes) -> Pixels:
    try:
        stream = BytesIO(content)
        shape, dtype = _npy_header(stream)
        if dtype.hasobject or dtype.kind not in "biuf":
            raise InputError(f"the npy holds {dtype} (Python objects, text or records), expected numbers: convert it")
        # numpy would reserve the memory for any shape that a damaged header claims
        if int(np.prod(shape, dtype=object)) * dtype.itemsize != len(content) - stream.tell():
            raise InputError(f"the npy does not hold what its header says, {dtype} {list(shape)}: write it again")
        return cast(Pixels, np.load(BytesIO(content), allow_pickle=False))
    except _NPY_ERRORS as error:
        raise InputError(f"the npy is damaged or incomplete ({type(error).__name__}): write it again") from error


def _npy_header(stream: BytesIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype
