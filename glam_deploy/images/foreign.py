"""Descriptions of file formats that are not read, but often given by mistake, and remedies for each."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from glam_deploy import signatures
from glam_deploy.signatures import HEAD, Kind

__all__ = ["HEAD", "KINDS", "Foreign", "kind_of"]

_HEADER = "preamble, DICM and file meta information, PS3.10 section 7.1"
_PART_10 = (
    "add the header with `dcmconv in.dcm out.dcm` of DCMTK, or with pydicom: dcmread(path, force=True), set "
    "file_meta.TransferSyntaxUID, save_as(path, enforce_file_format=True)"
)
_PREAMBLE = (
    "put 128 bytes before it, with Python: from pathlib import Path; Path('out.dcm').write_bytes(bytes(128) + "
    "Path('in.dcm').read_bytes())"
)
_PICTURE = "export the original mammogram as DICOM or 16-bit grey PNG or TIFF"
_UNPACK = "unpack it and give the images or their folder"
_ARRAY = "write the image's array with numpy.save, or export it as 16-bit grey PNG or TIFF"


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """Message texts for one file format that is not read."""

    name: str
    """Description, to follow "the file is "."""
    remedy: str
    """What to do with the file."""


KINDS: Mapping[Kind, Foreign] = MappingProxyType(
    {
        kind: Foreign(name=name, remedy=remedy)
        for kind, name, remedy in (
            (Kind.EMPTY, "empty (0 bytes)", "copy it again from its source"),
            (
                Kind.NO_PREAMBLE,
                "a DICOM file without its preamble, the 128 bytes before DICM (PS3.10 section 7.1)",
                _PREAMBLE,
            ),
            (
                Kind.DATA_SET,
                f"a DICOM data set without the header of a DICOM file ({_HEADER})",
                _PART_10,
            ),
            (
                Kind.NPZ,
                "an archive of arrays that numpy.savez wrote (npz)",
                "write the array of one image with numpy.save('image.npy', numpy.load('in.npz')['its name'])",
            ),
            (Kind.ZIP, "a zip archive", _UNPACK),
            (Kind.GZIP, "compressed with gzip", "unpack it with gunzip (a .tar.gz with tar xzf) and give the images"),
            (Kind.BZIP2, "a bzip2 archive", _UNPACK),
            (Kind.XZ, "an xz archive", _UNPACK),
            (Kind.ZSTD, "a zstd archive", _UNPACK),
            (Kind.SEVEN_ZIP, "a 7z archive", _UNPACK),
            (Kind.RAR, "a rar archive", _UNPACK),
            (Kind.TAR, "a tar archive", _UNPACK),
            (Kind.OTHER_ARCHIVE, f"an archive ({Kind.OTHER_ARCHIVE})", _UNPACK),
            (Kind.PDF, "a PDF document", _PICTURE),
            (Kind.JPEG, "a JPEG picture without a DICOM header", _PICTURE),
            (Kind.JPEG_2000, "a JPEG 2000 or JPEG XL picture without a DICOM header", _PICTURE),
            (Kind.OTHER_PICTURE, "a BMP, GIF, WebP or PGM picture", _PICTURE),
            (
                Kind.NIFTI,
                "a NIfTI volume",
                "give the original DICOM files, because NIfTI has neither view nor laterality",
            ),
            (Kind.HDF5, "an HDF5 file", _ARRAY),
            (Kind.MATLAB, "a MATLAB file", _ARRAY),
            (Kind.BIG_TIFF, "a BigTIFF file", "write it as a classic TIFF or as PNG, 16-bit grey"),
            (Kind.GIT_LFS, "a Git LFS pointer, not the image itself", "fetch the content with `git lfs pull`"),
            (
                Kind.WEB_PAGE,
                "a web page (HTML or XML), perhaps the error page of a download",
                "download the image again, and log in first if necessary",
            ),
            (
                Kind.JSON,
                "a JSON file, perhaps a report or the response of a failed download",
                "give the image itself, or download it again",
            ),
            (Kind.ONNX, "an ONNX graph", "give images here, and a bundle with --bundle"),
            (
                Kind.PICKLE,
                "a checkpoint of PyTorch or another pickle",
                "give images here, and weights with `glam-deploy export --weights`",
            ),
        )
    }
)
"""Every `Kind` except those that are read."""


def kind_of(head: bytes) -> Foreign | None:
    """Format of a file by its first bytes (`head`: `HEAD` bytes, or the whole file); None if it is not in `KINDS`."""
    kind = signatures.kind_of(head)
    return KINDS.get(kind) if kind else None
