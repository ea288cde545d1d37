"""Files that are no image for this network but often given as one: what each is, and what turns it into one."""

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
_PICTURE = "export the original mammogram as DICOM or 16-bit grey PNG or TIFF"
_UNPACK = "unpack it and give the images or their folder"
_ARRAY = "write the image's array with numpy.save, or export it as 16-bit grey PNG or TIFF"


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """The words of a message about a file of one kind: its name, and what to do with it."""

    name: str
    """Fits behind "the file is "."""
    remedy: str


KINDS: Mapping[Kind, Foreign] = MappingProxyType(
    {
        kind: Foreign(name=name, remedy=remedy)
        for kind, name, remedy in (
            (Kind.EMPTY, "empty: it holds nothing", "copy it again from where it was made"),
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
            (Kind.PDF, "a PDF document", _PICTURE),
            (Kind.JPEG, "a JPEG picture without a DICOM header", _PICTURE),
            (Kind.JPEG_2000, "a JPEG 2000 or JPEG XL picture without a DICOM header", _PICTURE),
            (Kind.OTHER_PICTURE, "a BMP, GIF, WebP or PGM picture", _PICTURE),
            (
                Kind.NIFTI,
                "a NIfTI volume",
                "give the DICOM files it was made from: NIfTI keeps neither view nor laterality",
            ),
            (Kind.HDF5, "an HDF5 file", _ARRAY),
            (Kind.MATLAB, "a MATLAB file", _ARRAY),
            (Kind.BIG_TIFF, "a BigTIFF file", "write it as a classic TIFF or as PNG, 16-bit grey"),
            (Kind.GIT_LFS, "a Git LFS pointer, not the image itself", "fetch the content with `git lfs pull`"),
            (
                Kind.WEB_PAGE,
                "a web page (HTML or XML), perhaps the error page of a download",
                "download the image again, signed in where that is needed",
            ),
            (
                Kind.JSON,
                "a JSON text, perhaps a report or the answer of a download that failed",
                "give the image itself, or download it again",
            ),
            (Kind.ONNX, "an ONNX graph", "give images here; a bundle goes to --bundle"),
            (
                Kind.PICKLE,
                "a checkpoint of PyTorch or another pickle",
                "give images here; weights go to `glam-deploy export --weights`",
            ),
        )
    }
)
"""All but the kinds that are read."""


def kind_of(head: bytes) -> Foreign | None:
    """What a file is that begins with `head` (`HEAD` bytes, fewer where it ends); None where nothing here says so."""
    kind = signatures.kind_of(head)
    return KINDS.get(kind) if kind else None
