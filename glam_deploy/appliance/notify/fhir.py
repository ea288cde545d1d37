"""FHIR R4 (4.0.1): a DiagnosticReport for each result, and an ImagingStudy for each study, by PUT.

Ids are derived from the result and the study, so that a repeat replaces the resource that it made. A resource shows the
state at the time of the request, so that the order of late repeats does not matter.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

from glam_deploy.appliance.config import Fhir
from glam_deploy.appliance.notify.client import web_peer
from glam_deploy.appliance.notify.message import Message, Subject, ViewReport, iso
from glam_deploy.dicom.net.web_request import WebClient
from glam_deploy.dicom.uids import digest
from glam_deploy.errors import PeerError

_JSON = {"Content-Type": "application/fhir+json; charset=UTF-8", "Accept": "application/fhir+json"}
_UIDS = "urn:dicom:uid"
"""System of a Study Instance UID (R4, ImagingStudy.identifier)."""
_OWN_IDS = (HTTPStatus.BAD_REQUEST, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.UNPROCESSABLE_ENTITY)
"""Responses of servers that accept no id of a client: 405 by R4 (http.html#update), and what others send."""
RESULTS = "urn:oid:2.25.98236541708126452391864513760042937"
"""System of the identifiers of results: the keys of jobs."""
_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_URI = "urn:ietf:rfc:3986"
_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"

Resource = dict[str, Any]


class FhirClient:
    """Sends to one server."""

    def __init__(self, entry: Fhir, timeout_s: float) -> None:
        self._entry, self._timeout_s = entry, timeout_s

    def send(self, message: Message) -> str:
        """PUT the ImagingStudy, and the DiagnosticReport that refers to it."""
        if message.subject.lack:
            return message.subject.lack
        with WebClient(web_peer(self._entry, self._timeout_s)) as client:
            for resource in (imaging_study(message, self._entry), diagnostic_report(message, self._entry)):
                reason = self._put(client, resource)
                if reason:
                    return reason
        return ""

    def check(self) -> str:
        """The capability statement, and a search, which needs the login."""
        with WebClient(web_peer(self._entry, self._timeout_s)) as client:
            answer = client.request("GET", "/metadata", headers=_JSON)
            if refused := client.refusal(answer):
                raise PeerError(f"{refused} for /metadata, expected that of a FHIR R4 server: check url, its base URL")
            found = answer.json()
            version = found.get("fhirVersion", "") if isinstance(found, dict) else ""
            if not str(version).startswith("4."):
                raise PeerError(
                    f"{self._entry.url} is no base URL of a FHIR R4 server: its /metadata states fhirVersion "
                    f"{str(version)[:8] or 'not at all'}, expected 4.0.1"
                )
            search = f"/DiagnosticReport?identifier={RESULTS}|{'0' * 64}&_count=1"
            refused = client.refusal(client.request("GET", search, headers=_JSON))
        return (
            f"FHIR {str(version)[:8]} answers{f', but not a search ({refused})' if refused else ' and allows a search'}"
        )

    def _put(self, client: WebClient, resource: Resource) -> str:
        kind, identifier = resource["resourceType"], resource["identifier"][0]
        path = f"/{kind}/{resource['id']}"
        if self._entry.conditional:
            resource = {key: value for key, value in resource.items() if key != "id"}
            path = f"/{kind}?identifier={identifier['system']}|{identifier['value']}"
        answer = client.request("PUT", path, body=json.dumps(resource).encode(), headers=_JSON)
        reason = client.refusal(answer)
        return f"{reason} to a PUT of {kind}{self._hint(answer.status)}" if reason else ""

    def _hint(self, status: int) -> str:
        if status == HTTPStatus.NOT_FOUND:
            return f": check that the server has it below {self._entry.url}"
        if status in _OWN_IDS and not self._entry.conditional:
            return "; if it assigns ids itself, set `conditional = true`"
        return ""


def imaging_study(message: Message, entry: Fhir) -> Resource:
    """The study with its mammograms, and the result objects that a target has accepted."""
    subject = message.subject
    series: dict[str, list[Any]] = {}
    for each in message.objects:
        series.setdefault(each.series_uid, []).append(each)
    return _without_empty(
        {
            "resourceType": "ImagingStudy",
            "id": _study_id(subject),
            "identifier": [_study_identifier(subject)],
            "status": "available",
            "modality": [_coding(_DCM, name) for name in dict.fromkeys(each.modality for each in message.objects)],
            "subject": _patient(subject, entry),
            "started": _started(subject),
            "basedOn": _based_on(subject, entry),
            "numberOfSeries": len(series),
            "numberOfInstances": len(message.objects),
            "series": [
                {
                    "uid": uid,
                    "modality": _coding(_DCM, found[0].modality),
                    "numberOfInstances": len(found),
                    "instance": [
                        {"uid": each.sop_uid, "sopClass": _coding(_URI, f"urn:oid:{each.sop_class}")} for each in found
                    ],
                }
                for uid, found in series.items()
            ],
        }
    )


def diagnostic_report(message: Message, entry: Fhir) -> Resource:
    """The result; its scores are contained Observations, because nothing else may refer to them."""
    subject = message.subject
    observations = [*_observations(message, entry)]
    return _without_empty(
        {
            "resourceType": "DiagnosticReport",
            "id": f"glam-{message.result[:40]}",
            "contained": observations,
            "identifier": [{"system": RESULTS, "value": message.result}],
            "basedOn": _based_on(subject, entry),
            "status": _status(message),
            "category": [{"coding": [_coding("http://terminology.hl7.org/CodeSystem/v2-0074", "RAD")]}],
            "code": {"text": "Mammography network result (research use only)"},
            "subject": _patient(subject, entry),
            "effectiveDateTime": _started(subject),
            "issued": iso(message.at),
            "result": [{"reference": f"#{each['id']}"} for each in observations],
            "imagingStudy": [_reference_to_study(subject, entry)],
            "conclusion": "\n".join(message.lines()),
        }
    )


def _status(message: Message) -> str:
    """`partial`: unverified (R4, DiagnosticReportStatus); `cancelled`: there is no result."""
    if message.superseded:
        return "entered-in-error"
    return "partial" if message.has_scores else "cancelled"


def _observations(message: Message, entry: Fhir) -> Iterator[Resource]:
    status = "entered-in-error" if message.superseded else "preliminary"
    common = {"resourceType": "Observation", "status": status, "subject": _patient(message.subject, entry)}
    for number, view in enumerate(message.views, start=1):
        yield from _scores(common, number, view)
    if message.triage:
        text = "Triage flag of this site, for the order of reading only"
        flag = {"code": {"text": text}, "valueBoolean": message.triage.flagged, "note": [{"text": str(message.triage)}]}
        yield {**common, "id": "triage", **flag}


def _scores(common: Mapping[str, Any], number: int, view: ViewReport) -> Iterator[Resource]:
    name = view.view or "view not known"
    for label, value in view.scores.items():
        code = {"text": f"{label.capitalize()} score of {name}, 0 to 1, not calibrated"}
        score = {"value": round(value, 4), "system": "http://unitsofmeasure.org", "code": "1"}
        yield {**common, "id": f"view{number}-{label}", "code": code, "valueQuantity": score}
    if not view.scores:
        reason = {"dataAbsentReason": {"text": view.reason or view.outcome}}
        yield {**common, "id": f"view{number}", "code": {"text": f"Score of {name}"}, **reason}


def _patient(subject: Subject, entry: Fhir) -> Resource:
    """A logical reference, because the appliance knows no id of the server's Patient."""
    system = entry.patient_system
    identifier = {
        "type": {"coding": [_coding(_TYPES, "MR")]},
        **({"system": system} if system else {}),
        "value": subject.patient_id,
    }
    return {"type": "Patient", "identifier": identifier}


def _based_on(subject: Subject, entry: Fhir) -> list[Resource]:
    if not subject.accession_number:
        return []
    system = {"system": entry.accession_system} if entry.accession_system else {}
    identifier = {"type": {"coding": [_coding(_TYPES, "ACSN")]}, **system, "value": subject.accession_number}
    return [{"type": "ServiceRequest", "identifier": identifier}]


def _study_id(subject: Subject) -> str:
    return f"glam-{digest('study', subject.study_uid)[:40]}"


def _study_identifier(subject: Subject) -> Resource:
    return {"system": _UIDS, "value": f"urn:oid:{subject.study_uid}"}


def _reference_to_study(subject: Subject, entry: Fhir) -> Resource:
    reference = {} if entry.conditional else {"reference": f"ImagingStudy/{_study_id(subject)}"}
    return {**reference, "type": "ImagingStudy", "identifier": _study_identifier(subject)}


def _started(subject: Subject) -> str:
    """The date of the study; its time is left out, because images often state no time zone, which FHIR requires."""
    try:
        return datetime.strptime(subject.study_date, "%Y%m%d").date().isoformat()
    except ValueError:
        return ""


def _coding(system: str, code: str) -> Resource:
    return {"system": system, "code": code}


def _without_empty(resource: Resource) -> Resource:
    """FHIR has no empty strings and arrays."""
    return {key: value for key, value in resource.items() if value not in ("", [])}
