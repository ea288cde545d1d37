"""Rejection notes (IHE IOCM), written by highdicom: which images still count, and what becomes of results."""

from contextlib import closing
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid
from support.jobs import config_of, database_of, made, pixels_of, receive, rows, worked

from glam_deploy.appliance.config import Assemble, Config
from glam_deploy.appliance.ingest import Status
from glam_deploy.appliance.state import studies, study_detail
from glam_deploy.dicom.mammography import Exam, write_view
from glam_deploy.records import View

TARGET = '[[targets]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 104'
MG = "1.2.840.10008.5.1.4.1.1.1.2"
REASONS = {
    "113001": Code("113001", "DCM", "Rejected for Quality Reasons"),
    "113037": Code("113037", "DCM", "Rejected for Patient Safety Reasons"),
    "113038": Code("113038", "DCM", "Incorrect Modality Worklist Entry"),
    "113039": Code("113039", "DCM", "Data Retention Policy Expired"),
}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_of(tmp_path, TARGET)


def view_file(folder: Path, view: View, seed: str = "exam") -> bytes:
    path = folder / "view.dcm"
    write_view(path, pixels_of(view), view=view, exam=Exam(seed=seed))
    return path.read_bytes()


def note(title: Code, *files: bytes) -> bytes:
    """A Key Object Selection document on images."""
    images = [dcmread(BytesIO(file)) for file in files]
    for image in images:  # highdicom wants them
        image.AccessionNumber, image.PatientBirthDate = "", ""
    document = KeyObjectSelectionDocument(
        evidence=images, content=KeyObjectSelection(document_title=title, referenced_objects=images),
        series_instance_uid=generate_uid(), series_number=1, sop_instance_uid=generate_uid(), instance_number=1,
        manufacturer="other", institution_name="other",
    )  # fmt: skip
    out = BytesIO()
    document.save_as(out)
    return out.getvalue()


def referenced(config: Config) -> set[str]:
    """Images in the evidence of the latest CAD SR."""
    data = made(config)
    (key,) = rows(data, "SELECT key FROM job WHERE state = 'done' ORDER BY id DESC LIMIT 1")[0]
    evidence = dcmread(data.job_results(str(key)) / "cad_sr.dcm").CurrentRequestedProcedureEvidenceSequence
    items = [item for series in evidence[0].ReferencedSeriesSequence for item in series.ReferencedSOPSequence]
    return {item.ReferencedSOPInstanceUID for item in items if item.ReferencedSOPClassUID == MG}


def uid(file: bytes) -> str:
    return str(dcmread(BytesIO(file)).SOPInstanceUID)


def timeline(config: Config, what: str) -> list[object]:
    return [detail for (detail,) in rows(made(config), "SELECT detail FROM event WHERE what = ? ORDER BY id", what)]


@pytest.mark.parametrize("code", ["113001", "113037", "113038"])
def test_rejected_images_do_not_count_and_reports_are_superseded(tmp_path: Path, config: Config, code: str) -> None:
    left, right = (view_file(tmp_path, view) for view in (View.L_CC, View.R_CC))
    assert [receive(config, each).status for each in (left, right)] == [0, 0]
    worked(config)
    assert referenced(config) == {uid(left), uid(right)}
    assert receive(config, note(REASONS[code], right)).status == Status.SUCCESS
    assert rows(made(config), "SELECT state, reason FROM parcel") == [
        ("discarded", f"{REASONS[code].meaning} ({code}, DCM)")
    ]
    worked(config)
    assert referenced(config) == {uid(left)}
    assert timeline(config, "rejected") == [f"R-CC: {REASONS[code].meaning} ({code}, DCM)"]
    told = "".join(path.read_text() for path in made(config).audit.iterdir())
    assert '"event": "rejection"' in told
    assert f"({code}, DCM): 1 mammogram here" in told
    # what is still valid waits for delivery with the new reports, and nothing of the rejected image does
    waiting = rows(made(config), "SELECT path FROM parcel_object WHERE state = 'pending'")
    contents = [(made(config).root / str(path)).read_bytes() for (path,) in waiting]
    assert [uid(right).encode() in content for content in contents] == [False] * 4
    assert [uid(left).encode() in content for content in contents] == [True] * 4


def test_results_that_a_target_refused_cannot_be_sent_any_more(tmp_path: Path, config: Config) -> None:
    left, right = (view_file(tmp_path, view) for view in (View.L_CC, View.R_CC))
    assert [receive(config, each).status for each in (left, right)] == [0, 0]
    worked(config)
    rows(made(config), "UPDATE parcel SET state = 'dead'")
    assert receive(config, note(REASONS["113001"], right)).status == Status.SUCCESS
    assert rows(made(config), "SELECT state FROM parcel") == [("discarded",)]


def test_an_image_that_is_rejected_before_it_is_processed_leaves_the_study_as_it_was(
    tmp_path: Path, config: Config
) -> None:
    left, right = (view_file(tmp_path, view) for view in (View.L_CC, View.R_CC))
    assert receive(config, left).status == Status.SUCCESS
    worked(config)
    deliver(config)
    assert receive(config, right).status == Status.SUCCESS
    with closing(database_of(made(config))) as connection:
        assemble = partial(studies.assemble_complete, connection, Assemble(quiet_s=0), 1e9)
        assemble()
        assert receive(config, note(REASONS["113001"], right)).status == Status.SUCCESS
        assemble()
        assert rows(made(config), "SELECT state FROM job") == [("done",), ("superseded",)]
        (line,) = study_detail.studies(connection)
        assert line.stage == "delivered"
        detail = study_detail.study_detail(connection, line.pseudonym)
        assert detail
        assert [(row["outcome"], row["rejected"]) for row in detail.instances if row["is_mammogram"]] == [
            ("done", None),
            (None, "113001"),
        ]


def test_delivered_reports_are_the_predecessors(tmp_path: Path, config: Config) -> None:
    left, right = (view_file(tmp_path, view) for view in (View.L_CC, View.R_CC))
    assert [receive(config, each).status for each in (left, right)] == [0, 0]
    worked(config)
    deliver(config)
    assert receive(config, note(REASONS["113001"], right)).status == Status.SUCCESS
    worked(config)
    assert rows(made(config), "SELECT predecessor FROM job ORDER BY id") == [(None,), (1,)]


def deliver(config: Config) -> None:
    rows(made(config), "UPDATE parcel SET state = 'delivered'")
    rows(made(config), "UPDATE parcel_object SET state = 'proven'")


def test_a_study_without_images_left_says_where_results_are(tmp_path: Path, config: Config) -> None:
    left = view_file(tmp_path, View.L_CC)
    assert receive(config, left).status == Status.SUCCESS
    worked(config)
    deliver(config)
    assert receive(config, note(REASONS["113038"], left)).status == Status.SUCCESS
    worked(config)
    ((state, reason),) = rows(made(config), "SELECT state, reason FROM study")
    assert state == "ignored"
    assert str(reason).endswith("rejected; results of them were delivered to pacs: reject or delete them there")
    # the corrected image, under a UID of its own
    assert receive(config, view_file(tmp_path, View.R_CC)).status == Status.SUCCESS
    worked(config)
    assert referenced(config) == {uid(view_file(tmp_path, View.R_CC))}


def test_a_note_before_its_image(tmp_path: Path, config: Config) -> None:
    left, right = (view_file(tmp_path, view) for view in (View.L_CC, View.R_CC))
    for each in (note(REASONS["113001"], right), left, right):
        assert receive(config, each).status == Status.SUCCESS
    worked(config)
    assert referenced(config) == {uid(left)}
    assert timeline(config, "rejected")[-1] == "R-CC: before it arrived"


def test_an_expired_retention_time_sends_nothing_new(tmp_path: Path, config: Config) -> None:
    left = view_file(tmp_path, View.L_CC)
    assert receive(config, left).status == Status.SUCCESS
    worked(config)
    assert receive(config, note(REASONS["113039"], left)).status == Status.SUCCESS
    worked(config)
    assert rows(made(config), "SELECT state FROM job") == [("done",)]
    assert rows(made(config), "SELECT state FROM parcel") == [("discarded",)]


def test_other_key_objects_and_images_of_other_studies_reject_nothing(tmp_path: Path, config: Config) -> None:
    left, other = view_file(tmp_path, View.L_CC), view_file(tmp_path, View.L_CC, seed="other")
    assert receive(config, left).status == Status.SUCCESS
    assert receive(config, note(codes.DCM.BestInSet, left)).status == Status.SUCCESS
    forged = dcmread(BytesIO(note(REASONS["113001"], other)))
    forged.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID = dcmread(BytesIO(left)).StudyInstanceUID
    forged.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[
        0
    ].ReferencedSOPInstanceUID = uid(left)
    assert receive(config, saved(forged)).status == Status.SUCCESS
    worked(config)
    assert referenced(config) == {uid(left)}


def saved(dataset: Dataset) -> bytes:
    out = BytesIO()
    dataset.save_as(out)
    return out.getvalue()
