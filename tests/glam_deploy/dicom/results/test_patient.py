"""Patient and study stand in every object byte for byte as in the source, whatever a decoder would make of them."""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from mammograms import write_mg
from pydicom import dcmread, uid
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from support.results import ALGORITHM, done, finding, identity, picture

from glam_deploy.dicom.results import presentation_state as pr
from glam_deploy.dicom.results.cad_sr import cad_sr
from glam_deploy.dicom.results.measurement_report import measurement_report
from glam_deploy.dicom.results.objects import save
from glam_deploy.dicom.results.regions import summarize
from glam_deploy.dicom.results.secondary_capture import secondary_capture
from glam_deploy.dicom.results.segmentation import fractional_segmentation, segmentation
from glam_deploy.errors import DicomError

YAMADA = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
"""PS3.5 example H.3.1."""
HALF_WIDTH = b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3"
"""PS3.5 example H.3.2: half-width katakana, in ISO_IR 13."""


def raw(dataset: Dataset, keyword: str, value: bytes, vr: str) -> None:
    """Set the bytes of an element; pydicom writes them as they are."""
    tag = DataElement(keyword, vr, None).tag
    dataset[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)


def japanese(dataset: Dataset) -> None:
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    raw(dataset, "PatientName", YAMADA, "PN")
    raw(dataset, "StudyDescription", b"\x1b$BF}K<\x1b(B", "LO")
    dataset.set_original_encoding(False, True, dataset._character_set)


def objects(path: Path) -> Iterator[Dataset]:
    """Each kind of object that is made of a view."""
    found, outcome = finding(path), done(path)
    yield segmentation(found, ALGORITHM, identity(1))
    yield fractional_segmentation(found, ALGORITHM, identity(2))
    yield secondary_capture(found, picture(), ALGORITHM, identity(3))
    yield cad_sr([outcome], ALGORITHM, identity(4))
    yield measurement_report([outcome], ALGORITHM, identity(5))
    yield pr.presentation_state(path, summarize(found, ALGORITHM, segmentation=None), ALGORITHM, identity(6))


def element_bytes(dataset: Dataset, keyword: str) -> bytes | None:
    """As they lie in the file."""
    element = dataset.get_item(keyword)
    return element.value if element is not None else None


@pytest.mark.parametrize(
    "syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian]
)
def test_japanese_names_are_copied_byte_for_byte(tmp_path, syntax):
    path = write_mg(tmp_path / "image.dcm", japanese)
    path.write_bytes(recoded(path, syntax))
    for made in objects(path):
        save(made, tmp_path / "made.dcm")
        read = dcmread(tmp_path / "made.dcm")
        assert element_bytes(read, "PatientName") == YAMADA
        assert read.StudyDescription == "乳房"
        assert read.PatientName.ideographic == "山田^太郎"
        assert read.SpecificCharacterSet == ["", "ISO 2022 IR 87"]


def recoded(path: Path, syntax: uid.UID) -> bytes:
    """The file in another transfer syntax, text left as it is."""
    dataset, file = dcmread(path), BytesIO()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.set_original_encoding(syntax.is_implicit_VR, True, dataset._character_set)
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def katakana(dataset: Dataset) -> None:
    """A character set whose bytes a decoder does not give back as they were."""
    dataset.SpecificCharacterSet = ["ISO 2022 IR 13", "ISO 2022 IR 87"]
    raw(dataset, "PatientName", HALF_WIDTH, "PN")
    dataset.set_original_encoding(False, True, dataset._character_set)


def broken(dataset: Dataset) -> None:
    """What real archives hold: values that no validator would pass, and a character set that nobody knows."""
    dataset.SpecificCharacterSet = "ISO 8859"
    raw(dataset, "PatientName", b"M\xfcller^\xff\x00\x01", "PN")
    raw(dataset, "PatientBirthDate", b"19XX0000", "DA")
    raw(dataset, "PatientSex", b"female", "CS")
    raw(dataset, "PatientAge", b"54", "AS")
    raw(dataset, "StudyTime", b"25:61 ", "TM")
    dataset.set_original_encoding(False, True, dataset._character_set)


def nested(dataset: Dataset) -> None:
    japanese(dataset)
    item = Dataset()
    raw(item, "PatientID", b"\x1b$BF}K<\x1b(B", "LO")
    item.TypeOfPatientID = "TEXT"
    item.add_new(0x00091001, "LO", "private")
    item.set_original_encoding(False, True, item._character_set)
    dataset.OtherPatientIDsSequence = [item]
    dataset.PregnancyStatus = 4
    dataset.add_new(0x00110010, "LO", "SOMEBODY")


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, while the source is written
@pytest.mark.parametrize("edit", [katakana, broken, nested])
def test_bytes_stay_what_they_are(tmp_path, edit):
    path = write_mg(tmp_path / "image.dcm", edit)
    source = dcmread(path)
    for made in objects(path):
        save(made, tmp_path / "made.dcm")
        read = dcmread(tmp_path / "made.dcm")
        for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "PatientAge", "StudyTime", "PregnancyStatus"):
            assert element_bytes(read, keyword) == element_bytes(source, keyword)
        if edit is nested:
            (item,), (original,) = read.OtherPatientIDsSequence, source.OtherPatientIDsSequence
            assert element_bytes(item, "PatientID") == element_bytes(original, "PatientID") == b"\x1b$BF}K<\x1b(B"
            assert 0x00091001 not in item and 0x00110010 not in read


@pytest.mark.parametrize("syntax", [uid.ExplicitVRBigEndian, uid.ImplicitVRLittleEndian])
def test_numbers_keep_their_value_in_every_encoding(tmp_path, syntax):
    path = write_mg(tmp_path / "image.dcm", lambda dataset: setattr(dataset, "PregnancyStatus", 4), syntax=syntax)
    for made in objects(path):
        assert made.PregnancyStatus == 4 and made.PatientName == "PHANTOM^GLAM"


def test_what_a_source_lacks_is_there_and_empty(tmp_path):
    names = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber")
    rest = ("ReferringPhysicianName", "StudyID")
    path = write_mg(tmp_path / "image.dcm", lambda dataset: [delattr(dataset, name) for name in (*names, *rest)])
    for made in objects(path):
        assert all(name in made and not made[name].value for name in (*names, *rest))
        assert "SpecificCharacterSet" not in made and "TimezoneOffsetFromUTC" not in made


@pytest.mark.parametrize(
    ("zone", "date", "time"),
    [("+0900", "20260102", "120405"), ("-0500", "20260101", "220405"), ("nine", "20260102", "030405")],
)
def test_dates_are_in_the_time_zone_of_the_source(tmp_path, zone, date, time):
    path = write_mg(tmp_path / "image.dcm", lambda dataset: setattr(dataset, "TimezoneOffsetFromUTC", zone))
    for made in objects(path):
        assert (made.InstanceCreationDate, made.InstanceCreationTime) == (date, time)
        assert made.TimezoneOffsetFromUTC == zone


def test_a_lossy_past_is_told_again(tmp_path):
    def lossy(dataset: Dataset) -> None:
        dataset.LossyImageCompression, dataset.LossyImageCompressionRatio = "01", ["10", "12.5"]
        dataset.LossyImageCompressionMethod = ["ISO_10918_1", "ISO_15444_1"]

    path = write_mg(tmp_path / "image.dcm", lossy)
    for made in objects(path):
        if made.Modality in ("SEG", "OT"):
            assert (made.LossyImageCompression, made.LossyImageCompressionRatio) == ("01", [10, 12.5])
            assert made.LossyImageCompressionMethod == ["ISO_10918_1", "ISO_15444_1"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, while the source is written
def test_a_ratio_that_is_no_number_is_no_hindrance(tmp_path):
    def odd(dataset: Dataset) -> None:
        dataset.LossyImageCompression = "01"
        raw(dataset, "LossyImageCompressionRatio", b"ten ", "DS")
        dataset.set_original_encoding(False, True, dataset._character_set)

    for made in objects(write_mg(tmp_path / "image.dcm", odd)):
        assert element_bytes(made, "LossyImageCompressionRatio") == (
            b"ten " if made.Modality in ("SEG", "OT") else None
        )


def test_the_same_inputs_give_the_same_bytes_and_a_later_date_changes_dates_alone(source):
    later = identity(9).created.replace(year=2027)
    for first, second in zip(objects(source), objects(source), strict=True):
        assert encoded(first) == encoded(second)
    first = segmentation(finding(source), ALGORITHM, identity(1))
    second = segmentation(finding(source), ALGORITHM, replace(identity(1), created=later))
    assert {element.keyword for element in first if second[element.tag] != element} == {
        "InstanceCreationDate",
        "ContentDate",
    }


def test_every_object_says_what_made_it_and_what_it_is_not(source):
    for number, made in enumerate(objects(source), start=1):
        assert (made.SOPInstanceUID, made.SeriesInstanceUID) == (identity(number).sop_uid, identity(number).series_uid)
        assert made.StudyInstanceUID == dcmread(source).StudyInstanceUID
        assert (made.Manufacturer, made.DeviceSerialNumber) == ("glam-deploy", ALGORITHM.device_uid)
        assert made.SoftwareVersions == ["glam-deploy 1.2.3", ALGORITHM.checkpoint_sha256, "openvino fp32"]
        assert "Research use only. Not for diagnosis" in made.SeriesDescription
        told = made.ContributingEquipmentSequence[0].ContributionDescription
        facts = (ALGORITHM.checkpoint_sha256, ALGORITHM.engine_digest, ALGORITHM.gate, "benign: 0.5", "malignant: 0.4")
        assert all(fact in told for fact in facts)


def test_a_source_that_cannot_be_read_is_an_error_without_its_contents(tmp_path):
    path = tmp_path / "image.dcm"
    path.write_bytes(b"CANARY^NAME" * 99)
    with pytest.raises(DicomError) as caught:
        segmentation(finding(path), ALGORITHM, identity(1))
    assert "CANARY" not in str(caught.value)


def encoded(dataset: Dataset) -> bytes:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
