"""Decoding of pixel data, and conversion of stored values to pixels: brighter is denser, background 0."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from io import BytesIO
from types import MappingProxyType

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments, parse_basic_offsets
from pydicom.pixels.utils import pixel_array

from glam_deploy.dicom import stored_bits
from glam_deploy.dicom.header import Header, dicom_errors
from glam_deploy.dicom.stored_bits import Bits
from glam_deploy.dicom.transfer_syntaxes import jpeg2000, jpeg_lossless, jpeg_ls, rle
from glam_deploy.dicom.transfer_syntaxes.segments import StreamError, StreamInfo
from glam_deploy.errors import BackendUnavailable, DicomError, counted
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
    """An encapsulated frame, and the attributes of the DICOM header that its decoder needs."""

    stream: bytes
    shape: tuple[int, int]
    bits_allocated: int
    syntax: uid.UID


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """Pixels as preprocessing expects them, and notices about how they were stored."""

    pixels: Pixels
    """uint8 (up to 8 bits stored) or uint16 [rows, columns], brighter is denser, padding 0, source frame."""
    notices: tuple[Notice, ...]
    padding: str = ""
    """Which pixels with a value above 0 became 0 because the header states that they are padding; "" for none."""


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    """Output of a decoder."""

    pixels: Pixels
    """Stored values: unsigned, or signed if a JPEG 2000 stream states signed."""
    stated: StreamInfo | None = None
    """Properties that the stream states; None for pixel data without such a header."""
    notices: tuple[Notice, ...] = ()


def _jpeg_lossless(frame: _Frame) -> _Decoded:
    pixels = jpeg_lossless.decode(frame.stream, frame.shape)
    return _Decoded(pixels=pixels, stated=jpeg_lossless.read_info(frame.stream))


def _jpeg_ls(frame: _Frame) -> _Decoded:
    pixels = jpeg_ls.decode(frame.stream, frame.shape)
    return _Decoded(pixels=pixels, stated=jpeg_ls.read_info(frame.stream))


def _jpeg_2000(frame: _Frame) -> _Decoded:
    decoded = jpeg2000.decode(frame.stream, frame.shape, lossless=frame.syntax not in _LOSSY)
    message = (
        "the frame contains a JP2 file, expected a JPEG 2000 codestream alone (PS3.5 A.4.4): the codestream in the "
        "file was read"
    )
    notices = (Notice(code="jp2-file", message=message),) if decoded.in_file else ()
    return _Decoded(pixels=decoded.pixels, stated=decoded.info, notices=notices)


def _rle(frame: _Frame) -> _Decoded:
    return _Decoded(pixels=rle.decode(frame.stream, frame.shape, frame.bits_allocated))


_LOSSY = frozenset({uid.JPEG2000, uid.HTJ2K, uid.JPEGLSNearLossless})
"""Transfer syntaxes that allow lossy compression."""
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
"""Transfer syntax -> its only decoder, so that all machines decode to the same pixels."""
_SIGNED_BY_STREAM = frozenset(syntax for syntax, decoder in _DECODERS.items() if decoder is _jpeg_2000)
"""Transfer syntaxes whose stream states whether pixels are signed; the stream has priority over the header."""


def read_pixels(dataset: Dataset, header: Header) -> StoredImage:
    """Decode the image of a data set.

    Bits above BitsStored are cleared (`stored_bits`). MONOCHROME1 is inverted within BitsStored, then PixelPaddingValue
    (and the range to PixelPaddingRangeLimit) becomes 0 (PS3.3 C.7.5.1.1.2). No VOI LUT is applied. Raises DicomError if
    the pixels are damaged or ambiguous, BackendUnavailable if the package that decodes them is not installed.
    """
    decoded = _decode(dataset, header)
    stored = decoded.pixels
    if stored.ndim != 2 or stored.size == 0:
        raise DicomError(f"the pixels have shape {stored.shape}, expected one image [rows, columns]: export it again")
    bits = _bits(header)
    values, bit_notices = _values(decoded, header, bits)
    pixels = bits.top - values if bits.inverted else values
    removed = ""
    if bits.padding is None:
        _check_range(values, bits, decoded.stated)
    else:
        padding = stored_bits.is_padding(stored, bits) | stored_bits.is_padding(values, bits)
        _check_range(values[~padding], bits, decoded.stated)
        removed = _removed(header, int(np.count_nonzero(pixels[padding] > 0)))
        pixels = np.where(padding, 0, pixels)
    return StoredImage(
        pixels=pixels.astype(np.uint8 if bits.top < 256 else np.uint16),
        notices=(*decoded.notices, *bit_notices, *_stream_notices(decoded.stated, header, bits)),
        padding=removed,
    )


def _removed(header: Header, count: int) -> str:
    """`StoredImage.padding` for a number of pixels."""
    if not count:
        return ""
    limit = "" if header.padding_limit is None else f" and PixelPaddingRangeLimit {header.padding_limit}"
    return f"PixelPaddingValue {header.padding}{limit} make {counted(count, 'pixel')} above 0 background"


def _bits(header: Header) -> Bits:
    signed, allocated = bool(header.signed), header.bits_allocated or 0
    return Bits(
        stored=header.bits_stored or 0,
        padding=stored_bits.padding_of(header.padding, header.padding_limit, allocated=allocated, signed=signed),
        inverted=header.photometric == "MONOCHROME1",
    )


def _values(decoded: _Decoded, header: Header, bits: Bits) -> tuple[Pixels, tuple[Notice, ...]]:
    """The values of the pixels, int32 if PixelRepresentation states signed, and notices.

    Bits above BitsStored are cleared in pixel data that do not state their precision. They are kept for `_check_range`
    in a stream that does.
    """
    stored = decoded.pixels
    if stored.dtype.kind == "i" or (header.signed and header.transfer_syntax in _SIGNED_BY_STREAM):
        return stored, ()
    signed, rest = stored, stored
    if header.signed:
        # bits above a negative value repeat its sign
        signed = stored_bits.twos_complement(stored, bits)
        rest = np.where(signed.astype(stored.dtype) == stored, stored & bits.top, stored).astype(stored.dtype)
    if decoded.stated is None:
        values, notices = stored_bits.without_bits_above(rest, bits)
        return (stored_bits.twos_complement(values, bits) if header.signed else values), notices
    stored_bits.check_byte_order(rest, bits)
    return np.where(rest > bits.top, rest, signed), ()


def _check_range(values: Pixels, bits: Bits, stated: StreamInfo | None) -> None:
    if values.min(initial=0) < 0:
        raise DicomError(
            f"the smallest pixel is {values.min()}, expected 0 or more: mammograms are unsigned. Correct the object at "
            "its source"
        )
    largest = int(values.max(initial=0))
    if largest <= bits.top:
        return
    precision = (
        f"; the stream states {stated.precision} bits per pixel, which must equal BitsStored (PS3.5 8.2)"
        if stated
        else ""
    )
    raise DicomError(
        f"the largest pixel is {largest}, expected up to {bits.top} (BitsStored {bits.stored}){precision}: correct "
        "BitsStored and HighBit at the source of the object, or export it again"
    )


def _stream_notices(stated: StreamInfo | None, header: Header, bits: Bits) -> Iterator[Notice]:
    """Notices where a stream states other properties than the header.

    Raises DicomError if it is unclear which of the two is right and the pixels depend on it. A precision above
    BitsStored gives no notice if no pixel uses the additional bits, because some encoders only know 8 and 16 bits.
    """
    if stated is None:
        return
    if stated.precision < bits.stored:
        difference = f"the stream states {stated.precision} bits per pixel, BitsStored is {bits.stored} (PS3.5 8.2)"
        if bits.inverted:
            raise DicomError(
                f"{difference}, so the range in which MONOCHROME1 must be inverted is ambiguous: correct BitsStored "
                "and HighBit at the source of the object"
            )
        yield Notice(code="precision-differs", message=f"{difference}: the values were not changed")
    if stated.loss:
        against = [f"the transfer syntax {header.transfer_syntax.name}"] * (header.transfer_syntax not in _LOSSY)
        against += ["LossyImageCompression 00"] * (header.lossy == "00")
        contradiction = f", which contradicts {' and '.join(against)}" if against else ""
        yield Notice(code="lossy", message=f"the pixels are compressed with loss ({stated.loss}){contradiction}")


def _decode(dataset: Dataset, header: Header) -> _Decoded:
    """Stored values, signed or unsigned integers [rows, columns]."""
    if "PixelData" not in dataset:
        raise DicomError("PixelData is missing: export the object again with its pixels")
    with dicom_errors("PixelData is damaged: export the object again"):
        value = dataset.PixelData
    if not isinstance(value, bytes) or not value:
        raise DicomError("PixelData is empty or not binary data: export the object again with its pixels")
    decoder = None if header.transfer_syntax in UNCOMPRESSED else _decoder(header.transfer_syntax)
    damaged = f"pixel data ({header.transfer_syntax.name}) is damaged or incomplete"
    with dicom_errors(f"{damaged}: export it again"):
        try:
            if decoder is None:
                return _uncompressed(dataset, header)
            return _encapsulated(dataset, header, decoder)
        except StreamError as error:
            raise DicomError(f"{damaged}: {error}. Export the object again from its archive") from None


def _uncompressed(dataset: Dataset, header: Header) -> _Decoded:
    expected = dataset.Rows * dataset.Columns * (header.bits_allocated or 0) // 8
    found = len(dataset.PixelData)
    stated = f"{expected} for {dataset.Rows} rows and {dataset.Columns} columns of {header.bits_allocated} bits"
    if found < expected:
        raise StreamError(f"it has {found} bytes, expected {stated}")
    # an odd number of bytes is padded by one byte (PS3.5 8.1.1)
    if found > expected + expected % 2:
        raise DicomError(
            f"pixel data ({header.transfer_syntax.name}) is longer than the header states: it has {found} bytes, "
            f"expected {stated}. Correct Rows, Columns and BitsAllocated, or remove the additional bytes, at the "
            "source of the object"
        )
    stored = np.asarray(pixel_array(dataset, raw=True, correct_unused_bits=False))
    return _Decoded(pixels=stored.view(f"{stored.dtype.byteorder}u{stored.dtype.itemsize}"))


def _encapsulated(dataset: Dataset, header: Header, decode: Callable[[_Frame], _Decoded]) -> _Decoded:
    shape = dataset.Rows, dataset.Columns
    frame = _Frame(
        stream=_stream(dataset.PixelData),
        shape=shape,
        bits_allocated=header.bits_allocated or 0,
        syntax=header.transfer_syntax,
    )
    decoded = decode(frame)
    if decode is not _jpeg_2000:
        # for other transfer syntaxes only the header states whether pixels are signed
        return decoded
    notices = _sign_notices(decoded.pixels.dtype.kind == "i", bool(header.signed))
    return replace(decoded, notices=(*decoded.notices, *notices))


def _sign_notices(stream_signed: bool, header_signed: bool) -> tuple[Notice, ...]:
    """Notices about signed pixels; the stream has priority, as in pydicom and GDCM.

    The caller refuses negative pixels before any notice is shown.
    """
    names = {True: "signed", False: "unsigned"}
    if stream_signed != header_signed:
        message = (
            f"the JPEG 2000 stream states {names[stream_signed]} pixels, PixelRepresentation states "
            f"{names[header_signed]} pixels: they were read as {names[stream_signed]}; none is negative"
        )
        return (Notice(code="sign-differs", message=message),)
    message = "the pixels are stored as signed numbers (JPEG 2000): none is negative; the values were not changed"
    return (Notice(code="signed-pixels", message=message),) if stream_signed else ()


def _stream(value: bytes) -> bytes:
    """The only frame in encapsulated PixelData, with its fragments joined (PS3.5 A.4)."""
    # the basic offset table comes first (PS3.5 A.4): an item tag, a length, and 4 bytes per frame
    frames = int.from_bytes(value[4:8], "little") // 4
    if frames > 1:
        raise StreamError(f"its basic offset table has {frames} frames, expected one")
    buffer = BytesIO(value)
    parse_basic_offsets(buffer)
    start = buffer.tell()
    fragments = list(generate_fragments(buffer))
    if start + sum(8 + len(fragment) for fragment in fragments) != len(value):
        raise StreamError("a fragment is shorter than its length field states")
    return b"".join(fragments)


def _decoder(syntax: uid.UID) -> Callable[[_Frame], _Decoded]:
    if syntax not in _DECODERS:
        raise DicomError(
            f"transfer syntax {syntax.name} is not supported: request the image uncompressed (Explicit VR Little "
            f"Endian) from the archive, or, if it is JPEG, decompress it with `dcmdjpeg in.dcm out.dcm`"
        )
    if find_spec("imagecodecs") is None:
        raise BackendUnavailable(
            f"transfer syntax {syntax.name} needs the package imagecodecs, which is not installed: "
            f"{install_command('dicom')}, or decompress with `gdcmconv --raw in.dcm out.dcm`"
        )
    return _DECODERS[syntax]
