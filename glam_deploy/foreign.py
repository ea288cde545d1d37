"""Files that are no image for this network but often given as one: what each is, and what turns it into one."""

import re
from collections.abc import Callable
from dataclasses import dataclass

HEAD = 132
"""Bytes of a file that are looked at."""

_PART_10 = (
    "add the header with `dcmconv in.dcm out.dcm` of DCMTK, or with pydicom: dcmread(path, force=True), set "
    "file_meta.TransferSyntaxUID, save_as(path, enforce_file_format=True)"
)
_PICTURE = "export the original mammogram as DICOM or 16-bit grey PNG or TIFF"


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A kind of file by its first bytes."""

    name: str
    """Fits behind "the file is "."""
    remedy: str
    matches: Callable[[bytes], bool]


def _starts(*magics: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magics)


def _like(pattern: bytes) -> Callable[[bytes], bool]:
    return lambda head: re.match(pattern, head, re.DOTALL) is not None


_DATA_SET = rb"([\2\x08]\0..|\0[\2\x08]..)[A-Z]{2}|\x08\0[\0-\x7f]\0..\0\0"
"""An element of group 0002 or 0008, then its value representation or a length below 65536 (PS3.5 section 7.1)."""

KINDS = (
    Foreign(
        name="empty: it holds nothing", remedy="copy it again from where it was made", matches=lambda head: not head
    ),
    Foreign(
        name="a DICOM data set without the header of a DICOM file (preamble, DICM and file meta information, PS3.10 "
        "section 7.1)",
        remedy=_PART_10,
        matches=_like(_DATA_SET),
    ),
    Foreign(
        name="a zip archive",
        remedy="unpack it and give the images or their folder",
        matches=_starts(b"PK\3\4", b"PK\5\6"),
    ),
    Foreign(
        name="compressed with gzip",
        remedy="unpack it with gunzip (a .tar.gz with tar xzf) and give the images",
        matches=_starts(b"\x1f\x8b"),
    ),
    Foreign(
        name="a compressed archive (bzip2, xz, zstd, 7z or rar)",
        remedy="unpack it and give the images or their folder",
        matches=_starts(b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07"),
    ),
    Foreign(name="a PDF document", remedy=_PICTURE, matches=_starts(b"%PDF-")),
    Foreign(
        name="a JPEG picture without a DICOM header", remedy=_PICTURE, matches=_starts(b"\xff\xd8\xff", b"\xff\xd8\xc3")
    ),
    Foreign(
        name="a JPEG 2000 or JPEG XL picture without a DICOM header",
        remedy=_PICTURE,
        matches=_starts(b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n", b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a"),
    ),
    Foreign(
        name="a BMP, GIF, WebP or PGM picture",
        remedy=_PICTURE,
        matches=_like(rb"BM....\0\0\0\0|GIF8[79]a|RIFF....WEBP|P[1-7]\s"),
    ),
    Foreign(
        name="a NIfTI volume",
        remedy="give the DICOM files it was made from: NIfTI keeps neither view nor laterality",
        matches=lambda head: head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c"),
    ),
    Foreign(
        name="an HDF5 or MATLAB file",
        remedy="write the image's array with numpy.save, or export it as 16-bit grey PNG or TIFF",
        matches=_starts(b"\x89HDF\r\n\x1a\n", b"MATLAB 5.0"),
    ),
    Foreign(
        name="a BigTIFF file",
        remedy="write it as a classic TIFF or as PNG, 16-bit grey",
        matches=_starts(b"II+\0", b"MM\0+"),
    ),
    Foreign(
        name="a Git LFS pointer, not the image itself",
        remedy="fetch the content with `git lfs pull`",
        matches=_starts(b"version https://git-lfs"),
    ),
    Foreign(
        name="a web page (HTML or XML), perhaps the error page of a download",
        remedy="download the image again, signed in where that is needed",
        matches=_like(rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml|head|body)"),
    ),
    Foreign(
        name="a checkpoint of PyTorch or another pickle",
        remedy="give images here; weights go to `glam-deploy export --weights`",
        matches=_starts(b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5"),
    ),
)


def kind_of(head: bytes) -> Foreign | None:
    """What a file is that begins with `head` (`HEAD` bytes, fewer where it ends); None where nothing here says so."""
    return next((kind for kind in KINDS if kind.matches(head)), None)
