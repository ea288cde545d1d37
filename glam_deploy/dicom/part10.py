"""The head of a DICOM file, preamble and file meta information (PS3.10 section 7.1): written and read. Files without
their pixels.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from glam_deploy.dicom.elements import BEFORE_PIXELS, ElementReader, Encoding
from glam_deploy.dicom.header import dicom_errors
from glam_deploy.dicom.mammography import IMPLEMENTATION_UID
from glam_deploy.dicom.streams import OBJECT, FileStream, InflatedStream
from glam_deploy.errors import DicomError

MAX_HEAD = 1 << 16
"""Largest length of a head in bytes; about 300 is common."""

_PREAMBLE = b"\0" * 128 + b"DICM"
_GROUP_LENGTH = b"\2\0\0\0UL\4\0"

_META = (0x00020002, 0x00020003, 0x00020010)
"""MediaStorageSOPClassUID, MediaStorageSOPInstanceUID, TransferSyntaxUID."""
_META_INFORMATION = "the file meta information (PS3.10 section 7.1)"
_NO_FILE = "not a readable DICOM file (PS3.10): it is damaged, incomplete or in another format"

_PLAIN = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)
_LOSSLESS = (
    uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEGLosslessSV1, uid.JPEGLossless, uid.RLELossless, uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL, uid.DeflatedExplicitVRLittleEndian, uid.ExplicitVRBigEndian,
)  # fmt: skip
# JPEG XL and deflated frames, which this release of pydicom does not list
_NEW = tuple(UID(f"1.2.840.10008.1.2.{tail}") for tail in ("4.110", "4.111", "4.112", "8.1"))

TRANSFER_SYNTAXES = tuple(
    dict.fromkeys(
        syntax
        for syntax in (*_PLAIN, *_LOSSLESS, *uid.AllTransferSyntaxes, *_NEW)
        if not syntax.name.startswith(("JPIP", "SMPTE"))
    )
)
"""All transfer syntaxes of PS3.6 with the pixels inside the object; lossless ones come first."""


def is_storage_class(text: str) -> bool:
    """Whether `text` is the UID of a standard SOP class whose instances can be stored."""
    known = UID(text)
    return known.type == "SOP Class" and "Storage" in known.name and known.name != "Media Storage Directory Storage"


def is_accepted_syntax(text: str) -> bool:
    """Whether `text` is the UID of one of `TRANSFER_SYNTAXES`."""
    return text in TRANSFER_SYNTAXES


@dataclass(frozen=True, kw_only=True)
class Claim:
    """UIDs of an object as stated outside its data set: in a C-STORE command or in file meta information."""

    sop_class: str
    sop_uid: str
    transfer_syntax: str


def write_head(claim: Claim) -> bytes:
    """The head that makes a data set a DICOM file: preamble of zeros and file meta information.

    Raises DicomError for an invalid UID.
    """
    if not all(UID(text).is_valid for text in (claim.sop_class, claim.sop_uid, claim.transfer_syntax)):
        raise DicomError(
            "a UID received with the data set is not a valid UID (PS3.5 section 9.1): correct it at its source"
        )
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(claim.sop_class), UID(claim.sop_uid)
    meta.TransferSyntaxUID, meta.ImplementationClassUID = UID(claim.transfer_syntax), IMPLEMENTATION_UID
    file = DicomBytesIO()
    write_file_meta_info(file, meta)
    return _PREAMBLE + file.getvalue()


def read_head(start: bytes) -> tuple[Claim, int] | None:
    """The UIDs in the head of a file, and its length in bytes; None if `start` does not contain all of it yet.

    Raises DicomError if `start` is not the beginning of a DICOM file.
    """
    if len(start) < 144:
        return None
    if start[128:140] != _PREAMBLE[128:] + _GROUP_LENGTH:
        raise DicomError(
            "not a DICOM file (PS3.10 section 7.1): expected DICM and the group length at byte 128. Export the object "
            "again"
        )
    length = 144 + int.from_bytes(start[140:144], "little")
    if length > MAX_HEAD:
        raise DicomError(
            f"the file meta information has {length} bytes, expected up to {MAX_HEAD}: export the object again"
        )
    return (_claim(start[:length]), length) if len(start) >= length else None


def open_data_set(
    file: BinaryIO, keywords: Sequence[str], *, limit: int, most: int | None = None, part: str = OBJECT
) -> tuple[FileMetaDataset, ElementReader]:
    """The file meta information of a DICOM file, and a reader of the listed elements of its data set.

    `limit`: largest number of bytes read from the data set, counted after inflation if it is deflated; `part` names
    them in the message. `most`: largest number of bytes inflated to read or skip them, `limit` by default. A wrong or
    missing group length is ignored. Raises DicomError if the file does not begin as a DICOM file.
    """
    meta, start = _read_meta(file)
    syntax = UID(str(meta.get("TransferSyntaxUID") or ""))
    deflated = syntax == uid.DeflatedExplicitVRLittleEndian
    stream = (
        InflatedStream(file, start, limit, most or limit, part) if deflated else FileStream(file, start, limit, part)
    )
    tags = [tag for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None]
    return meta, ElementReader(stream, Encoding.of(syntax), tags)


def without_pixels(data: bytes, *, limit: int) -> bytes:
    """The DICOM file `data` up to its pixels: the same bytes, whatever the character set, private elements included.

    A deflated data set is deflated again. `limit`: as of `open_data_set`. Raises DicomError if the file is damaged
    before its pixels.
    """
    file = BytesIO(data)
    meta, start = _read_meta(file)
    _, reader = open_data_set(file, (), limit=limit)
    with dicom_errors("the header is damaged or incomplete: export the object again"):
        reader.read_through(BEFORE_PIXELS)
    if str(meta.get("TransferSyntaxUID") or "") != uid.DeflatedExplicitVRLittleEndian:
        return data[: reader.position]
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:], reader.position)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return data[:start] + deflater.compress(inflated) + deflater.flush()


def _read_meta(file: BinaryIO) -> tuple[FileMetaDataset, int]:
    """The file meta information, and the position of the data set in bytes."""
    file.seek(0)
    start = file.read(144)
    if start[128:132] != _PREAMBLE[128:]:
        raise DicomError(_NO_FILE)
    end = 144 + int.from_bytes(start[140:144], "little") if start[132:140] == _GROUP_LENGTH else 0
    file.seek(end)
    if file.read(2) == _GROUP_LENGTH[:2]:
        end = 0
    reader = ElementReader(FileStream(file, 132, MAX_HEAD, _META_INFORMATION), Encoding(implicit=False), _META)
    elements = reader.read_through(0x0002FFFF, end=end)
    meta = FileMetaDataset()
    with dicom_errors(f"{_META_INFORMATION} is damaged: export the object again"):
        for tag in _META:
            if tag in elements:
                meta[tag] = elements[tag]
    return meta, reader.position


def _claim(head: bytes) -> Claim:
    meta, _ = _read_meta(BytesIO(head))
    with dicom_errors(f"{_META_INFORMATION} is damaged: export the object again"):
        sop_class, sop_uid, syntax = (str(meta[tag].value) for tag in _META)
    return Claim(sop_class=sop_class, sop_uid=sop_uid, transfer_syntax=syntax)
