"""DiagnosticReport and ImagingStudy to a server that accepts only what fhir.resources (R4B) accepts."""

import json
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from fhir.resources.R4B.imagingstudy import ImagingStudy
from support.notify import Site, entry, exhaust
from support.receivers import Request, WebReceiver, fhir_server
from support.web import CANARY

from glam_deploy.appliance.config import Notify
from glam_deploy.errors import PeerError
from glam_deploy.records import View


def check(resource: dict[str, Any]) -> None:
    """Raises for a resource that is not valid, or of which the library would change or drop a part."""
    kind = {"DiagnosticReport": DiagnosticReport, "ImagingStudy": ImagingStudy}[resource["resourceType"]]
    read = json.loads(kind.model_validate(resource).model_dump_json())
    assert read.keys() == resource.keys()


def server_of(receiver: WebReceiver, **more: Any) -> Notify:
    return entry(**{"kind": "fhir", "url": receiver.url} | more)


def deliver(site: Site, *views: View) -> str:
    study = site.made.receive_exam(1, views or tuple(View))
    site.made.assemble()
    site.made.work()
    site.deliver_all()
    site.queue()
    return study


def send_again(site: Site, worker: Any) -> None:
    site.made.connection.execute("UPDATE notification SET state = 'pending'")
    exhaust(worker)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_repeat_makes_no_second_resource(site: Site, conditional: bool) -> None:
    study = deliver(site)
    receiver, held = fhir_server(check)
    with receiver.running():
        worker = site.worker(server_of(receiver, conditional=conditional, patient_system="urn:oid:1.2.276"))
        assert worker.client.check() == "FHIR 4.0.1 answers and allows a search"
        exhaust(worker)
        send_again(site, worker)
    assert [request.method for request in receiver.posts] == ["PUT"] * 4
    (report,) = [each for (kind, _), each in held.items() if kind == "DiagnosticReport"]
    (images,) = [each for (kind, _), each in held.items() if kind == "ImagingStudy"]
    assert images["identifier"] == [{"system": "urn:dicom:uid", "value": f"urn:oid:{study}"}]
    assert report["imagingStudy"][0]["identifier"] == images["identifier"][0]
    assert report["subject"]["identifier"]["value"] == CANARY.patient_id
    assert (report["status"], len(report["result"])) == ("partial", 2 * len(View) + 1)
    assert images["numberOfInstances"] == sum(len(series["instance"]) for series in images["series"])
    assert {series["modality"]["code"] for series in images["series"]} == {"MG", "SEG"}
    assert site.states() == [("delivered", "delivered")]


def test_a_late_repeat_does_not_bring_back_a_superseded_result(site: Site) -> None:
    deliver(site, View.L_CC)
    receiver, held = fhir_server(check)
    with receiver.running():
        worker = site.worker(server_of(receiver))
        exhaust(worker)
        deliver(site, View.R_CC)
        exhaust(worker)
        reports = [each for (kind, _), each in held.items() if kind == "DiagnosticReport"]
        assert [each["status"] for each in reports] == ["entered-in-error", "partial"]
        site.made.connection.execute("UPDATE notification SET state = 'pending' WHERE id = 1")
        exhaust(worker)
    reports = [each for (kind, _), each in held.items() if kind == "DiagnosticReport"]
    assert [each["status"] for each in reports] == ["entered-in-error", "partial"]
    assert sum(kind == "ImagingStudy" for kind, _ in held) == 1


def test_a_server_that_assigns_ids_itself_is_told_apart(site: Site) -> None:
    deliver(site, View.L_CC)
    with WebReceiver(answer=lambda request: (405, b"")).running() as receiver:
        worker = site.worker(server_of(receiver), attempts=1)
        exhaust(worker)
    (row,) = site.made.connection.execute("SELECT * FROM notification").fetchall()
    assert row["state"] == "dead"
    assert "set `conditional = true`" in row["reason"]


def test_login_and_version_are_checked(site: Site, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("the-token")

    def answer(request: Request) -> tuple[int, bytes]:
        if request.headers.get("authorization") != "Bearer the-token":
            return 401, b""
        return 200, b'{"resourceType": "CapabilityStatement", "fhirVersion": "3.0.2"}'

    with WebReceiver(answer=answer).running() as receiver:
        with pytest.raises(PeerError, match="401"):
            site.worker(server_of(receiver)).client.check()
        with pytest.raises(PeerError, match=r"3\.0\.2, expected 4\.0\.1"):
            site.worker(server_of(receiver, token_file=tmp_path / "token")).client.check()
