"""Corrections as other programs send them: another encoding of an image, and a rejection note."""

import subprocess
from io import BytesIO
from pathlib import Path

import pydicom
from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pacs.appliance import Appliance
from pacs.exams import exam_of, write_exam
from pacs.results import REPORTS, current, evidence, of_class
from pacs.senders import storescu
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid
from support.orthanc import Orthanc, wait_for

from glam_deploy.records import View

DELIVERED = "SELECT count(*) FROM parcel JOIN job ON job.id = job_id WHERE study_uid = ? AND parcel.state = 'delivered'"


def rejection(path: Path, image: Path) -> Path:
    """A Key Object Selection document by highdicom."""
    rejected = pydicom.dcmread(image)
    content = KeyObjectSelection(
        document_title=Code("113001", "DCM", "Rejected for Quality Reasons"), referenced_objects=[rejected]
    )
    KeyObjectSelectionDocument(
        evidence=[rejected], content=content, series_instance_uid=generate_uid(), series_number=99,
        sop_instance_uid=generate_uid(), instance_number=1, manufacturer="other", institution_name="other",
    ).save_as(path)  # fmt: skip
    return path


def test_a_rejected_image_leaves_the_current_reports(appliance: Appliance, pacs: Orthanc, tmp_path: Path) -> None:
    study = exam_of("rejected").uid("study")
    left, right = write_exam(tmp_path / "exam", "rejected", [View.L_CC, View.R_CC])
    pacs.upload([left, right])
    storescu(appliance, [left, right])
    wait_for(lambda: appliance.count(DELIVERED, study) == 1, "the first result set")
    uids = {path: pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in (left, right)}
    first = pacs.retrieve(study)
    for sop_class in REPORTS:
        assert evidence(of_class(first, sop_class)[0]) >= set(uids.values())

    storescu(appliance, [rejection(tmp_path / "note.dcm", right)])
    wait_for(lambda: appliance.count(DELIVERED, study) == 2, "the result set without the rejected image")
    second = pacs.retrieve(study)
    for sop_class in REPORTS:
        assert len(of_class(second, sop_class)) == 2
        assert uids[left] in evidence(current(second, sop_class))
        assert uids[right] not in evidence(current(second, sop_class))


def test_another_encoding_of_an_image_is_acknowledged_and_changes_nothing(
    appliance: Appliance, pacs: Orthanc, tmp_path: Path
) -> None:
    study = exam_of("encoded").uid("study")
    (plain,) = write_exam(tmp_path / "exam", "encoded", [View.L_CC])
    pacs.upload([plain])
    storescu(appliance, [plain])
    wait_for(lambda: appliance.count(DELIVERED, study) == 1, "the result set")
    compressed = tmp_path / "jpeg-ls.dcm"
    subprocess.run(["dcmcjpls", plain, compressed], check=True)
    assert pydicom.dcmread(BytesIO(compressed.read_bytes())).SOPInstanceUID == pydicom.dcmread(plain).SOPInstanceUID
    storescu(appliance, [compressed], "-xt")
    assert appliance.count("SELECT count(*) FROM event WHERE study_uid = ? AND what = 'same image'", study) == 1
    assert appliance.count("SELECT count(*) FROM quarantine") == 0
    appliance.wait_idle()
    assert appliance.count(DELIVERED, study) == 1
