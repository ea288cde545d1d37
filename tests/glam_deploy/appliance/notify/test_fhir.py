"""DiagnosticReport and ImagingStudy to a server that accepts only what fhir.resources (R4B) accepts."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from expected import need
from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from fhir.resources.R4B.imagingstudy import ImagingStudy
from support.notify import Site, entry, exhaust
from support.receivers import Request, WebReceiver, fhir_server
from support.web import CANARY, DEATH

from glam_deploy.appliance.config import Notify
from glam_deploy.appliance.notify.fhir import diagnostic_report, imaging_study
from glam_deploy.errors import PeerError
from glam_deploy.records import View

VALIDATOR = Path(__file__).parent / "fhir/validate.cjs"


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


def test_validators_of_another_language_find_no_error(site: Site) -> None:
    need("fhir", "node" if shutil.which("node") is None else "")
    need("fhir", "" if (VALIDATOR.parent / "node_modules").is_dir() else "`npm ci` in tests/.../notify/fhir")
    site.made.receive_exam(2, (View.L_CC,))
    site.made.assemble()
    site.made.kill_job(DEATH)
    deliver(site, View.L_CC)
    deliver(site, View.R_CC)
    to = server_of(WebReceiver(url="https://fhir.example"), accession_system="urn:oid:1.2")
    made = [resource for each in site.messages() for resource in (diagnostic_report(each, to), imaging_study(each, to))]  # type: ignore[arg-type]
    assert len(made) >= 4
    command = ["node", str(VALIDATOR)]
    told = subprocess.run(
        command, input=json.dumps([*made, {"resourceType": "ImagingStudy"}]), capture_output=True, text=True, check=True
    )
    *errors, of_a_wrong_one = json.loads(told.stdout)
    assert errors == [[]] * len(made)
    assert of_a_wrong_one


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


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (405, "set `conditional = true`"),
        (404, "check that the server has it below http"),
        (410, "410 Gone to a PUT of "),
    ],
)
def test_a_server_that_assigns_ids_itself_is_told_apart(site: Site, status: int, remedy: str) -> None:
    """R4 http.html#update: 405 where a server takes no id of a client, 404 where it has no such resource."""
    deliver(site, View.L_CC)
    with WebReceiver(answer=lambda request: (status, b"")).running() as receiver:
        worker = site.worker(server_of(receiver), attempts=1)
        with pytest.raises(PeerError, match=rf"answers {status} .* for /metadata.*: check url"):
            worker.client.check()
        exhaust(worker)
    (row,) = site.made.connection.execute("SELECT * FROM notification").fetchall()
    assert row["state"] == "dead"
    assert remedy in row["reason"] and ("conditional" in row["reason"]) is (status == 405)


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
