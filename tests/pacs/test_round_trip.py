"""Exams go to the appliance as they do in a hospital; the results are looked for in the PACS's own study.

What a viewer would show is compared with what `glam-deploy run` finds in the same files.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from pacs.appliance import Appliance
from pacs.exams import ALL_VIEWS, exam_of, write_exam
from pacs.results import OF_A_VIEW, REPORTS, counts, current, evidence, mammograms, of_class, sources, text_of, truth
from pacs.senders import dcmsend, storescu
from pydicom import Dataset
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    JPEG2000Lossless,
    JPEGLSLossless,
    MammographyCADSRStorage,
    RLELossless,
    SegmentationStorage,
)
from support.orthanc import Orthanc, wait_for

from glam_deploy.cli.main import exit_code
from glam_deploy.networks import GLAM
from glam_deploy.records import View

Send = Callable[[Appliance, Orthanc, Sequence[Path]], None]


def by_storescu(appliance: Appliance, pacs: Orthanc, files: Sequence[Path]) -> None:
    pacs.upload(files)
    storescu(appliance, files)


def by_dcmsend(appliance: Appliance, pacs: Orthanc, files: Sequence[Path]) -> None:
    pacs.upload(files)
    dcmsend(appliance, files)


def by_orthanc(appliance: Appliance, pacs: Orthanc, files: Sequence[Path]) -> None:
    assert pacs.send_to_glam(pacs.upload(files))["FailedInstancesCount"] == 0


def by_stow(appliance: Appliance, pacs: Orthanc, files: Sequence[Path]) -> None:
    pacs.upload(files)
    parts = b"".join(
        b"--part\r\nContent-Type: application/dicom\r\n\r\n" + file.read_bytes() + b"\r\n" for file in files
    )
    headers = {
        "Authorization": f"Bearer {appliance.token}",
        "Content-Type": 'multipart/related; type="application/dicom"; boundary=part',
        "Accept": "application/dicom+json",
    }
    answer = httpx.post(f"{appliance.url}/dicom-web/studies", content=parts + b"--part--\r\n", headers=headers)
    assert answer.status_code == httpx.codes.OK, answer.text


def results_of(appliance: Appliance, pacs: Orthanc, seed: str, *, reports: int = 1) -> list[Dataset]:
    """All of the exam's study as soon as the appliance says that so many result sets are delivered."""
    study = exam_of(seed).uid("study")
    query = "SELECT count(*) FROM parcel JOIN job ON job.id = job_id WHERE study_uid = ? AND parcel.state = 'delivered'"
    wait_for(lambda: appliance.count(query, study) == reports, f"{reports} result sets of exam {seed}")
    objects = pacs.retrieve(study)
    assert [counts(objects)[kind] for kind in REPORTS] == [reports] * len(REPORTS)
    return objects


def check_masks(objects: Sequence[Dataset], files: Sequence[Path], maps: Mapping[str, np.ndarray]) -> None:
    """One segmentation of each file, with the pixels above one half of the map found in it."""
    segmentations = {
        uid: seg for seg in of_class(objects, SegmentationStorage) for uid in sources([seg], seg.SOPClassUID)
    }
    assert len(segmentations) == len(of_class(objects, SegmentationStorage)) == len(files)
    for file in files:
        segmentation = segmentations[pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID]
        labels = [segment.SegmentLabel.lower() for segment in segmentation.SegmentSequence]
        assert all(name in label for name, label in zip(GLAM.classes, labels, strict=True)), labels
        expected = maps[file.stem] > 0.5
        assert expected.any(axis=(1, 2)).all(), "a truth without lesions proves nothing"
        np.testing.assert_array_equal(segmentation.pixel_array.astype(bool), expected)


@pytest.mark.parametrize("send", [by_storescu, by_dcmsend, by_orthanc, by_stow])
def test_four_views(send: Send, appliance: Appliance, pacs: Orthanc, bundle: Path, tmp_path: Path) -> None:
    seed = send.__name__
    files = write_exam(tmp_path / "exam", seed)
    send(appliance, pacs, files)
    objects = results_of(appliance, pacs, seed)
    sent = sorted(exam_of(seed).uid("image", view.value, "FOR PRESENTATION") for view in ALL_VIEWS)
    assert sorted(each.SOPInstanceUID for each in mammograms(objects)) == sent
    for sop_class in OF_A_VIEW:
        assert sources(objects, sop_class) == sent
    for sop_class in REPORTS:
        assert evidence(current(objects, sop_class)) >= set(sent)
    check_masks(objects, files, truth(bundle, files, tmp_path / "run"))


def test_results_belong_to_the_patient_and_study(appliance: Appliance, pacs: Orthanc, tmp_path: Path) -> None:
    by_storescu(appliance, pacs, files := write_exam(tmp_path, "belong", [View.L_MLO]))
    source = pydicom.dcmread(files[0], stop_before_pixels=True)
    objects = results_of(appliance, pacs, "belong")
    assert len(objects) == 1 + len(OF_A_VIEW) + len(REPORTS)
    for found in objects:
        for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID"):
            assert found[keyword] == source[keyword], (found.SOPClassUID.name, keyword)
        assert (found.SeriesInstanceUID == source.SeriesInstanceUID) == (found.SOPInstanceUID == source.SOPInstanceUID)


@pytest.mark.parametrize(
    ("syntax", "option"),
    [(JPEG2000Lossless, "-xv"), (JPEGLSLossless, "-xt"), (RLELossless, "-xr")],
    ids=lambda value: value.name if isinstance(value, pydicom.uid.UID) else "",
)
def test_compressed(
    syntax: pydicom.uid.UID, option: str, appliance: Appliance, pacs: Orthanc, bundle: Path, tmp_path: Path
) -> None:
    seed = f"compressed{option}"
    files = write_exam(tmp_path / "exam", seed, [View.R_MLO], transfer_syntax=syntax)
    storescu(appliance, files, option)
    (row,) = appliance.rows("SELECT * FROM instance WHERE study_uid = ?", exam_of(seed).uid("study"))
    assert row["transfer_syntax"] == syntax, "it was to be stored as sent"
    check_masks(results_of(appliance, pacs, seed), files, truth(bundle, files, tmp_path / "run"))


def test_monochrome1(appliance: Appliance, pacs: Orthanc, bundle: Path, tmp_path: Path) -> None:
    files = write_exam(tmp_path / "exam", "inverted", [View.L_CC], photometric="MONOCHROME1")
    storescu(appliance, files)
    check_masks(results_of(appliance, pacs, "inverted"), files, truth(bundle, files, tmp_path / "run"))


# what is not worked on


def edited(file: Path, **elements: object) -> Path:
    dataset = pydicom.dcmread(file)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.save_as(file)
    return file


def test_an_implant_gets_a_report_that_says_so(appliance: Appliance, pacs: Orthanc, tmp_path: Path) -> None:
    (file,) = write_exam(tmp_path, "implant", [View.L_CC])
    storescu(appliance, [edited(file, BreastImplantPresent="YES")])
    objects = results_of(appliance, pacs, "implant")
    assert not of_class(objects, SegmentationStorage)
    for sop_class in REPORTS:
        report = current(objects, sop_class)
        assert "implant" in text_of(report)
        assert evidence(report) == {exam_of("implant").uid("image", "L-CC", "FOR PRESENTATION")}


def test_for_processing_gets_a_report_that_says_so(appliance: Appliance, pacs: Orthanc, tmp_path: Path) -> None:
    storescu(appliance, write_exam(tmp_path, "processing", [View.L_CC], for_processing=True))
    objects = results_of(appliance, pacs, "processing")
    assert not of_class(objects, SegmentationStorage)
    assert "For Processing" in text_of(current(objects, MammographyCADSRStorage))


def test_doctor_finds_that_orthanc_accepts_all_that_is_sent(
    appliance: Appliance, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code(["doctor", "--json", "--config", str(appliance.config)])
    found = {each["what"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["target pacs"]["state"] == "ok", found["target pacs"]
    assert "answers and accepts seg, cad_sr, sr, sc" in found["target pacs"]["found"]


def test_a_for_processing_twin_is_no_failure(appliance: Appliance, pacs: Orthanc, bundle: Path, tmp_path: Path) -> None:
    (good,) = write_exam(tmp_path / "exam", "twins", [View.L_CC])
    (twin,) = write_exam(tmp_path / "twin", "twins", [View.L_CC], for_processing=True)
    storescu(appliance, [good, twin])
    objects = results_of(appliance, pacs, "twins")
    check_masks(objects, [good], truth(bundle, [good], tmp_path / "run"))
    report = current(objects, MammographyCADSRStorage)
    meanings = [element.value for element in report.iterall() if element.keyword == "CodeMeaning"]
    assert any(meaning.startswith("All algorithms succeeded") for meaning in meanings)
    assert "Failed Detections" not in meanings
    assert "[accept] of the configuration" in text_of(report)


def test_one_view_of_two_is_not_for_this_network(
    appliance: Appliance, pacs: Orthanc, bundle: Path, tmp_path: Path
) -> None:
    good, magnified = write_exam(tmp_path / "exam", "mixed", [View.L_CC, View.L_MLO])
    edited(magnified, EstimatedRadiographicMagnificationFactor=1.8)
    storescu(appliance, [good, magnified])
    objects = results_of(appliance, pacs, "mixed")
    check_masks(objects, [good], truth(bundle, [good], tmp_path / "run"))
    report = current(objects, MammographyCADSRStorage)
    images = {exam_of("mixed").uid("image", view, "FOR PRESENTATION") for view in ("L-CC", "L-MLO")}
    assert evidence(report) >= images
    assert "magnified 1.8 times" in text_of(report)


def test_tomosynthesis_is_taken_and_left_alone(appliance: Appliance, pacs: Orthanc, tmp_path: Path) -> None:
    (file,) = write_exam(tmp_path, "tomo", [View.L_CC])
    storescu(appliance, [edited(file, SOPClassUID=BreastTomosynthesisImageStorage, NumberOfFrames=1)])
    study = exam_of("tomo").uid("study")

    def ignored() -> bool:
        return appliance.rows("SELECT state FROM study WHERE study_uid = ?", study)[0]["state"] == "ignored"

    wait_for(ignored, "the study to be ignored")
    assert not appliance.count("SELECT count(*) FROM job WHERE study_uid = ?", study)
    assert pacs.instances(study) == []


# time and repetition


def test_a_late_view_replaces_the_reports_and_nothing_else(
    appliance: Appliance, pacs: Orthanc, bundle: Path, tmp_path: Path
) -> None:
    first, late = write_exam(tmp_path / "exam", "late", [View.L_CC, View.R_CC])
    storescu(appliance, [first])
    before = results_of(appliance, pacs, "late")
    storescu(appliance, [late])
    objects = results_of(appliance, pacs, "late", reports=2)
    check_masks(objects, [first, late], truth(bundle, [first, late], tmp_path / "run"))
    kept = {each.SOPInstanceUID for each in before}
    assert kept < {each.SOPInstanceUID for each in objects}
    for sop_class in REPORTS:
        assert evidence(current(objects, sop_class)) > evidence(current(before, sop_class))


def test_what_is_sent_twice_is_worked_on_once(appliance: Appliance, pacs: Orthanc, tmp_path: Path) -> None:
    files = write_exam(tmp_path, "twice", [View.L_CC, View.R_CC])
    storescu(appliance, files)
    before = {each.SOPInstanceUID for each in results_of(appliance, pacs, "twice")}
    storescu(appliance, files)
    storescu(appliance, files[:1])
    appliance.wait_idle()
    assert set(pacs.instances(exam_of("twice").uid("study"))) == before
    assert appliance.count("SELECT count(*) FROM job WHERE study_uid = ?", exam_of("twice").uid("study")) == 1


def test_results_that_come_back_are_not_worked_on(appliance: Appliance, pacs: Orthanc, tmp_path: Path) -> None:
    """A PACS that sends everything it gets on to everybody."""
    storescu(appliance, write_exam(tmp_path, "loop", [View.L_CC]))
    before = {each.SOPInstanceUID for each in results_of(appliance, pacs, "loop")}
    study = exam_of("loop").uid("study")
    (identifier,) = pacs.post("/tools/find", {"Level": "Study", "Query": {"StudyInstanceUID": study}})
    assert pacs.send_to_glam([identifier])["FailedInstancesCount"] == 0
    appliance.wait_idle()
    assert set(pacs.instances(study)) == before
    states = {
        row["state"] for row in appliance.rows("SELECT state FROM instance WHERE sop_class = ?", SegmentationStorage)
    }
    assert states <= {"skipped"}


def test_no_patient_in_logs_and_audit(appliance: Appliance, pacs: Orthanc, tmp_path: Path) -> None:
    """Nor their UIDs. Pages and metrics have tests of their own."""
    storescu(appliance, write_exam(tmp_path, "canary", [View.L_CC]))
    results_of(appliance, pacs, "canary")
    said = appliance.log() + "\n".join(path.read_text() for path in (appliance.data / "audit").glob("*.jsonl"))
    said += appliance.get("/metrics").text
    for secret in (
        "CANARY",
        exam_of("canary").uid("study"),
        exam_of("canary").uid("image", "L-CC", "FOR PRESENTATION"),
    ):
        assert secret not in said
