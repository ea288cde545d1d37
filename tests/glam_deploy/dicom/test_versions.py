"""Elements in which two versions of an image differ: by value, whatever their encoding."""

from collections.abc import Callable
from pathlib import Path

import gdcm
import pytest
from mammograms import transcode, write_mg
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from glam_deploy.dicom.versions import differing_elements
from glam_deploy.errors import DicomError


def named(charset: str) -> Callable[[Dataset], None]:
    def edit(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet = charset
        dataset.PatientName = "M\u00fcller^Zo\u00eb"
        dataset.OtherPatientIDsSequence = [Dataset()]
        dataset.OtherPatientIDsSequence[0].PatientID = "7"

    return edit


@pytest.mark.parametrize(
    "other",
    [
        lambda path: write_mg(path, named("ISO_IR 192")),
        lambda path: write_mg(path, named("ISO_IR 100"), syntax=ImplicitVRLittleEndian),
        lambda path: write_mg(path, named("ISO_IR 100"), syntax=ExplicitVRBigEndian),
        lambda path: transcode(write_mg(path, named("ISO_IR 100")), gdcm.TransferSyntax.JPEG2000Lossless),
    ],
)
def test_encodings_make_no_difference(tmp_path: Path, other: Callable[[Path], Path]) -> None:
    first = write_mg(tmp_path / "a.dcm", named("ISO_IR 100"))
    assert differing_elements(first, other(tmp_path / "b.dcm")) == ()


def changed(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(dataset, keyword, value)


def of_another_patient(dataset: Dataset) -> None:
    dataset.OtherPatientIDsSequence = [Dataset()]
    dataset.OtherPatientIDsSequence[0].PatientID = "8"


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (changed("PatientID", "other"), ("PatientID",)),
        (changed("StudyDate", "20200102"), ("StudyDate",)),
        (changed("ImagerPixelSpacing", [0.07, 0.08]), ("ImagerPixelSpacing",)),
        (changed("WindowCenter", 7), ("WindowCenter",)),
        (of_another_patient, ("OtherPatientIDsSequence",)),
        (changed("LossyImageCompression", "01"), ("LossyImageCompression",)),
        (changed("LossyImageCompression", ""), ()),
        (changed("AccessionNumber", None), ()),
        (changed("ProtocolName", "no result depends on it"), ()),
    ],
)
def test_values_that_results_depend_on(
    tmp_path: Path, edit: Callable[[Dataset], None], expected: tuple[str, ...]
) -> None:
    assert differing_elements(write_mg(tmp_path / "a.dcm"), write_mg(tmp_path / "b.dcm", edit)) == expected


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "b.dcm").write_bytes(b"none")
    with pytest.raises(DicomError):
        differing_elements(write_mg(tmp_path / "a.dcm"), tmp_path / "b.dcm")
