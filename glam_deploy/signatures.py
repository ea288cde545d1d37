"""File formats, identified by their first bytes. Messages for them: `images.foreign`, `glam_export.checkpoint.foreign`.

Sources: the file signatures in the specification of each format; PS3.5 section 7.1 and PS3.10 section 7.1 for DICOM;
the Git LFS pointer specification; the list of signatures of `file` for older archives.
"""

import re
import zlib
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType

HEAD = 512
"""Number of bytes from the beginning of a file that are needed."""


class Kind(StrEnum):
    """A file format."""

    EMPTY = "empty"
    DICOM = "DICOM file"
    NO_PREAMBLE = "DICOM file without its preamble"
    DATA_SET = "DICOM data set without the header of a file"
    PNG = "PNG"
    TIFF = "TIFF"
    BIG_TIFF = "BigTIFF"
    JPEG = "JPEG"
    JPEG_2000 = "JPEG 2000 or JPEG XL"
    OTHER_PICTURE = "BMP, GIF, WebP or PGM"
    NIFTI = "NIfTI"
    NPY = "array of numpy.save"
    HDF5 = "HDF5"
    MATLAB = "MATLAB"
    PDF = "PDF"
    NPZ = "archive of numpy.savez"
    ZIP = "zip"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    ZSTD = "zstd"
    SEVEN_ZIP = "7z"
    RAR = "rar"
    TAR = "tar"
    OTHER_ARCHIVE = "compress, lzip, lzma, lz4, cpio, cab, arj or lzh"
    GIT_LFS = "Git LFS pointer"
    WEB_PAGE = "HTML or XML"
    JSON = "JSON"
    ONNX = "ONNX"
    PICKLE = "pickle"


Matches = Callable[[bytes], bool]


def _starts(*magics: bytes) -> Matches:
    return lambda head: head.startswith(magics)


def _like(pattern: bytes) -> Matches:
    return lambda head: re.match(pattern, head, re.DOTALL) is not None


_DATA_SET = rb"([\2\x08]\0..|\0[\2\x08]..)[A-Z]{2}|\x08\0[\0-\x7f]\0..\0\0"
"""Tag of group 0002 or 0008, followed by a value representation or a length below 65536 (PS3.5 section 7.1)."""


def _is_npz(head: bytes) -> bool:
    """Whether `head` begins a zip archive whose first entry is named *.npy (APPNOTE.TXT, 4.3.7; numpy.lib.format)."""
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    return head.startswith(b"PK\3\4") and name.endswith(b".npy")


SIGNATURES: Mapping[Kind, Matches] = MappingProxyType(
    {
        Kind.EMPTY: lambda head: not head,
        Kind.PNG: _starts(b"\x89PNG\r\n\x1a\n"),
        Kind.TIFF: _starts(b"II*\0", b"MM\0*"),
        Kind.NPY: _starts(b"\x93NUMPY"),
        Kind.DICOM: lambda head: head[128:132] == b"DICM",
        Kind.NO_PREAMBLE: _starts(b"DICM"),
        Kind.DATA_SET: _like(_DATA_SET),
        Kind.BIG_TIFF: _starts(b"II+\0", b"MM\0+"),
        Kind.JPEG: _starts(b"\xff\xd8\xff"),
        Kind.JPEG_2000: _starts(
            b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n", b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a"
        ),
        Kind.OTHER_PICTURE: _like(rb"BM....\0\0\0\0|GIF8[79]a|RIFF....WEBP|P[1-7]\s"),
        Kind.NIFTI: _starts(b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c"),
        Kind.HDF5: _starts(b"\x89HDF\r\n\x1a\n"),
        Kind.MATLAB: _starts(b"MATLAB 5.0"),
        Kind.PDF: _starts(b"%PDF-"),
        Kind.NPZ: _is_npz,
        Kind.ZIP: _starts(b"PK\3\4", b"PK\5\6"),
        Kind.GZIP: _starts(b"\x1f\x8b"),
        Kind.BZIP2: _starts(b"BZh"),
        Kind.XZ: _starts(b"\xfd7zXZ\0"),
        Kind.ZSTD: _starts(b"\x28\xb5\x2f\xfd"),
        Kind.SEVEN_ZIP: _starts(b"7z\xbc\xaf\x27\x1c"),
        Kind.RAR: _starts(b"Rar!\x1a\x07"),
        Kind.TAR: lambda head: head[257:262] == b"ustar",
        Kind.OTHER_ARCHIVE: _like(
            rb"\x1f\x9d|LZIP|\x5d\0\0..|\x04\x22\x4d\x18|07070[127]|\xc7\x71|MSCF\0{4}|\x60\xea|..-lh.-"
        ),
        Kind.GIT_LFS: _starts(b"version https://git-lfs"),
        Kind.WEB_PAGE: _like(rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml|head|body|!--)"),
        Kind.JSON: _like(rb"(\xef\xbb\xbf)?\s*[{\[]"),
        Kind.ONNX: _like(rb"\x08.\x12.(pytorch|tf2onnx|onnx|keras)"),
        Kind.PICKLE: _starts(b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5"),
    }
)
"""Format -> test of the first bytes, in the order of the tests."""


def kind_of(head: bytes) -> Kind | None:
    """Format of a file by its first bytes (`head`: `HEAD` bytes, or the whole file); None if it is not in `Kind`."""
    return next((kind for kind, matches in SIGNATURES.items() if matches(head)), None)


ARCHIVES = frozenset({Kind.BZIP2, Kind.XZ, Kind.ZSTD, Kind.SEVEN_ZIP, Kind.RAR, Kind.TAR, Kind.OTHER_ARCHIVE})
"""Formats of archives and packed files, whatever is in them; without zip, in which documents and programs are packed,
and gzip, in which `unpacked_kind` sees.
"""


def unpacked_kind(head: bytes) -> Kind | None:
    """Format of what is packed with gzip, by the first bytes of the packed file; None if it is not in `Kind`."""
    try:
        return kind_of(zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD))
    except zlib.error:
        return None


_DOCUMENTS = frozenset({Kind.PDF, Kind.WEB_PAGE, Kind.JSON, Kind.ONNX, Kind.PICKLE})
_CONTROL = frozenset(range(32)) - frozenset(b"\t\n\f\r\x1a\x1b")
"""Characters that a text in ASCII, UTF-8, Latin-1 or a national encoding does not have."""


def may_hold_image(head: bytes) -> bool:
    """Whether a file of unknown name may be an image that is damaged, packed or of a format that is not read.

    `head`: `HEAD` bytes, or the whole file. False for text and for documents.
    """
    if (kind := kind_of(head)) is not None:
        return kind not in _DOCUMENTS
    return not (head.startswith((b"\xff\xfe", b"\xfe\xff")) or _CONTROL.isdisjoint(head))
