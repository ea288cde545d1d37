"""ORU^R01 to a listener of python-hl7; hl7apy validates each message against the schema of HL7 v2.5.1."""

import ssl
from pathlib import Path
from typing import Any

import hl7
import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from support.certificates import Authority
from support.notify import Site, entry, exhaust
from support.orthanc import free_port
from support.receivers import Hl7Receiver
from support.web import CANARY, DEATH, REASON, edited_view

from glam_deploy.appliance.config import Notify
from glam_deploy.appliance.notify import hl7 as own
from glam_deploy.appliance.notify.message import Subject
from glam_deploy.errors import PeerError
from glam_deploy.records import View


def listener(server: Hl7Receiver, **more: Any) -> Notify:
    return entry(**{"kind": "hl7", "host": "127.0.0.1", "port": server.port} | more)


def deliver(site: Site) -> str:
    study = site.made.receive_exam(1)
    site.made.assemble()
    site.made.work()
    site.deliver_all()
    site.queue()
    return study


def validate(text: str) -> Any:
    """Raises if hl7apy finds a segment, field or data type that the standard does not allow."""
    message = parse_message(text, validation_level=VALIDATION_LEVEL.STRICT, find_groups=True)
    assert message.validate()
    return message


def observations(text: str) -> dict[str, list[str]]:
    """OBX-3.1 -> values of OBX-5, by python-hl7."""
    found: dict[str, list[str]] = {}
    message = hl7.parse(text)
    for obx in message.segments("OBX"):
        lines = [message.unescape(str(line)) for line in obx[5]]
        found.setdefault(str(obx[3][0][0]), []).append(" ".join(lines))
    return found


def test_a_delivered_study_is_acknowledged_and_valid(site: Site) -> None:
    study = deliver(site)
    with Hl7Receiver().running() as server:
        worker = site.worker(listener(server, receiving_application="RIS", patient_authority="HOSPITAL"))
        exhaust(worker)
    (text,) = server.messages
    validate(text)
    message, seen = hl7.parse(text), observations(text)
    assert str(message.segment("MSH")[9]) == "ORU^R01^ORU_R01"
    assert [str(message.segment("PID")[3][0][n][0]) for n in (0, 3, 4)] == [CANARY.patient_id, "HOSPITAL", "MR"]
    assert str(message.segment("PID")[5]) == CANARY.patient_name
    assert str(message.segment("OBR")[25]) == "P"
    assert seen["STUDY_UID"] == [study]
    assert len(seen["MALIGNANT_SCORE"]) == len(View)
    assert {str(obx[11]) for obx in message.segments("OBX")} == {"P"}
    assert site.states() == [("delivered", "delivered")]


@pytest.mark.parametrize("code", ["AE", "AR", "CE", "CA"])
def test_a_negative_acknowledgment_counts_an_attempt_until_the_message_is_dead(site: Site, code: str) -> None:
    deliver(site)
    with Hl7Receiver(code=code).running() as server:
        worker = site.worker(listener(server), attempts=2)
        for _ in range(3):
            exhaust(worker)
            site.now += 900
    assert site.states() == [("delivered", "dead")]
    assert len(server.messages) == 2
    ids = {str(hl7.parse(text).segment("MSH")[10]) for text in server.messages}
    assert len(ids) == 1
    (row,) = site.made.connection.execute("SELECT * FROM notification").fetchall()
    assert f"acknowledges with {code}" in row["reason"]


@pytest.mark.parametrize(
    "answer",
    [
        lambda message: None,
        lambda message: b"HTTP/1.1 400 Bad Request\r\n\r\n\x1c\r",
        lambda message: b"\x0bMSH|^~\\&|\rMSA|AA|another\r\x1c\r",
        lambda message: b"\x0bMSH|^~\\&|\r\x1c\r",
        lambda message: b"\x0b" + b"x" * 100_000 + b"\x1c\r",
    ],
)
def test_an_answer_that_is_no_acknowledgment_is_no_delivery(site: Site, answer: Any) -> None:
    deliver(site)
    with Hl7Receiver(acknowledge=answer).running() as server:
        worker = site.worker(listener(server))
        exhaust(worker)
        assert site.states() == [("delivered", "pending")]
        server.acknowledge = None
        site.now += 900
        exhaust(worker)
    assert site.states() == [("delivered", "delivered")]


@pytest.mark.parametrize(
    ("before", "after"), [(b"", b"\x1c"), (b"\r\n", b"\x1c\r"), (b" \t\n", b"\x1c\n"), (b"", b"\x1c\r\r\n")]
)
def test_an_acknowledgment_with_a_harmless_deviation_of_the_framing_confirms(
    site: Site, before: bytes, after: bytes
) -> None:
    deliver(site)

    def acknowledge(message: hl7.Message) -> bytes:
        return before + b"\x0b" + str(message.create_ack("AA")).encode() + after

    with Hl7Receiver(acknowledge=acknowledge).running() as server:
        exhaust(site.worker(listener(server)))
    assert len(server.messages) == 1
    assert site.states() == [("delivered", "delivered")]


def test_no_text_of_an_acknowledgment_is_in_a_reason(site: Site) -> None:
    deliver(site)
    with Hl7Receiver(code=f"AA{CANARY.patient_id}").running() as server:
        exhaust(site.worker(listener(server), attempts=1))
    (row,) = site.made.connection.execute("SELECT state, reason FROM notification").fetchall()
    assert (row["state"], CANARY.patient_id in row["reason"]) == ("dead", False)


def test_all_component_groups_of_a_name_are_sent_with_their_representation(site: Site) -> None:
    """The name of PS3.5 annex H.3.1."""
    site.made.receive(
        edited_view(View.L_CC, 1, SpecificCharacterSet="ISO_IR 192", PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう")
    )
    site.made.assemble()
    site.made.work()
    site.deliver_all()
    (message,) = site.messages()
    text = own.oru(message, entry(kind="hl7", host="127.0.0.1", port=1))  # type: ignore[arg-type]
    validate(text)
    names = hl7.parse(text).segment("PID")[5]
    assert [(str(name[0]), str(name[1]), str(name[7])) for name in names] == [
        ("Yamada", "Tarou", "A"),
        ("山田", "太郎", "I"),
        ("やまだ", "たろう", "P"),
    ]


def test_mutual_tls_and_a_listener_that_is_down(site: Site, certificates: Authority) -> None:
    deliver(site)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.authority)
    context.load_cert_chain(*certificates.sign("listener"))
    context.verify_mode = ssl.CERT_REQUIRED
    certificate, key = certificates.sign("glam")
    tls = {"certificate": certificate, "key": key, "authority": certificates.authority}
    with Hl7Receiver().running(context) as server:
        worker = site.worker(listener(server, host="localhost", tls=tls))
        assert worker.client.check() == "accepts connections over TLS"
        exhaust(worker)
        with pytest.raises(PeerError, match="certificate is not valid"):
            other = Authority(Path(certificates.authority.parent) / "other").authority
            site.worker(listener(server, host="localhost", authority=other)).client.check()
    assert len(server.messages) == 1
    with pytest.raises(PeerError, match="no connection"):
        site.worker(listener(server, port=free_port())).client.check()


def test_a_study_without_a_result_and_a_withdrawn_one_say_so(site: Site) -> None:
    site.made.receive_exam(1, (View.L_CC,))
    site.made.assemble()
    site.made.kill_job(DEATH)
    site.made.receive_exam(2, (View.R_CC, View.L_CC))
    site.made.assemble()
    site.made.work(failed=REASON)
    failed, refused = site.messages()
    to = entry(kind="hl7", host="127.0.0.1", port=1)
    for message, status in ((failed, "X"), (refused, "P")):
        text = own.oru(message, to)  # type: ignore[arg-type]
        validate(text)
        assert str(hl7.parse(text).segment("OBR")[25]) == status
    assert observations(own.oru(failed, to))["TRIAGE_TEXT"] == [f"{failed.triage}."]  # type: ignore[arg-type]
    assert observations(own.oru(refused, to))["NO_RESULT"] == [f"failed: {REASON}"]  # type: ignore[arg-type]
    site.made.receive_exam(2, (View.L_MLO,))
    site.made.assemble()
    site.made.work()
    superseded = next(each for each in site.messages() if each.event == "superseded")
    text = own.oru(superseded, to)  # type: ignore[arg-type]
    validate(text)
    assert str(hl7.parse(text).segment("OBR")[25]) == "X"
    assert {str(obx[11]) for obx in hl7.parse(text).segments("OBX")} == {"W"}


def test_no_value_can_end_a_segment_or_a_message() -> None:
    name = "O'N\\EIL|L^A&NN~A\r\x0b\x1c"
    segment = own._pid(Subject(study_uid="1.2", patient_id="A|B\rOBX", patient_name=name), None)
    assert not {"\r", "\n", "\x0b", "\x1c"} & set(segment)
    read = hl7.parse(f"MSH|^~\\&|a\r{segment}\r")
    assert read.unescape(str(read.segment("PID")[3][0][0][0])) == "A|B OBX"
    assert read.unescape(str(read.segment("PID")[5][0][0][0])) == "O'N\\EIL|L"
