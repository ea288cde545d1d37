"""Which events studies cause, in which order, and what a message says of the study."""

import json
import shutil
from io import BytesIO

import pytest
from pydicom import dcmread
from support.notify import Site, entry, exhaust
from support.receivers import Hl7Receiver, WebReceiver
from support.web import CANARY, DEATH, REASON, REFUSAL, dicom_file, edited_view, exam

from glam_deploy.appliance.notify.client import client_of
from glam_deploy.appliance.notify.message import DIFFERENT_PATIENTS, NO_PATIENT, Subject
from glam_deploy.appliance.state import deliveries, notifications, studies
from glam_deploy.appliance.state.database import transaction
from glam_deploy.appliance.state.rejections import RejectionNote
from glam_deploy.records import View


def start(site: Site, *views: View, number: int = 1) -> str:
    study = site.made.receive_exam(number, views or (View.L_CC,))
    site.made.assemble()
    return study


def events(site: Site) -> list[str]:
    rows = site.made.connection.execute("SELECT event FROM notify_event ORDER BY id")
    return [row["event"] for row in rows]


def test_a_study_is_delivered_once_all_targets_have_it(site: Site) -> None:
    start(site)
    site.made.work()
    assert events(site) == []
    site.made.deliver("pacs")
    assert events(site) == []
    site.made.deliver("archive")
    assert events(site) == ["delivered"]


def test_without_targets_the_results_are_there_when_the_work_is_done(site: Site) -> None:
    site.made.context.config.__dict__["targets"] = ()
    start(site)
    site.made.work()
    assert events(site) == ["delivered"]


def test_a_dead_job_and_a_dead_delivery_are_failures_and_the_rest_is_told_after_the_retry(site: Site) -> None:
    start(site, number=1)
    site.made.kill_job(DEATH)
    start(site, number=2)
    site.made.work()
    number = site.made.kill_delivery("pacs", REFUSAL)
    site.made.deliver("archive")
    first, second = site.messages()
    assert [first.reason, second.reason] == [DEATH, f"not delivered to pacs: {REFUSAL}"]
    assert second.deliveries == {"pacs": "dead", "archive": "delivered"}
    deliveries.retry(site.made.connection, number)
    site.made.deliver("pacs")
    assert events(site) == ["failed", "failed", "delivered"]


def test_a_delivery_that_a_person_discards_leaves_the_study_delivered(site: Site) -> None:
    start(site)
    site.made.work()
    site.made.deliver("archive")
    deliveries.discard(site.made.connection, site.made.kill_delivery("pacs", REFUSAL))
    assert events(site) == ["failed", "delivered"]


def test_refused_views_are_named_with_their_reason(site: Site) -> None:
    start(site, View.R_CC, View.L_CC)
    site.made.work(failed=REASON)
    (message,) = site.messages()
    assert message.event == "refused_views"
    assert message.reason == "1 of 2 mammograms have no result"
    assert [(view.view, view.outcome, view.reason) for view in message.views] == [
        ("R-CC", "failed", REASON),
        ("L-CC", "done", None),
    ]


def test_a_later_result_supersedes_the_one_that_was_told(site: Site) -> None:
    start(site)
    first = site.made.work()
    site.deliver_all()
    start(site, View.R_CC)
    second = site.made.work()
    site.deliver_all()
    assert events(site) == ["delivered", "superseded", "delivered"]
    told = site.messages()
    assert [(each.result, each.superseded, each.superseded_by) for each in told] == [
        (first.key, True, second.key),
        (first.key, True, second.key),
        (second.key, False, None),
    ]


def test_a_result_of_which_nobody_knows_is_not_superseded(site: Site) -> None:
    start(site)
    site.made.work()
    start(site, View.R_CC)
    site.made.work()
    assert events(site) == []


def test_rejected_images_withdraw_the_result_once(site: Site) -> None:
    study = start(site)
    site.made.work()
    site.deliver_all()
    (image,) = site.made.connection.execute("SELECT sop_uid FROM instance").fetchone()
    note = RejectionNote(
        code="113001", meaning="Rejected for Quality Reasons", document="1.2.9", study_uid=study, images=(image,)
    )
    for _ in range(2):
        with transaction(site.made.connection):
            studies.apply_rejection(site.made.connection, note, expired=False, now=1.0)
    assert events(site) == ["delivered", "superseded"]
    withdrawn = site.messages()[-1]
    assert (withdrawn.reason, withdrawn.superseded_by) == ("Rejected for Quality Reasons (113001, DCM)", None)
    assert [each.modality for each in withdrawn.objects] == ["SEG"]


def test_events_go_to_the_entries_that_want_them_and_to_none_that_is_added_later(site: Site) -> None:
    start(site)
    site.made.kill_job(DEATH)
    connection = site.made.connection
    assert notifications.queue(connection, {"ris": ["failed"], "mail": ["delivered"], "chat": ["failed"]}) == 2
    assert notifications.queue(connection, {"late": ["failed"]}) == 0
    ris, chat = (notifications.next_notification(connection, name, 0.0) for name in ("ris", "chat"))
    assert ris is not None
    assert chat is not None
    assert ris.message_id == chat.message_id


def test_a_study_waits_for_its_earlier_notification_and_no_other_does(site: Site) -> None:
    start(site, number=1)
    site.made.kill_job(DEATH)
    start(site, View.R_CC, number=1)
    site.made.work()
    site.deliver_all()
    start(site, number=2)
    site.made.kill_job(DEATH)
    site.queue()
    notifications.postpone(site.made.connection, 1, "down", 500.0)
    found = notifications.next_notification(site.made.connection, "ris", 10.0)
    assert found is not None
    assert (found.id, found.event) == (3, "failed")


def test_a_study_with_an_open_notification_is_kept_and_its_removal_removes_it(site: Site) -> None:
    start(site)
    site.made.work()
    site.deliver_all()
    site.queue()
    connection = site.made.connection
    studies.mark_finished(connection, 0.0)
    assert studies.finished_before(connection, 1.0) == []
    notifications.mark_delivered(connection, 1)
    studies.mark_finished(connection, 0.0)
    (study,) = studies.finished_before(connection, 1.0)
    with transaction(connection):
        studies.delete_study(connection, study)
    for table in ("notify_event", "notification"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0


def test_the_triage_flag_is_in_the_message_and_off_without_a_threshold(site: Site) -> None:
    start(site, View.R_CC, View.L_CC)
    site.made.work(failed=REASON)
    (flagged,) = site.messages()
    assert flagged.triage is not None
    assert (flagged.triage.flagged, flagged.triage.without_result) == (True, 1)
    assert "not a diagnosis" in str(flagged.triage)
    site.composer_threshold = None
    (plain,) = site.messages()
    assert plain.triage is None


@pytest.mark.parametrize("removed", ["results", "spool"])
def test_a_message_can_be_made_after_files_were_removed(site: Site, removed: str) -> None:
    start(site)
    site.made.work()
    site.deliver_all()
    shutil.rmtree(site.made.context.data.root / removed)
    (message,) = site.messages()
    assert message.has_scores == (removed == "spool")
    assert message.subject.patient_id == (CANARY.patient_id if removed == "results" else "")


@pytest.mark.parametrize("keyword", ["PatientID", "AccessionNumber"])
def test_a_study_of_two_patients_is_told_of_without_any(site: Site, keyword: str) -> None:
    start(site, View.L_CC)
    dataset = dcmread(BytesIO(dicom_file(View.R_CC, exam(1))))
    setattr(dataset, keyword, "ANOTHER")
    content = BytesIO()
    dataset.save_as(content)
    site.made.receive(content.getvalue())
    site.made.assemble()
    site.made.work()
    site.deliver_all()
    (message,) = site.messages()
    assert message.subject == Subject(study_uid=message.subject.study_uid, differs=True)
    with Hl7Receiver().running() as listener, WebReceiver().running() as server:
        for to in (entry(kind="hl7", host="127.0.0.1", port=listener.port), entry(kind="fhir", url=server.url)):
            assert client_of(to, 5.0).send(message) == DIFFERENT_PATIENTS
    assert listener.messages == server.requests == []


def test_a_study_without_a_patient_id_is_not_told_of_where_the_patient_is_needed(site: Site) -> None:
    site.made.receive(edited_view(View.L_CC, 1, PatientID="", PatientName=""))
    site.made.assemble()
    site.made.work()
    site.deliver_all()
    with Hl7Receiver().running() as listener, WebReceiver().running() as server:
        for to in (entry(kind="hl7", host="127.0.0.1", port=listener.port), entry(kind="fhir", url=server.url)):
            assert client_of(to, 5.0).send(site.messages()[0]) == NO_PATIENT
        site.queue()
        exhaust(site.worker(entry(kind="hl7", host="127.0.0.1", port=listener.port), attempts=1))
    assert listener.messages == server.requests == []
    assert site.states() == [("delivered", "dead")]


def test_no_identifier_is_in_the_state_or_the_audit(site: Site) -> None:
    study = start(site, View.R_CC, View.L_CC)
    site.made.work(failed=REASON)
    site.queue()
    message = site.messages()[0]
    texts = [json.dumps(message.lines()), repr(message), *site.made.audited()]
    assert not any(word in text for text in texts for word in (study, CANARY.patient_id, CANARY.patient_name))
