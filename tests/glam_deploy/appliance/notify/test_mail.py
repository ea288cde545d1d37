"""E-mail to an SMTP server of aiosmtpd that requires STARTTLS or TLS, and a login."""

from dataclasses import replace
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from support.certificates import Authority
from support.notify import EXAMPLE, Site, entry, exhaust
from support.orthanc import free_port
from support.receivers import SmtpReceiver
from support.web import CANARY, REASON

from glam_deploy.appliance.config import Notify
from glam_deploy.appliance.notify.fhir import diagnostic_report
from glam_deploy.appliance.notify.mail import text_of
from glam_deploy.appliance.notify.message import Subject, ViewReport
from glam_deploy.errors import PeerError
from glam_deploy.records import View


def mail(server: SmtpReceiver, tmp_path: Path, **more: Any) -> Notify:
    (tmp_path / "mail.password").write_text(server.password + "\n")
    values = {
        "kind": "email",
        "host": "localhost",
        "port": server.port,
        "user": server.user,
        "password_file": tmp_path / "mail.password",
        "authority": server.certificates.authority,
        "sender": "glam@hospital.example",
        "recipients": ["radiology@hospital.example", "physics@hospital.example"],
    }
    return entry(**values | more)


def refuse_a_view(site: Site) -> str:
    study = site.made.receive_exam(1, (View.R_CC, View.L_CC))
    site.made.assemble()
    site.made.work(failed=REASON)
    site.queue()
    return study


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_refused_views_are_told_without_identifiers(
    site: Site, certificates: Authority, tmp_path: Path, security: str
) -> None:
    study = refuse_a_view(site)
    with SmtpReceiver(certificates).running(tls=security == "tls") as server:
        worker = site.worker(mail(server, tmp_path, security=security))
        assert worker.client.check().endswith("and accepts the password")
        exhaust(worker)
    (envelope,) = server.mails
    assert envelope.rcpt_tos == ["radiology@hospital.example", "physics@hospital.example"]
    read = message_from_bytes(envelope.content, policy=default)
    text = read.get_content()
    assert read["Subject"] == f"Images without a result: study {site.made.name(study)}"
    assert f"R-CC: failed ({REASON})" in text.splitlines()
    assert not any(word in envelope.content.decode() for word in (study, CANARY.patient_id, CANARY.patient_name))
    assert site.states() == [("refused_views", "delivered")]


def test_identifiers_are_added_if_the_entry_says_so(site: Site, certificates: Authority, tmp_path: Path) -> None:
    study = refuse_a_view(site)
    with SmtpReceiver(certificates).running() as server:
        exhaust(site.worker(mail(server, tmp_path, identifiers=True)))
    text = message_from_bytes(server.mails[0].content, policy=default).get_content()
    assert {f"Study Instance UID: {study}", f"Patient ID: {CANARY.patient_id}"} <= set(text.splitlines())


FORGED = "A2\r\n\nL-CC: benign 0.001, malignant 0.001\x0b\x85\u2028Delivery to pacs: delivered"


def test_no_value_forges_a_line() -> None:
    subject = Subject(study_uid="1.2.3", patient_id=FORGED, accession_number=FORGED)
    view = ViewReport(view="L-CC", outcome="failed", reason=FORGED, scores={})
    message = replace(EXAMPLE, subject=subject, views=(view,), reason=FORGED)
    to = entry(kind="email", host="localhost", sender="a@b.example", recipients=["c@d.example"], identifiers=True)
    assert to.kind == "email"
    sent = message_from_bytes(text_of(message, to).as_bytes(), policy=default).get_content()
    assert not any(line.startswith(("L-CC: benign", "Delivery to pacs: delivered ")) for line in sent.splitlines())
    assert len(sent.splitlines()) == len(text_of(EXAMPLE, to).get_content().splitlines()) - 1
    (conclusion,) = [diagnostic_report(message, entry(kind="fhir", url="https://fhir.example"))["conclusion"]]  # type: ignore[arg-type]
    assert len(conclusion.splitlines()) == len(EXAMPLE.lines()) - 1


def test_greylisting_is_waited_for_and_a_refusal_counts(site: Site, certificates: Authority, tmp_path: Path) -> None:
    refuse_a_view(site)
    with SmtpReceiver(certificates, reply="451 try later").running() as server:
        worker = site.worker(mail(server, tmp_path), attempts=2)
        for _ in range(3):
            exhaust(worker)
            site.now += 900
        assert site.states() == [("refused_views", "pending")]
        server.reply = "554 no such content"
        for _ in range(2):
            exhaust(worker)
            site.now += 900
        assert site.states() == [("refused_views", "dead")]
    (row,) = site.made.connection.execute("SELECT * FROM notification").fetchall()
    assert (row["attempts"], "reply 554" in row["reason"]) == (2, True)


def test_a_repeat_has_the_same_message_id(site: Site, certificates: Authority, tmp_path: Path) -> None:
    refuse_a_view(site)
    with SmtpReceiver(certificates).running() as server:
        worker = site.worker(mail(server, tmp_path))
        exhaust(worker)
        site.made.connection.execute("UPDATE notification SET state = 'pending'")
        exhaust(worker)
    first, second = (message_from_bytes(each.content)["Message-ID"] for each in server.mails)
    assert first == second


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("password", "refuses the login"),
        ("authority", "certificate is not valid"),
        ("no TLS there", "does not offer"),
        ("down", "no SMTP session"),
        ("no password", "no token or password"),
    ],
)
def test_a_wrong_setting_is_named_and_no_message_is_lost(
    site: Site, certificates: Authority, tmp_path: Path, fault: str, named: str
) -> None:
    refuse_a_view(site)
    with SmtpReceiver(certificates).running(tls=False) as server:
        values: dict[str, Any] = {}
        if fault == "authority":
            values["authority"] = Authority(tmp_path / "other").authority
        if fault == "down":
            values["port"] = free_port()
        if fault == "no TLS there":
            values |= {"security": "none"}
        worker = site.worker(mail(server, tmp_path, **values))
        if fault == "password":
            (tmp_path / "mail.password").write_text("another")
        if fault == "no password":
            (tmp_path / "mail.password").unlink()
        with pytest.raises(PeerError, match=named):
            worker.client.check()
        exhaust(worker)
        assert named in worker.health.reason
        assert not server.mails
    assert site.states() == [("refused_views", "pending")]
