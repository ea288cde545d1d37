"""What is written, judged by dicom3tools and dcmtk."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mammograms import breast, write_mg
from pydicom import dcmread, uid

from glam_deploy.dicom.mammography import Encoding, Exam, build_view, write_view
from glam_deploy.errors import DicomError
from glam_deploy.records import View


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian package dicom3tools) is not installed")
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("for_processing", [False, True])
@pytest.mark.parametrize("view", View)
def test_dciodvfy_finds_no_error(tmp_path: Path, view: View, for_processing: bool, photometric: str) -> None:
    path = write_mg(tmp_path / "view.dcm", view=view, for_processing=for_processing, photometric=photometric)
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert lines[0] == f"MammographyImageForPr{'ocessing' if for_processing else 'esentation'}"
    assert [line for line in lines if line.startswith(("Error", "Warning"))] == []


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian package dicom3tools) is not installed")
@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.ExplicitVRBigEndian])
def test_dciodvfy_finds_no_error_in_compressed_copies(tmp_path: Path, syntax: uid.UID) -> None:
    path = write_mg(tmp_path / "view.dcm", syntax=syntax)
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
    assert "Error" not in done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("dcmftest") is None, reason="dcmftest (Debian package dcmtk) is not installed")
def test_dcmftest_takes_it_for_a_dicom_file(tmp_path: Path) -> None:
    path = write_mg(tmp_path / "view.dcm")
    assert subprocess.run(["dcmftest", str(path)], capture_output=True, text=True, check=True).stdout.startswith("yes")


@pytest.mark.parametrize("series_per_view", [False, True])
def test_an_exam_is_one_study_and_the_same_each_time(series_per_view: bool) -> None:
    exam = Exam(seed="exam 7", series_per_view=series_per_view)
    first, second = ([build_view(breast(view), view=view, exam=exam) for view in View] for _ in range(2))
    assert len({view.StudyInstanceUID for view in first}) == 1
    assert len({view.SeriesInstanceUID for view in first}) == (4 if series_per_view else 1)
    assert len({view.SOPInstanceUID for view in first}) == 4
    assert [view.SOPInstanceUID for view in first] == [view.SOPInstanceUID for view in second]
    assert build_view(breast(View.L_CC), view=View.L_CC).StudyInstanceUID != first[0].StudyInstanceUID


def test_monochrome1_is_stored_inverted_and_the_patient_is_invented(tmp_path: Path) -> None:
    encoding = Encoding(photometric="MONOCHROME1", bits_stored=14)
    write_view(tmp_path / "view.dcm", breast(View.R_MLO), view=View.R_MLO, encoding=encoding)
    dataset = dcmread(tmp_path / "view.dcm")
    np.testing.assert_array_equal(dataset.pixel_array, 16383 - breast(View.R_MLO))
    assert (dataset.PatientName, dataset.PatientOrientation) == ("PHANTOM^GLAM", ["P", "F"])


@pytest.mark.parametrize(
    "pixels", [np.full((4, 4), 4096, np.uint16), np.zeros((4, 4), np.int16), np.zeros((2, 4, 4), np.uint16)]
)
def test_pixels_that_do_not_fit_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    with pytest.raises(DicomError, match="expected uint8 or uint16"):
        write_view(tmp_path / "view.dcm", pixels, view=View.L_CC)
