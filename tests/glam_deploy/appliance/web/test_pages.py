"""What the pages say, and what they never say."""

import io
import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from pydicom import dcmread
from support.report import parse
from support.web import DEATH, ENGINE, REASON, REFUSAL, TOKEN, Appliance, Busy, dicom_file, exam, set_notices

from glam_deploy.appliance.data import FINDING
from glam_deploy.appliance.web.app import HEADERS
from glam_deploy.outputs.report import RESEARCH_USE
from glam_deploy.records import View

PAGES = ("/", "/studies", "/failures", "/studies?stage=failed", "/studies?stage=sending&page=3", "/login", "/nothing")


class Words(HTMLParser):
    """The text of a page, in order, and every attribute of every element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]


def text(page: str) -> str:
    return " ".join(Words(page).words)


def test_senders_and_what_of_theirs_was_refused(empty: Appliance) -> None:
    content = dicom_file(View.L_CC, exam(1))
    assert empty.receive(content[:-5000]).status == 0xC113
    assert empty.receive(content).status == 0
    empty.context.ingest.spool.record_refusal("ROGUE@10.0.0.9", "association", "no configured sender", times=3)
    home, failures = (text(empty.visitor().get(path).text) for path in ("/", "/failures"))
    assert re.search(r"MODALITY@10\.0\.0\.7 \S+ \S+ 1 1 0 \S+ \S+ PixelData has \d+ of \d+ bytes", home)
    assert re.search(r"ROGUE@10\.0\.0\.9 \S 0 0 3 \S+ \S+ no configured sender", home)
    assert re.search(r"Refused at reception 4 ", failures)
    assert re.search(r"MODALITY@10\.0\.0\.7 C113 1 ", failures)


def test_a_refused_and_a_rejected_view_are_among_the_views(empty: Appliance) -> None:
    dataset = dcmread(io.BytesIO(dicom_file(View.R_CC, exam(1))))
    dataset.BitsStored = 30
    out = io.BytesIO()
    dataset.save_as(out)
    study = empty.receive_exam(1, (View.L_CC,))
    assert empty.receive(out.getvalue()).reason == ""
    page = text(empty.visitor().get(f"/study/{empty.name(study)}").text)
    assert "R-CC refused No picture. BitsAllocated, BitsStored and HighBit are 16, 30, 11" in page
    uid = dcmread(io.BytesIO(dicom_file(View.L_CC, exam(1)))).SOPInstanceUID
    empty.connection.execute("INSERT INTO rejection VALUES (?, ?, '113001', '1.2', 0)", (uid, study))
    page = text(empty.visitor().get(f"/study/{empty.name(study)}").text)
    assert "L-CC rejected No picture. Rejected by a Key Object Selection document (113001, DCM): not used." in page


@pytest.mark.parametrize("path", PAGES)
def test_every_page_has_the_banner_and_the_headers(busy: Busy, path: str) -> None:
    answer = busy.appliance.visitor().get(path) if path != "/login" else busy.appliance.client().get(path)
    assert f"{RESEARCH_USE}. Not for diagnosis." in text(answer.text)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    policy = dict(part.strip().partition(" ")[::2] for part in HEADERS["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert not [part for part in policy.values() if "unsafe" in part or "http" in part or "*" in part]


def test_no_page_needs_anything_inline_or_from_elsewhere(busy: Busy) -> None:
    studies = [f"/study/{busy.appliance.name(uid)}" for uid in (busy.delivered, busy.failed, busy.receiving)]
    for path in (*PAGES, *studies):
        page = busy.appliance.visitor().get(path).text
        assert "<style" not in page
        assert not re.search(r"<script(?! src=\"/static/)", page)
        for tag, name, value in Words(page).attributes:
            assert name != "style" and not name.startswith("on"), (path, tag)
            if name in ("href", "src", "action"):
                assert value.startswith(("/", "#")) and not value.startswith("//"), (path, value)


def test_labels_of_narrow_screens_are_the_headings(busy: Busy) -> None:
    """A table that can become a list has the name of its column at each cell but that of the buttons."""
    rows = 0
    for path in ("/", "/studies", "/failures", f"/study/{busy.appliance.name(busy.undelivered)}"):
        tables = parse(busy.appliance.visitor().get(path).text).of_class("listed")
        for table in tables:
            headings = [heading.text.strip() for heading in table.one("thead").all("th")]
            for row in table.one("tbody").all("tr"):
                cells = [node for node in row.walk() if node.name in ("th", "td")]
                labels = [cell.attributes.get("data-label") for cell in cells]
                assert [label or "Action" for label in labels] == headings, path
                rows += 1
    assert rows >= 10


def test_the_queue_by_state(busy: Busy) -> None:
    page = text(busy.appliance.visitor().get("/").text)
    for words in ("Receiving 1", "Waiting 1", "Working 0", "Sending 1", "Failed 1", "Undelivered 1", "Done 2"):
        assert words in page
    assert "Undelivered 1 result sets and notifications, each target's; oldest" in page


def test_engine_gate_targets_and_processes(busy: Busy) -> None:
    page = text(busy.appliance.visitor().get("/").text)
    for value in ENGINE.values():
        assert str(value) in page
    assert "archive not used yet 1 1 0 STOW-RS" in page
    assert "pacs not used yet 0 1 1 C-STORE" in page
    assert "worker ready" in page


def test_a_broken_target_and_a_silent_process(empty: Appliance) -> None:
    empty.beat("receiver", "keeper", "web")
    empty.beat("worker", state="failing")
    empty.beat("target:pacs", state="waiting")
    page = text(empty.visitor().get("/").text)
    assert "Not ready" in page
    assert "The dispatcher has never started" in page
    assert "The worker is failing" in page
    assert "pacs waiting 0 0 0" in page


@pytest.mark.parametrize("stage", ["receiving", "waiting", "sending", "failed", "undelivered", "done", "ignored"])
def test_the_studies_of_a_stage(busy: Busy, stage: str) -> None:
    found = {
        "receiving": {busy.receiving}, "waiting": {busy.waiting}, "sending": {busy.undelivered},
        "failed": {busy.failed}, "undelivered": {busy.undelivered}, "ignored": {busy.ignored},
        "done": {busy.delivered, busy.undelivered},
    }[stage]  # fmt: skip
    page = busy.appliance.visitor().get(f"/studies?stage={stage}").text
    assert set(re.findall("/study/([0-9a-f]{16})", page)) == {busy.appliance.name(uid) for uid in found}


def test_all_studies_newest_first(busy: Busy) -> None:
    page = busy.appliance.visitor().get("/studies").text
    uids = (busy.receiving, busy.waiting, busy.ignored, busy.failed, busy.undelivered, busy.delivered)
    assert re.findall("/study/([0-9a-f]{16})", page) == [busy.appliance.name(uid) for uid in uids]
    words = text(page)
    for state in ("Receiving", "Waiting", "Ignored", "Failed", "Undelivered", "Delivered"):
        assert words.count(state) > 1 or state == "Delivered"


NOWHERE = (
    "/studies?stage=x", "/studies?page=-1", "/studies?page=9999999", "/studies?page=%C2%B2", "/study/x",
    "/study/0000000000000000", "/views/9999/image.png", "/views/x/map.png", "/views/99999999999999999999999/image.png",
    "/static/../server.py", "/static/%2e%2e/server.py", "/static/none",
)  # fmt: skip


@pytest.mark.parametrize("path", NOWHERE)
def test_what_is_not_there(busy: Busy, path: str) -> None:
    answer = busy.appliance.visitor().get(path)
    assert answer.status_code == 404
    assert "Traceback" not in answer.text


def test_a_study_from_its_first_instance_to_its_delivery(busy: Busy) -> None:
    page = busy.appliance.visitor().get(f"/study/{busy.appliance.name(busy.delivered)}").text
    words = text(page)
    assert busy.delivered in words
    assert REASON in words
    assert "pacs delivered 1 of 1" in words
    told = [
        words.index(f" {what} ", words.index("Timeline"))
        for what in ("received", "assembled", "started", "done", "delivered")
    ]
    assert told == sorted(told)
    assert "from MODALITY@10.0.0.7" in words
    assert re.search(r"Global 0\.\d{3} 0\.\d{3}", words)
    assert "Exam-level scores: mean / maximum over the images, not calibrated. Global score." in words
    assert re.search(r"Exam 0\.\d{3} / 0\.\d{3} 0\.\d{3} / 0\.\d{3} (Right|Left) breast 0\.\d{3} /", words)


def test_an_exam_of_two_patients_has_no_score(empty: Appliance) -> None:
    """The page compares what the results keep; nothing of it is shown."""
    study = empty.receive_exam(1, (View.R_CC, View.L_CC))
    empty.assemble()
    empty.work()
    visitor, page = empty.visitor(), f"/study/{empty.name(study)}"
    assert re.search(r"Exam 0\.\d{3} / 0\.\d{3}", text(visitor.get(page).text))
    path = next((empty.context.data.root / "results").rglob(FINDING))
    content = json.loads(path.read_text())
    assert set(content["summary"]["patient"]) == {"PatientID", "PatientBirthDate", "StudyDate"}
    content["summary"]["patient"]["PatientID"] = "canary"
    path.write_text(json.dumps(content))
    words = text(visitor.get(page).text)
    assert "headers differ in PatientID, so the images are not combined" in words
    assert "canary" not in words
    assert not re.search(r"Exam 0\.\d{3}", words)


def test_what_is_not_delivered_can_be_sent_again(busy: Busy) -> None:
    """Dead at one target, waiting for the other, which may be down for long."""
    for study, buttons in ((busy.undelivered, ["archive", "pacs"]), (busy.delivered, [])):
        page = busy.appliance.visitor().get(f"/study/{busy.appliance.name(study)}").text
        assert re.findall("Retry delivery to ([a-z]+)", page) == buttons


def test_a_dead_job_is_told_with_its_reason(busy: Busy) -> None:
    assert DEATH in text(busy.appliance.visitor().get(f"/study/{busy.appliance.name(busy.failed)}").text)


def test_what_the_reason_of_a_study_is_of(busy: Busy) -> None:
    pages = {
        study: text(busy.appliance.visitor().get(f"/study/{busy.appliance.name(study)}").text)
        for study in (busy.failed, busy.undelivered, busy.delivered, busy.ignored)
    }
    assert f"Reason {DEATH}" in pages[busy.failed]
    assert f"Reason pacs: {REFUSAL}" in pages[busy.undelivered]
    assert "Complete by nothing arrived for" in pages[busy.delivered]
    assert "Ignored for no mammogram" in pages[busy.ignored]


def test_a_refused_version_is_in_quarantine(empty: Appliance) -> None:
    """Its study is named where it says what a person can do."""
    study = empty.receive_exam(1, (View.L_CC,))
    other = io.BytesIO()
    dataset = dcmread(io.BytesIO(dicom_file(View.L_CC, exam(1))))
    dataset.PatientID = "MERGED"
    dataset.save_as(other)
    empty.receive(other.getvalue())
    words = text(empty.visitor().get("/failures").text)
    assert "Nothing of them is kept, but for those with C111, which are in quarantine" in words
    assert f"glam-deploy queue accept-correction {empty.name(study)}" in words


def test_failures_with_reasons(busy: Busy) -> None:
    words = text(busy.appliance.visitor().get("/failures").text)
    for study, reason in ((busy.failed, DEATH), (busy.undelivered, REFUSAL), (busy.delivered, REASON)):
        assert re.search(f"{busy.appliance.name(study)} .*{re.escape(reason)}", words)


def test_a_failed_view_is_listed_once(empty: Appliance) -> None:
    """Though two jobs of its study met it, because another view arrived late; a refused one is so among the refused."""
    study = empty.receive_exam(1, (View.R_CC, View.L_CC))
    empty.assemble()
    empty.work(failed=REASON)
    empty.receive(dicom_file(View.L_MLO, exam(1)))
    empty.assemble()
    empty.work(failed=REASON)
    assert listed(empty) == {"Failed views": 1, "Refused instances": 0}
    empty.connection.execute("UPDATE instance SET state = 'refused', reason = ? WHERE arrival = 1", (DEATH,))
    assert listed(empty) == {"Failed views": 0, "Refused instances": 1}
    assert "1 image without result" in text(empty.visitor().get(f"/study/{empty.name(study)}").text)


def listed(appliance: Appliance) -> dict[str, int]:
    """Rows in two lists of the page of failures, which its headings must count."""
    page = appliance.visitor().get("/failures").text
    rows = {}
    for name in ("Failed views", "Refused instances"):
        section = page.partition(f"<h2>{name} ")[2].partition("</section>")[0]
        rows[name] = section.count('<th scope="row"')
        assert text(section).startswith(f"{rows[name]} ")
    return rows


def test_a_delivered_study_with_a_failed_view_is_not_shown_as_good(busy: Busy) -> None:
    name = busy.appliance.name(busy.delivered)
    for path in ("/studies", f"/study/{name}"):
        page = busy.appliance.visitor().get(path).text
        assert '<span class="chip part">Delivered, 1 image without result</span>' in page
        assert ">Delivered</span>" not in page


def test_the_number_beside_delivered_is_that_of_failures(busy: Busy) -> None:
    words = text(busy.appliance.visitor().get(f"/study/{busy.appliance.name(busy.delivered)}").text)
    assert "Target State Objects Failures Delivered" in words


def test_views_without_an_outcome_say_why(empty: Appliance) -> None:
    """Refused; of a dead job; still waiting."""
    study = empty.receive_exam(1, (View.R_CC, View.L_CC))
    empty.connection.execute("UPDATE instance SET state = 'refused', reason = ? WHERE arrival = 1", (REFUSAL,))
    page = f"/study/{empty.name(study)}"
    assert f"R-CC refused No picture. {REFUSAL} L-CC waiting No picture." in text(empty.visitor().get(page).text)
    empty.assemble()
    empty.kill_job(DEATH)
    assert f"R-CC refused No picture. {REFUSAL} L-CC no result No picture." in text(empty.visitor().get(page).text)


def test_first_received_is_of_the_first_instance(empty: Appliance) -> None:
    """A study that was assembled and gets another view later does not begin anew."""
    study = empty.receive_exam(1, (View.R_CC, View.L_CC))
    empty.connection.execute("UPDATE instance SET received_at = 1e9 WHERE arrival = 1")
    empty.assemble()
    empty.receive(dicom_file(View.L_MLO, exam(1)))
    assert "First received 2001-09-09 01:46" in text(empty.visitor().get(f"/study/{empty.name(study)}").text)


def test_notices_of_a_view_and_their_share_of_the_latest_views(empty: Appliance) -> None:
    study = empty.receive_exam(1)
    empty.assemble()
    assert "No view has been processed yet" in text(empty.visitor().get("/").text)
    empty.work()
    folders = sorted((empty.context.data.root / "results/views").iterdir())
    for number, folder in enumerate(folders):
        notices = [{"code": "lossy", "message": "some"}] * 2 if number < 3 else []
        set_notices(
            folder, [*notices, {"code": "8-bit", "message": "The image has 8 bits."}] if number == 0 else notices
        )
    home = text(empty.visitor().get("/").text)
    assert "Of the last 4 views." in home
    assert "Notice Views Share lossy 3 75 % 8-bit 1 25 %" in home.replace("\u00a0", " ")
    page = text(empty.visitor().get(f"/study/{empty.name(study)}").text)
    assert page.count("8-bit The image has 8 bits. 1 of the last 4 views.") == 1
    assert page.count("lossy some 3 of the last 4 views.") == 6
    shutil.rmtree(folders[0])
    assert "Of the last 3 views." in text(empty.visitor().get("/").text)


def test_nothing_names_a_patient_and_only_its_page_names_a_study(busy: Busy, caplog: pytest.LogCaptureFixture) -> None:
    visitor, studies = busy.appliance.visitor(), [busy.delivered, busy.undelivered, busy.failed, busy.ignored]
    own = {uid: visitor.get(f"/study/{busy.appliance.name(uid)}").text for uid in studies}
    others = [visitor.get(path).text for path in (*PAGES, "/metrics", "/health/ready", "/health/live")]
    for uid, page in own.items():
        assert page.count(uid) == 1
        assert not any(uid in other for other in (*others, *(p for u, p in own.items() if u != uid)))
    for words in (*own.values(), *others, *busy.appliance.audited(), caplog.text):
        assert "CANARY" not in words
        assert TOKEN not in words
        assert not any(uid in words for uid in studies) or words in own.values()


def test_errors_come_without_traces(
    busy: Busy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CANARY^NAME")

    monkeypatch.setattr("glam_deploy.appliance.state.study_detail.studies", fail)
    answer = busy.appliance.visitor().get("/studies")
    assert answer.status_code == 500
    assert "Internal error." in answer.text
    for said in (answer.text, caplog.text):
        assert "CANARY" not in said and "Traceback" not in said
    assert "a request failed with RuntimeError in" in caplog.text
