"""Decoding, and the way from stored values to brighter-is-denser on a background of 0."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array

from glam_deploy.dicom import jpeg2000, jpeg_lossless, jpeg_shape
from glam_deploy.dicom.header import Header, foreign_errors
from glam_deploy.errors import BackendUnavailable, DicomError
from glam_deploy.installation import install_command
from glam_deploy.records import Pixels

UNCOMPRESSED = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)

_DECODERS: Mapping[uid.UID, tuple[str, str]] = MappingProxyType(
    {
        uid.RLELossless: ("pydicom", "pydicom"),
        uid.JPEGLossless: ("gdcm", "python-gdcm"),
        uid.JPEGLosslessSV1: ("gdcm", "python-gdcm"),
        uid.JPEGLSLossless: ("pyjpegls", "pyjpegls"),
        uid.JPEGLSNearLossless: ("pyjpegls", "pyjpegls"),
    }
)
"""Transfer syntax -> pydicom's name of the one decoder in use, and the package that brings it; JPEG 2000 apart.

One each, so that two machines decode alike. pylibjpeg-libjpeg, which would add 12-bit JPEG, is GPL and not used;
pylibjpeg-rle 2.2 panics (not an Exception) on damaged data.
"""


def read_pixels(dataset: Dataset, header: Header) -> Pixels:
    """The image, brighter is denser, padding 0: uint8 (up to 8 bits stored) or uint16 [rows, columns], source frame.

    MONOCHROME1 is inverted within BitsStored, then PixelPaddingValue (and the range to PixelPaddingRangeLimit) becomes
    0 (PS3.3 C.7.5.1.1.2). No VOI LUT is applied. Raises DicomError where the pixels cannot be decoded,
    BackendUnavailable where the package that decodes them is not installed.
    """
    stored = _decode(dataset, header)
    if stored.ndim != 2 or stored.size == 0:
        raise DicomError(f"the pixels have shape {stored.shape}, expected one image [rows, columns]: export it again")
    if stored.min() < 0:
        raise DicomError(f"the smallest pixel is {stored.min()}, expected none below 0: mammograms are unsigned")
    top = (1 << (header.bits_stored or 0)) - 1
    if stored.max() > top:
        raise DicomError(f"the largest pixel is {stored.max()}, expected up to {top} (BitsStored): export it again")
    return _brighter_is_denser(stored, header, top).astype(np.uint8 if top < 256 else np.uint16, copy=False)


def _brighter_is_denser(stored: Pixels, header: Header, top: int) -> Pixels:
    pixels = top - stored if header.photometric == "MONOCHROME1" else stored.copy()
    if header.padding is not None:
        ends = sorted((header.padding, header.padding if header.padding_limit is None else header.padding_limit))
        pixels[(stored >= ends[0]) & (stored <= ends[1])] = 0
    return pixels


def _decode(dataset: Dataset, header: Header) -> Pixels:
    if "PixelData" not in dataset:
        raise DicomError("PixelData is missing: export the object again, with its pixels")
    is_2000 = header.transfer_syntax in (uid.JPEG2000Lossless, uid.JPEG2000)
    plugin = "" if is_2000 else _plugin(header.transfer_syntax)
    with foreign_errors(f"pixel data ({header.transfer_syntax.name}) is damaged or incomplete: export it again"):
        if plugin == "gdcm":
            _prepare_gdcm(dataset, header)
        if plugin == "pyjpegls" or is_2000:
            jpeg_shape.check_shape(_stream(dataset), (dataset.Rows, dataset.Columns))
        if is_2000:
            return jpeg2000.decode(_stream(dataset))
        return pixel_array(dataset, raw=True, decoding_plugin=plugin)


def _plugin(syntax: uid.UID) -> str:
    """pydicom's name of the decoder for a transfer syntax, "" for none."""
    if syntax in UNCOMPRESSED:
        return ""
    if syntax not in _DECODERS:
        tool = "dcmdjpeg" if "JPEG" in syntax.name and "2000" not in syntax.name else "gdcmconv --raw"
        raise DicomError(
            f"transfer syntax {syntax.name} cannot be read, no decoder with a permissive licence is known for it: "
            f"ask the archive for an uncompressed copy, or decompress with `{tool} in.dcm out.dcm`"
        )
    plugin, package = _DECODERS[syntax]
    if plugin not in get_decoder(syntax).available_plugins:
        raise BackendUnavailable(
            f"transfer syntax {syntax.name} needs the package {package}, which is not installed: "
            f"{install_command('dicom')}, or decompress with `gdcmconv --raw in.dcm out.dcm`"
        )
    return plugin


def _prepare_gdcm(dataset: Dataset, header: Header) -> None:
    """Check the stream, and keep gdcm from writing to the terminal; its errors still arrive as exceptions."""
    import gdcm

    jpeg_lossless.check_stream(_stream(dataset), header, (dataset.Rows, dataset.Columns))
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()


def _stream(dataset: Dataset) -> bytes:
    return bytes(get_frame(dataset.PixelData, 0, number_of_frames=1))
