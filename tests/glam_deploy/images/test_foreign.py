"""Files of other kinds, as other programs write them: each is called by its name, with what turns it into an image."""

import bz2
import gzip
import io
import lzma
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from mammograms import breast, write_mg
from PIL import Image
from pydicom import dcmread, dcmwrite, uid
from pydicom.dataset import Dataset, FileMetaDataset

from glam_deploy.dicom.read import read_view
from glam_deploy.errors import InputError, NotForThisNetwork
from glam_deploy.images import foreign, image_files
from glam_deploy.input_files import find_inputs
from glam_deploy.reading import read
from glam_deploy.records import View
from glam_deploy.signatures import SIGNATURES, Kind, may_hold_image
from glam_export.checkpoint import foreign as checkpoints

GREY = breast(View.L_CC, bits=8)


def _zip(path: Path) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.write(write_mg(path.with_suffix(".x")), "a.dcm")
    return out.getvalue()


def _npz(save: Callable[..., None]) -> Callable[[Path], bytes]:
    def make(_: Path) -> bytes:
        out = io.BytesIO()
        save(out, left=GREY)
        return out.getvalue()

    return make


def _tar_gz(path: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        archive.add(write_mg(path.with_suffix(".x")))
    return out.getvalue()


def _tar(path: Path) -> bytes:
    return gzip.decompress(_tar_gz(path))


def _picture(kind: str) -> Callable[[Path], bytes]:
    def make(_: Path) -> bytes:
        out = io.BytesIO()
        Image.fromarray(GREY).save(out, kind)
        return out.getvalue()

    return make


def _data_set(syntax: uid.UID) -> Callable[[Path], bytes]:
    """As toolkits write it that leave the header out."""

    def make(path: Path) -> bytes:
        dataset = dcmread(write_mg(path.with_suffix(".x"), syntax=syntax))
        dataset.file_meta, dataset.preamble = FileMetaDataset(), None
        out = io.BytesIO()
        dcmwrite(out, dataset, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
        return out.getvalue()

    return make


def _after(skipped: int) -> Callable[[Path], bytes]:
    return lambda path: write_mg(path.with_suffix(".x")).read_bytes()[skipped:]


KINDS: dict[str, tuple[Callable[[Path], bytes], str, str]] = {
    "empty": (lambda _: b"", "empty", "copy it again"),
    "zip": (_zip, "zip archive", "unpack"),
    "npz": (_npz(np.savez), "numpy.savez", "numpy.save('image.npy'"),
    "compressed npz": (_npz(np.savez_compressed), "numpy.savez", "numpy.save('image.npy'"),
    "gzip": (lambda path: gzip.compress(write_mg(path.with_suffix(".x")).read_bytes()), "gzip", "gunzip"),
    "tar.gz": (_tar_gz, "gzip", "unpack"),
    "bzip2": (lambda _: bz2.compress(b"x" * 500), "archive", "unpack"),
    "xz": (lambda _: lzma.compress(b"x" * 500), "archive", "unpack"),
    "lzma": (lambda _: lzma.compress(b"x" * 500, lzma.FORMAT_ALONE), "archive (compress, lzip", "unpack"),
    "compress": (lambda _: bytes.fromhex("1f9d90") + bytes(range(256)), "archive (compress, lzip", "unpack"),
    "lz4": (lambda _: bytes.fromhex("04224d18") + bytes(100), "archive (compress, lzip", "unpack"),
    "cpio": (lambda _: b"070701" + b"0" * 200, "archive (compress, lzip", "unpack"),
    "cab": (lambda _: b"MSCF" + bytes(200), "archive (compress, lzip", "unpack"),
    "lzh": (lambda _: b"\x20\x5a-lh5-" + bytes(200), "archive (compress, lzip", "unpack"),
    "tar": (_tar, "tar archive", "unpack"),
    "json": (lambda _: b'{"error": "not found"}', "JSON file", "download"),
    "jpeg": (_picture("JPEG"), "JPEG picture", "original mammogram"),
    "jpeg 2000": (_picture("JPEG2000"), "JPEG 2000", "original mammogram"),
    "bare jpeg 2000": (lambda _: bytes(cv2.imencode(".jp2", GREY)[1])[85:], "JPEG 2000", "original mammogram"),
    "bmp": (_picture("BMP"), "BMP", "original mammogram"),
    "gif": (_picture("GIF"), "GIF", "original mammogram"),
    "webp": (_picture("WEBP"), "WebP", "original mammogram"),
    "pgm": (_picture("PPM"), "PGM", "original mammogram"),
    "pdf": (_picture("PDF"), "PDF", "original mammogram"),
    "nifti": (lambda _: (348).to_bytes(4, "little") + bytes(600), "NIfTI", "DICOM files"),
    "hdf5": (lambda _: b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5", "numpy.save"),
    "bigtiff": (lambda _: b"II+\0\x08\0\0\0" + bytes(100), "BigTIFF", "classic TIFF"),
    "lfs": (lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n", "Git LFS", "git lfs pull"),
    "html": (lambda _: b"\n<!DOCTYPE html><html><body>403 Forbidden</body></html>", "web page", "download"),
    "xml": (lambda _: b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "web page", "download"),
    "pickle": (lambda _: pickle.dumps({"a": 1}), "pickle", "--weights"),
    "implicit data set": (_data_set(uid.ImplicitVRLittleEndian), "without the header", "dcmconv"),
    "explicit data set": (_data_set(uid.ExplicitVRLittleEndian), "without the header", "dcmconv"),
    "big-endian data set": (_data_set(uid.ExplicitVRBigEndian), "without the header", "dcmconv"),
    "no header": (_after(132), "without the header", "dcmconv"),
    "no preamble": (_after(128), "a DICOM file without its preamble", "bytes(128)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".dcm", ".png", ""])
def test_a_foreign_file_is_called_by_its_name(tmp_path: Path, kind: str, suffix: str) -> None:
    make, name, remedy = KINDS[kind]
    path = tmp_path / f"L-CC{suffix}"
    path.write_bytes(make(path))
    with pytest.raises(InputError) as caught:
        read(path)
    assert name in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    "start", [b"hello, world", b"\0" * 200, b"1.2.840", b"\x08\x01\x02\x03rest of it", b"\xff\xfe\0\0"]
)
def test_what_is_not_known_is_given_no_name(start: bytes) -> None:
    assert foreign.kind_of(start) is None


@pytest.mark.parametrize("kind", KINDS)
def test_all_but_documents_may_hold_images(tmp_path: Path, kind: str) -> None:
    content = KINDS[kind][0](tmp_path / "L-CC")
    assert may_hold_image(content[: foreign.HEAD]) == (kind not in {"pdf", "json", "html", "xml", "pickle"})


GERMAN = "Für den Betrachter: Röntgenbilder liegen in \tDICOM.\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "cp437"])
def test_a_text_is_no_image(encoding: str) -> None:
    assert not may_hold_image(GERMAN.encode(encoding))
    assert not may_hold_image("日本語".encode("iso2022_jp")), "with escape sequences"


@pytest.mark.parametrize("content", [bytes(512), b"\xff" * 511 + b"\0", bytes(range(256)) * 2, b"\x7fELF\2\1\1\0"])
def test_bytes_of_no_known_kind_may_be_an_image(content: bytes) -> None:
    assert may_hold_image(content)


def test_every_kind_has_a_name_and_a_remedy_for_images_and_for_checkpoints() -> None:
    assert {*foreign.KINDS} == {*Kind} - {*image_files.READ, Kind.DICOM}
    assert {*checkpoints.KINDS} == {*Kind} - {Kind.ZIP, Kind.NPZ, Kind.PICKLE}
    assert {*SIGNATURES} == {*Kind}


def test_no_image_has_another_name(tmp_path: Path) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        np.save(file, GREY)
    cv2.imwrite(str(tmp_path / "a.png"), GREY)
    cv2.imwrite(str(tmp_path / "a.tif"), GREY)
    write_mg(tmp_path / "a.dcm")
    for path in tmp_path.iterdir():
        assert foreign.kind_of(path.read_bytes()[: foreign.HEAD]) is None, path.name


@pytest.mark.parametrize("kind", ["implicit data set", "explicit data set", "no header"])
@pytest.mark.skipif(not shutil.which("dcmconv"), reason="dcmconv (Debian package dcmtk) is not installed")
def test_the_tool_that_is_named_helps(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "in.dcm"
    path.write_bytes(KINDS[kind][0](path))
    subprocess.run(["dcmconv", path, tmp_path / "out.dcm"], check=True)
    np.testing.assert_array_equal(read_view(tmp_path / "out.dcm").pixels, breast(View.L_CC))


def test_the_preamble_is_put_before_a_file_as_the_message_says(tmp_path: Path) -> None:
    """The program of DCMTK, which the message does not name, cannot read such a file."""
    whole = write_mg(tmp_path / "whole.dcm").read_bytes()
    (tmp_path / "in.dcm").write_bytes(whole[128:])
    code = foreign.KINDS[Kind.NO_PREAMBLE].remedy.partition("with Python: ")[2]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "out.dcm").read_bytes() == whole
    if shutil.which("dcmconv"):
        tried = subprocess.run(["dcmconv", "in.dcm", "other.dcm"], cwd=tmp_path, check=False, capture_output=True)
        assert tried.returncode != 0


def test_a_dicomdir_points_to_its_folder(tmp_path: Path) -> None:
    index = Dataset()
    index.FileSetID, index.DirectoryRecordSequence = "EXAM", []
    index.file_meta = FileMetaDataset()
    index.file_meta.MediaStorageSOPClassUID = uid.MediaStorageDirectoryStorage
    index.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    index.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    index.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    write_mg(tmp_path / "IM1")
    with pytest.raises(NotForThisNetwork, match=r"DICOMDIR.*give the folder"):
        read(tmp_path / "DICOMDIR")
    assert find_inputs([tmp_path]) == [tmp_path / "IM1"]


def test_a_folder_is_called_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the path is a folder"):
        read(tmp_path)
