"""Decoding, and the way from stored values to brighter-is-denser on a background of 0."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from types import MappingProxyType

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments, parse_basic_offsets
from pydicom.pixels.utils import pixel_array

from glam_deploy.dicom import jpeg2000, jpeg_lossless, jpeg_ls, rle
from glam_deploy.dicom.header import Header, foreign_errors
from glam_deploy.dicom.segments import StreamError
from glam_deploy.errors import BackendUnavailable, DicomError
from glam_deploy.installation import install_command
from glam_deploy.records import Notice, Pixels

UNCOMPRESSED = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """An encapsulated frame, and what the DICOM header says of it."""

    stream: bytes
    shape: tuple[int, int]
    bits_allocated: int
    syntax: uid.UID


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """Pixels as a network wants them, and what a reader must know about how they were stored."""

    pixels: Pixels
    """uint8 (up to 8 bits stored) or uint16 [rows, columns], brighter is denser, padding 0, source frame."""
    notices: tuple[Notice, ...]


_Decoded = tuple[Pixels, tuple[Notice, ...]]


def _jpeg_lossless(frame: _Frame) -> _Decoded:
    return jpeg_lossless.decode(frame.stream, frame.shape), ()


def _jpeg_ls(frame: _Frame) -> _Decoded:
    return jpeg_ls.decode(frame.stream, frame.shape), ()


def _jpeg_2000(frame: _Frame) -> _Decoded:
    found = jpeg2000.decode(frame.stream, frame.shape, lossless=frame.syntax not in (uid.JPEG2000, uid.HTJ2K))
    told = "the frame holds a JP2 file, expected a bare JPEG 2000 codestream (PS3.5 A.4.4): its codestream was read"
    return found.pixels, (Notice(code="jp2-file", message=told),) if found.in_file else ()


def _rle(frame: _Frame) -> _Decoded:
    return rle.decode(frame.stream, frame.shape, frame.bits_allocated), ()


_DECODERS: Mapping[uid.UID, Callable[[_Frame], _Decoded]] = MappingProxyType(
    {
        uid.RLELossless: _rle,
        uid.JPEGLossless: _jpeg_lossless,
        uid.JPEGLosslessSV1: _jpeg_lossless,
        uid.JPEGLSLossless: _jpeg_ls,
        uid.JPEGLSNearLossless: _jpeg_ls,
        uid.JPEG2000Lossless: _jpeg_2000,
        uid.JPEG2000: _jpeg_2000,
        uid.HTJ2KLossless: _jpeg_2000,
        uid.HTJ2KLosslessRPCL: _jpeg_2000,
        uid.HTJ2K: _jpeg_2000,
    }
)
"""Transfer syntax -> the one decoder in use, so that two machines decode alike."""


def read_pixels(dataset: Dataset, header: Header) -> StoredImage:
    """The image of a data set.

    MONOCHROME1 is inverted within BitsStored, then PixelPaddingValue (and the range to PixelPaddingRangeLimit) becomes
    0 (PS3.3 C.7.5.1.1.2). No VOI LUT is applied. Raises DicomError where the pixels cannot be decoded without doubt,
    BackendUnavailable where the package that decodes them is not installed.
    """
    stored, notices = _decode(dataset, header)
    if stored.ndim != 2 or stored.size == 0:
        raise DicomError(f"the pixels have shape {stored.shape}, expected one image [rows, columns]: export it again")
    if stored.min() < 0:
        raise DicomError(f"the smallest pixel is {stored.min()}, expected none below 0: mammograms are unsigned")
    top = (1 << (header.bits_stored or 0)) - 1
    if stored.max() > top:
        raise DicomError(f"the largest pixel is {stored.max()}, expected up to {top} (BitsStored): export it again")
    pixels = _brighter_is_denser(stored, header, top).astype(np.uint8 if top < 256 else np.uint16, copy=False)
    return StoredImage(pixels=pixels, notices=notices)


def _brighter_is_denser(stored: Pixels, header: Header, top: int) -> Pixels:
    pixels = top - stored if header.photometric == "MONOCHROME1" else stored.copy()
    if header.padding is not None:
        ends = sorted((header.padding, header.padding if header.padding_limit is None else header.padding_limit))
        pixels[(stored >= ends[0]) & (stored <= ends[1])] = 0
    return pixels


def _decode(dataset: Dataset, header: Header) -> _Decoded:
    """Pixels as stored, integers of any sign [rows, columns]."""
    if "PixelData" not in dataset:
        raise DicomError("PixelData is missing: export the object again, with its pixels")
    decoder = None if header.transfer_syntax in UNCOMPRESSED else _decoder(header.transfer_syntax)
    damaged = f"pixel data ({header.transfer_syntax.name}) is damaged or incomplete"
    with foreign_errors(f"{damaged}: export it again"):
        try:
            if decoder is None:
                return _uncompressed(dataset, header)
            return _encapsulated(dataset, header, decoder)
        except StreamError as error:
            raise DicomError(f"{damaged}: {error}. Export the object again from its archive") from None


def _uncompressed(dataset: Dataset, header: Header) -> _Decoded:
    expected = dataset.Rows * dataset.Columns * (header.bits_allocated or 0) // 8
    found = len(dataset.PixelData)
    # an odd number of bytes is padded by one (PS3.5 8.1.1)
    if found not in (expected, expected + expected % 2):
        raise StreamError(
            f"it has {found} bytes, expected {expected} for {dataset.Rows} rows and {dataset.Columns} columns"
        )
    if header.signed:
        return np.asarray(pixel_array(dataset, raw=True)), ()
    return _without_bits_above(np.asarray(pixel_array(dataset, raw=True, correct_unused_bits=False)), header)


def _encapsulated(dataset: Dataset, header: Header, decode: Callable[[_Frame], _Decoded]) -> _Decoded:
    shape = dataset.Rows, dataset.Columns
    frame = _Frame(
        stream=_stream(dataset.PixelData),
        shape=shape,
        bits_allocated=header.bits_allocated or 0,
        syntax=header.transfer_syntax,
    )
    pixels, notices = decode(frame)
    if decode is _jpeg_2000:
        return pixels, (*notices, *_sign_notices(pixels.dtype.kind == "i", bool(header.signed)))
    # of the other streams the header alone says whether they are signed; RLE keeps bits above BitsStored
    if header.signed:
        return _lowest_bits(pixels, header.bits_stored or 0), notices
    return _without_bits_above(pixels, header) if header.transfer_syntax == uid.RLELossless else (pixels, notices)


def _sign_notices(stream_signed: bool, header_signed: bool) -> tuple[Notice, ...]:
    """The stream decides (as pydicom and GDCM have it), and negative pixels are refused later."""
    names = {True: "signed", False: "unsigned"}
    if stream_signed != header_signed:
        told = (
            f"the JPEG 2000 stream states {names[stream_signed]} pixels, PixelRepresentation {names[header_signed]} "
            "ones: they were read as the stream states, none is negative"
        )
        return (Notice(code="sign-differs", message=told),)
    told = "the pixels are stored as signed numbers (JPEG 2000): none is negative, they were read as they are"
    return (Notice(code="signed-pixels", message=told),) if stream_signed else ()


def _lowest_bits(pixels: Pixels, bits: int) -> Pixels:
    """The value in the lowest `bits` of each uint8 or uint16 pixel, in two's complement: int32."""
    values = pixels.astype(np.int32) & ((1 << bits) - 1)
    return values - ((values >> (bits - 1)) << bits)


def _without_bits_above(pixels: Pixels, header: Header) -> _Decoded:
    """Unsigned pixels less the bits above BitsStored, which are no part of them (PS3.5 8.1.1), and a notice of any."""
    top = (1 << (header.bits_stored or 0)) - 1
    above = int((pixels > top).sum())
    if not above:
        return pixels, ()
    told = (
        f"{above} pixels have bits set above BitsStored {header.bits_stored}, which were left out (PS3.5 8.1.1): an "
        f"overlay of an old device, or else swapped bytes or a wrong BitsStored, which make the image worthless"
    )
    return pixels & pixels.dtype.type(top), (Notice(code="bits-above-stored", message=told),)


def _stream(value: bytes) -> bytes:
    """The one frame in encapsulated PixelData, whose fragments are joined (PS3.5 A.4)."""
    buffer = BytesIO(value)
    offsets = parse_basic_offsets(buffer)
    if len(offsets) > 1:
        raise StreamError(f"its basic offset table names {len(offsets)} frames, expected one")
    start = buffer.tell()
    fragments = list(generate_fragments(buffer))
    if start + sum(8 + len(fragment) for fragment in fragments) != len(value):
        raise StreamError("a fragment is longer than what is there of it")
    return b"".join(fragments)


def _decoder(syntax: uid.UID) -> Callable[[_Frame], _Decoded]:
    if syntax not in _DECODERS:
        tool = "dcmdjpeg" if "JPEG" in syntax.name else "gdcmconv --raw"
        raise DicomError(
            f"transfer syntax {syntax.name} is not read, because it compresses with loss or is not known here: ask the "
            f"archive for the original, or decompress with `{tool} in.dcm out.dcm`"
        )
    if find_spec("imagecodecs") is None:
        raise BackendUnavailable(
            f"transfer syntax {syntax.name} needs the package imagecodecs, which is not installed: "
            f"{install_command('dicom')}, or decompress with `gdcmconv --raw in.dcm out.dcm`"
        )
    return _DECODERS[syntax]
