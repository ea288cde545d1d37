"""Whatever is read is read alike, and what is no image's source is told apart."""

import gzip
import io
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from mammograms import breast, write_mg
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, RLELossless

from glam_deploy.dicom.mammography import build_view
from glam_deploy.errors import DicomError, InputError, NotForThisNetwork, UsageError
from glam_deploy.reading import as_file, read, read_standardized
from glam_deploy.records import Mammogram, View


def npy(path: Path) -> Path:
    np.save(path, breast(View.L_CC))
    return path


def assert_alike(found: Mammogram, path: Path, name: str) -> None:
    expected = read(path)
    np.testing.assert_array_equal(found.pixels, expected.pixels, strict=True)
    assert (found.view, found.horizontal_flip) == (expected.view, expected.horizontal_flip)
    assert found.source.name == name
    assert (found.source.uids, found.source.facts) == (expected.source.uids, expected.source.facts)
    assert found.notices == expected.notices


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_bytes(tmp_path: Path, make: Any) -> None:
    path = write_mg(tmp_path / "a.dcm")
    assert_alike(read(make(path.read_bytes())), path, "bytes")


def test_binary_files(tmp_path: Path) -> None:
    path = write_mg(tmp_path / "a.dcm")
    with path.open("rb") as file:
        assert_alike(read(file), path, "a.dcm")
        assert not file.closed
    with path.open("rb", buffering=0) as file:
        assert_alike(read(file), path, "a.dcm")
    with os.fdopen(os.open(path, os.O_RDONLY), "rb") as file:
        assert_alike(read(file), path, "file")
    assert_alike(read(io.BytesIO(path.read_bytes())), path, "file")
    with tempfile.TemporaryFile() as file:
        file.write(b"before" + path.read_bytes())
        file.seek(6)
        assert_alike(read(file), path, "file")
    (packed := tmp_path / "a.gz").write_bytes(gzip.compress(path.read_bytes()))
    with gzip.open(packed) as file:
        assert_alike(read(file), path, "a.gz")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "inside/a.dcm")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive, archive.open("inside/a.dcm") as member:
        assert_alike(read(member), path, "a.dcm")


def test_a_file_tells_its_view_by_its_name(tmp_path: Path) -> None:
    path = npy(tmp_path / "1_L-CC.npy")
    with path.open("rb") as file:
        assert_alike(read(file), path, path.name)
    with pytest.raises(InputError, match="neither a file name nor the caller states it"):
        read(path.read_bytes())
    assert read(path.read_bytes(), view="L-CC").view is View.L_CC
    with path.rename(tmp_path / "1_L-CC_mask.npy").open("rb") as file, pytest.raises(NotForThisNetwork):
        read(file)


def test_paths_of_every_kind(tmp_path: Path) -> None:
    path = npy(tmp_path / "1_L-CC.npy")

    class Named:
        def __fspath__(self) -> str:
            return str(path)

    class InBytes:
        def __fspath__(self) -> bytes:
            return os.fsencode(path)

    with os.scandir(tmp_path) as entries:
        (entry,) = entries
    for given in (path, str(path), Named(), InBytes(), entry):
        assert_alike(read(given), path, path.name)


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEGLSLossless])
def test_datasets(tmp_path: Path, syntax: Any) -> None:
    path = write_mg(tmp_path / "a.dcm", **({"syntax": syntax} if syntax else {}))
    for dataset in (pydicom.dcmread(path), pydicom.dcmread(path, defer_size=100)):
        before = repr(dataset), repr(dataset.file_meta)
        assert_alike(read(dataset), path, "a.dcm")
        assert (repr(dataset), repr(dataset.file_meta)) == before
    assert_alike(read(pydicom.dcmread(io.BytesIO(path.read_bytes()))), path, "dataset")


def test_a_dataset_that_was_never_a_file() -> None:
    pixels = breast(View.L_CC)
    found = read(build_view(pixels, view=View.L_CC))
    np.testing.assert_array_equal(found.pixels, pixels)
    assert (found.view, found.source.name) == (View.L_CC, "dataset")


def test_datasets_that_cannot_be_read() -> None:
    dataset = build_view(breast(View.L_CC), view=View.L_CC)
    with pytest.raises(DicomError, match="contradictory"):
        read(dataset, view="R-CC")
    del dataset.file_meta.TransferSyntaxUID
    with pytest.raises(UsageError, match=r"no TransferSyntaxUID.*event\.file_meta"):
        read(dataset)
    with pytest.raises(UsageError, match="no TransferSyntaxUID"):
        read(Dataset())


@pytest.mark.parametrize("source", [None, 3, 1.5, [b""], np.zeros((3, 4)), object(), View, Mammogram])
def test_what_is_no_source(source: Any) -> None:
    with pytest.raises(UsageError, match="expected a path, bytes, a file opened in binary mode or a pydicom Dataset"):
        read(source)


def test_files_in_a_wrong_state(tmp_path: Path) -> None:
    path = npy(tmp_path / "1_L-CC.npy")
    with path.open("rb") as file:
        pass
    with pytest.raises(UsageError, match="is closed"):
        read(file)
    with (tmp_path / "text").open("w+") as file, pytest.raises(UsageError, match="open it in binary mode"):
        file.write("text")
        file.seek(0)
        read(file)
    with path.open() as file, pytest.raises((UsageError, InputError), match="binary mode"):
        read(file)
    with path.open("rb") as file, pytest.raises(UsageError, match=r"at its end \(byte \d+\): call seek\(0\)"):
        file.read()
        read(file)
    with (tmp_path / "new").open("wb") as file, pytest.raises(InputError, match="cannot be read"):
        read(file)
    with gzip.open(path) as file, pytest.raises(InputError, match=r"\(BadGzipFile\): check that its content"):
        read(file)
    for nothing in (b"", io.BytesIO()):
        with pytest.raises(InputError, match=r"the file is empty|expected DICOM, PNG, TIFF or npy"):
            read(nothing)


def test_a_file_without_end_is_not_read_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glam_deploy.reading.MAX_BYTES", 1 << 26)
    with Path("/dev/zero").open("rb") as file, pytest.raises(InputError, match="more than 67108864 bytes"):
        read(file)


@pytest.mark.skipif(sys.platform != "linux", reason="memfd_create(2) is Linux's")
def test_bytes_reach_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with as_file(b"abc") as path:
        assert path.read_bytes() == b"abc"
        assert "memfd" in str(path.readlink())
        assert list(tmp_path.iterdir()) == []
    assert not path.exists()


def test_elsewhere_bytes_are_a_file_of_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with as_file(b"abc") as path:
        assert path.read_bytes() == b"abc"
        assert path.parent.stat().st_mode & 0o77 == 0
    assert not path.exists()


# the view of a DICOM object, by its tags and by its name


def without_view(dataset: Dataset) -> None:
    for keyword in ("ImageLaterality", "ViewCodeSequence", "PatientOrientation"):
        delattr(dataset, keyword)


def test_a_name_tells_the_view_where_the_tags_do_not(tmp_path: Path) -> None:
    path = write_mg(tmp_path / "20586908_6c613a14b80a8591_MG_L_ML_ANON.dcm", without_view)
    found = read(path)
    assert found.view is View.L_MLO
    assert "view-from-name" in [notice.code for notice in found.notices]
    with pytest.raises(DicomError, match="is missing"):
        read(path.read_bytes())
    with pytest.raises(InputError, match="different views"):
        read(path.rename(tmp_path / "L-CC_R-CC.dcm"))
    assert read(tmp_path / "L-CC_R-CC.dcm", view="L-CC").view is View.L_CC


def test_a_name_must_agree_with_the_tags_that_are_there(tmp_path: Path) -> None:
    def without_projection(dataset: Dataset) -> None:
        del dataset.ViewCodeSequence

    assert read(write_mg(tmp_path / "L-CC.dcm", without_projection)).view is View.L_CC
    with pytest.raises(DicomError, match="contradictory"):
        read(write_mg(tmp_path / "R-CC.dcm", without_projection))


def test_tags_count_before_the_name_and_a_contradiction_is_told(tmp_path: Path) -> None:
    found = read(write_mg(tmp_path / "R-MLO.dcm"))
    assert found.view is View.L_CC
    (notice,) = [notice for notice in found.notices if notice.code == "view-name-differs"]
    assert notice.message == ("the file name has the view R-MLO, the DICOM tags L-CC: the view of the tags was used")
    for name in ("L-CC.dcm", "a.dcm", "L-CC_R-CC.dcm"):
        assert "view-name-differs" not in [notice.code for notice in read(write_mg(tmp_path / name)).notices]


# inputs that are cropped already


def test_cropped_pixels_are_standardized_here(tmp_path: Path) -> None:
    import cv2

    pixels = np.zeros((2944, 1920), np.uint16)
    pixels[300:2000, :1200] = np.random.default_rng(1).integers(500, 4000, (1700, 1200))
    expected = (pixels - pixels.mean()) / pixels.std()
    for name in ("a.png", "a.tif"):
        cv2.imwrite(str(tmp_path / name), pixels)
    np.save(tmp_path / "a.npy", pixels)
    np.save(tmp_path / "float.npy", expected)
    for name in ("a.png", "a.tif", "a.npy", "float.npy"):
        found = read_standardized(tmp_path / name, view=View.R_CC)
        np.testing.assert_allclose(found.image, expected, atol=2e-6)
        assert (found.image.dtype, found.view, found.source.name) == (np.float32, View.R_CC, name)
        assert [n.code for n in found.notices] == ([] if name == "float.npy" else ["standardized-here"])


def test_what_is_not_cropped_and_standardized(tmp_path: Path) -> None:
    import cv2

    ramp = np.arange(2944 * 1920, dtype=np.uint32).reshape(2944, 1920)
    images = {
        "8-bit.png": (ramp % 255).astype(np.uint8),
        "flat.png": np.full((2944, 1920), 7, np.uint16),
        "other.png": (ramp[:, :1919] % 60000).astype(np.uint16),
        "raw.tif": (ramp % 60000).astype(np.float32),
    }
    for name, image in images.items():
        cv2.imwrite(str(tmp_path / name), image)
        with pytest.raises(InputError, match=r"16 bits|constant|not standardized"):
            read_standardized(tmp_path / name)
    cv2.imwrite(str(tmp_path / "x_mask.png"), (ramp % 60000).astype(np.uint16))
    with pytest.raises(NotForThisNetwork, match="not a mammogram"):
        read_standardized(tmp_path / "x_mask.png")
    with pytest.raises(InputError, match="is DICOM"):
        read_standardized(write_mg(tmp_path / "a.dcm"))
