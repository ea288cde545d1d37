"""Kinds of files and folders that are no PyTorch checkpoint, with what to do instead.

Sources: `glam_deploy.signatures`; `torch.jit.save`, `torch.export.save` and `torch.distributed.checkpoint` for the
entries of their archives and folders.
"""

import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from glam_deploy.installation import quoted
from glam_deploy.signatures import HEAD, Kind, kind_of
from glam_export.checkpoint.pickles import ZIP_DAMAGE
from glam_export.checkpoint.snippets import commands

SUFFIXES = (".pt", ".pth", ".ckpt", ".p", ".bin", ".safetensors")

_UNPACK = "Unpack it and export the checkpoint inside."
_EXPECTED = "Expected a checkpoint of PyTorch."
_IMAGE = "Expected a checkpoint of PyTorch; images go to `glam-deploy run`."

KINDS: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.GZIP: "a gzip archive. Unpack it with gunzip (or tar -xzf) and export the checkpoint inside.",
        Kind.XZ: "an xz archive. Unpack it with unxz (or tar -xJf) and export the checkpoint inside.",
        Kind.BZIP2: "a bzip2 archive. Unpack it with bunzip2 (or tar -xjf) and export the checkpoint inside.",
        Kind.ZSTD: "a zstd archive. Unpack it with unzstd and export the checkpoint inside.",
        Kind.SEVEN_ZIP: f"a 7-Zip archive. {_UNPACK}",
        Kind.RAR: f"a RAR archive. {_UNPACK}",
        Kind.TAR: "a tar archive. Unpack it with tar -xf and export the checkpoint inside. A checkpoint that PyTorch "
        "before 0.2 wrote is a tar archive too: load it there and save its state dict anew.",
        Kind.OTHER_ARCHIVE: f"an archive ({Kind.OTHER_ARCHIVE}). {_UNPACK}",
        Kind.GIT_LFS: "a Git LFS pointer: the text that stands in for a large file. Fetch the file itself with `git "
        "lfs pull`.",
        Kind.WEB_PAGE: "an HTML page or XML, perhaps the answer of a download that failed. Download the checkpoint "
        "again.",
        Kind.JSON: "a JSON text, perhaps a configuration or the answer of a download that failed. Expected a "
        "checkpoint.",
        Kind.HDF5: "an HDF5 file, as Keras writes. Expected the PyTorch checkpoint of the network.",
        Kind.MATLAB: f"a MATLAB file. {_EXPECTED}",
        Kind.NPY: f"an array that numpy.save wrote. {_EXPECTED}",
        Kind.ONNX: "an ONNX graph. Expected the PyTorch checkpoint from which it was made.",
        Kind.PDF: f"a PDF document. {_EXPECTED}",
        Kind.DICOM: f"a DICOM file. {_IMAGE}",
        Kind.NO_PREAMBLE: f"a DICOM file without its preamble. {_IMAGE}",
        Kind.DATA_SET: f"a DICOM data set. {_IMAGE}",
        Kind.PNG: f"a PNG picture. {_IMAGE}",
        Kind.TIFF: f"a TIFF picture. {_IMAGE}",
        Kind.BIG_TIFF: f"a BigTIFF picture. {_IMAGE}",
        Kind.JPEG: f"a JPEG picture. {_IMAGE}",
        Kind.JPEG_2000: f"a JPEG 2000 or JPEG XL picture. {_IMAGE}",
        Kind.OTHER_PICTURE: f"a BMP, GIF, WebP or PGM picture. {_IMAGE}",
        Kind.NIFTI: f"a NIfTI volume. {_IMAGE}",
        Kind.EMPTY: "empty. Copy or download it again.",
    }
)
"""Kind -> text for the message; without zip archives and pickles, which torch.save writes."""

_CUT = (
    "a zip archive without its directory, which stands at the end, so the file may be cut short. Copy or download it "
    "again."
)


def file_kind(path: Path, head: bytes) -> str | None:
    """Kind of the file by its first bytes (`head`), and what to do; None if it may be a PyTorch checkpoint."""
    kind = Kind.ONNX if path.suffix == ".onnx" else kind_of(head[:HEAD])
    if kind in (Kind.ZIP, Kind.NPZ):
        return _zip_kind(path)
    if kind is Kind.PICKLE:
        return None
    if kind:
        return KINDS[kind]
    return (
        f"no checkpoint of PyTorch: it begins with {head[:4]!r}, not as a zip archive or a pickle does. Expected .pt, "
        f".pth, .ckpt or .p written by torch.save, or .safetensors."
    )


def folder_kind(path: Path) -> str:
    """Kind of the folder, and what to do."""
    inside = {each.name for each in path.iterdir()}
    kind = next((kind for sign, kind in _FOLDERS if sign in inside), None)
    if kind:
        return kind.format(path=quoted(path))
    return f"a folder. Expected a file{_instance(inside, path)}."


_FOLDERS: tuple[tuple[str, str], ...] = (
    (
        ".metadata",
        (
            "a folder of torch.distributed.checkpoint. Convert it: python -m torch.distributed.checkpoint.format_utils "
            "dcp_to_torch {path} weights.pt"
        ),
    ),
    ("saved_model.pb", "a TensorFlow SavedModel. Expected the PyTorch checkpoint of the network."),
    ("manifest.json", "a bundle that was exported before. Expected a checkpoint; run the bundle with --bundle."),
    ("data.pkl", "a folder with the unpacked parts of a checkpoint. Expected the file as torch.save wrote it."),
)
"""Name of a file in the folder -> kind of the folder."""

_COMPRESSED = (
    "a checkpoint with compressed entries, which torch.save never writes: they could inflate to any size. If you trust "
    "where it came from, unpack it and pack it again without compression (zip -0), or save it again with torch.save."
)
_TRUST = "If you trust where it came from, save its weights alone, which runs code of the file: "

_ZIPS: tuple[tuple[re.Pattern[str], str | None], ...] = (
    (
        re.compile(r"constants\.pkl"),
        "a TorchScript archive: a program with its weights. " + _TRUST + "{torchscript}",
    ),
    (re.compile(r"data\.pkl"), None),
    (
        re.compile(r".*archive_format"),
        "a program of torch.export. " + _TRUST + "{exported}",
    ),
    (re.compile(r".*\.npy"), "an archive of arrays that numpy.savez wrote. Save them as tensors: {arrays}"),
    (re.compile(r"model\.weights\.h5"), "a Keras model. Expected the PyTorch checkpoint of the network."),
    (
        re.compile(""),
        "a zip archive that torch.save did not write. Unpack it and export the checkpoint inside{instance}.",
    ),
)
"""Pattern of an entry, with or without its top folder -> kind of archive; the first match counts; None: checkpoint."""


def _zip_kind(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            inflated = [entry for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    except ZIP_DAMAGE:
        return _CUT
    inside = {*names, *(name.partition("/")[2] for name in names)}
    if inflated and "data.pkl" in inside and "constants.pkl" not in inside:
        return _COMPRESSED
    kind = next(kind for sign, kind in _ZIPS if not sign.pattern or any(map(sign.fullmatch, inside)))
    return kind and kind.format(**commands(path), instance=_instance(names, Path()))


def _instance(names: Collection[str], folder: Path) -> str:
    files = sorted(name for name in names if name.endswith(SUFFIXES))
    return f", for instance {folder / files[0]}" if files else ""
