"""HL7 v2.5.1 ORU^R01 over MLLP, with acknowledgments in original mode (chapters 2 and 7)."""

import re
from collections.abc import Iterator
from itertools import takewhile
from textwrap import wrap

from glam_deploy.appliance.config import Hl7
from glam_deploy.appliance.notify.client import secure_context
from glam_deploy.appliance.notify.message import STATEMENT, Message, Subject, plain
from glam_deploy.appliance.notify.mllp import MllpPeer, connected, exchange
from glam_deploy.errors import PeerBroke

CODES = "99GLAM"
"""Coding system of the local codes in OBR-4 and OBX-3 (HL7 table 0396: 99zzz)."""
LINE = 90
"""Longest line of a text in characters, before the escapes."""
_ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}
_ENHANCED = "a code of enhanced mode, which MSH-15 and MSH-16 do not ask for; expected AA"
_ANSWERS = {
    "AE": "an error in this message",
    "AR": "a message that it rejects",
    **dict.fromkeys(("CA", "CE", "CR"), _ENHANCED),
}
"""MSA-1 of an acknowledgment that confirms nothing (HL7 table 0008; 2.9.2, original mode) -> what it means."""
_WITH_VALUES = "P"
"""OBR-25 and OBX-11 of results: preliminary, because no physician has verified them (HL7 tables 0123, 0085)."""
_WITHDRAWN = ("X", "W")
"""OBR-25 (no results available) and OBX-11 (posted as wrong) of a result that is no longer valid."""
_WITHOUT = ("X", "X")
"""OBR-25 and OBX-11 if there is no result: it cannot be obtained."""


class Hl7Client:
    """Sends to one listener, each message on a connection of its own."""

    def __init__(self, entry: Hl7, timeout_s: float) -> None:
        self._entry, self._timeout_s = entry, timeout_s

    def send(self, message: Message) -> str:
        if message.subject.lack:
            return message.subject.lack
        text = oru(message, self._entry)
        answer = exchange(self._peer(), text.encode())
        return self._refusal(answer, control_id(message))

    def check(self) -> str:
        with connected(self._peer()):
            return f"accepts connections{' over TLS' if self._entry.uses_tls else ', without TLS'}"

    def _peer(self) -> MllpPeer:
        entry = self._entry
        context = secure_context(entry.tls, entry.authority) if entry.uses_tls else None
        return MllpPeer(host=entry.host, port=entry.port, timeout_s=self._timeout_s, context=context)

    def _refusal(self, answer: bytes, sent: str) -> str:
        """ "" for AA, else the reason. Texts of the receiver are left out, since they may quote identifiers."""
        segments = [line.split("|") for line in re.split(r"[\r\n]+", answer.decode("utf-8", "replace"))]
        found = next((fields for fields in segments if fields[0] == "MSA"), None)
        if found is None or len(found) < 3:
            raise PeerBroke(f"{self._entry.place} answers without MSA segment: check that it is an HL7 v2 listener")
        code, echoed = found[1].strip(), found[2].strip()
        if echoed != sent:
            raise PeerBroke(f"{self._entry.place} acknowledges another message than the one sent")
        if code == "AA":
            return ""
        named = code if code in _ANSWERS else "an unknown code"
        return f"{self._entry.place} acknowledges with {named}: {_ANSWERS.get(code, 'expected AA')}; see its log"


def control_id(message: Message) -> str:
    """MSH-10, at most 20 characters: equal at each try."""
    return message.id[:20]


def oru(message: Message, entry: Hl7) -> str:
    """The message: MSH, PID, OBR, and an OBX for each score, reason and statement; segments end with CR."""
    status, of_values = _statuses(message)
    observations = [*_observations(message)]
    segments = [
        _msh(message, entry),
        _pid(message.subject, entry.patient_authority),
        _obr(message, status),
        *(
            _segment("OBX", str(number), *each, *[""] * 5, of_values)
            for number, each in enumerate(observations, start=1)
        ),
    ]
    return "".join(f"{segment}\r" for segment in segments)


def _statuses(message: Message) -> tuple[str, str]:
    if message.superseded:
        return _WITHDRAWN
    return (_WITH_VALUES, _WITH_VALUES) if message.has_scores else _WITHOUT


def _msh(message: Message, entry: Hl7) -> str:
    ends = (entry.sending_application, entry.sending_facility, entry.receiving_application, entry.receiving_facility)
    at = f"{message.at:%Y%m%d%H%M%S}.{message.at.microsecond // 1000:03d}+0000"
    fields = [*(_text(end or "") for end in ends), at, "", "ORU^R01^ORU_R01", control_id(message), "P", "2.5.1"]
    # MSH-15 and MSH-16 are empty: original acknowledgment mode
    return _segment("MSH", r"^~\&", *fields, *[""] * 5, "UNICODE UTF-8")


def _pid(subject: Subject, authority: str | None) -> str:
    issuer = _text(subject.patient_issuer or authority or "")
    identifier = f"{_text(subject.patient_id)}^^^{issuer}^MR"
    name, born = _names(subject.patient_name), _digits(subject.birth_date, 8)
    return _segment("PID", "1", "", identifier, "", name, "", born, _text(subject.sex))


def _names(patient_name: str) -> str:
    """Repetitions of PID-5, one for each component group; those of a name with several state their representation."""
    groups = {code: group for code, group in zip("AIP", patient_name.split("="), strict=False) if group.strip("^ ")}
    if list(groups) in ([], ["A"]):
        return _name(groups.get("A", ""))
    return "~".join(f"{_name(group)}{'^' * (7 - _name(group).count('^'))}{code}" for code, group in groups.items())


def _name(group: str) -> str:
    """XPN.1 to XPN.5; DICOM has the same components in another order: family, given, middle, prefix, suffix."""
    family, given, middle, prefix, suffix = (*group.split("^"), *[""] * 5)[:5]
    return "^".join(map(_text, (family, given, middle, suffix, prefix))).rstrip("^")


def _obr(message: Message, status: str) -> str:
    subject, started = message.subject, _digits(message.subject.study_date, 8)
    started += _digits(subject.study_time, 6) if started else ""
    accession = _text(subject.accession_number)
    fields = {
        1: "1",
        2: accession,
        3: _text(f"{message.result[:16]}"),
        4: f"GLAM^Mammography network result^{CODES}",
        7: started,
        18: accession,
        22: f"{message.at:%Y%m%d%H%M%S}+0000",
        24: "MG",
        25: status,
    }
    return _segment("OBR", *(fields.get(number, "") for number in range(1, 26)))


def _observations(message: Message) -> Iterator[tuple[str, str, str, str]]:
    """OBX-2, OBX-3, OBX-4 and OBX-5 of each observation."""
    yield "ST", f"STUDY_UID^Study Instance UID^{CODES}", "", _text(message.subject.study_uid)
    yield "ST", f"EVENT^Event^{CODES}", "", message.event
    if message.reason:
        yield "TX", f"REASON^Reason^{CODES}", "", _lines(message.reason)
    for number, view in enumerate(message.views, start=1):
        name = _text(view.view or "view not known")
        for label, value in view.scores.items():
            code = f"{label.upper()}_SCORE^{label.capitalize()} score of {name}^{CODES}"
            yield "NM", code, str(number), f"{value:.4f}"
        if not view.scores:
            text = f"{view.outcome}{f': {view.reason}' if view.reason else ''}"
            yield "TX", f"NO_RESULT^No result of {name}^{CODES}", str(number), _lines(text)
    if message.superseded:
        by = message.superseded_by[:16] if message.superseded_by else "no result yet"
        yield "ST", f"SUPERSEDED_BY^Result that replaces this one^{CODES}", "", by
    if message.triage:
        yield "ST", f"TRIAGE^Triage flag of this site^{CODES}", "", "SET" if message.triage.flagged else "NOT SET"
        yield "TX", f"TRIAGE_TEXT^Meaning of the triage flag^{CODES}", "", _lines(f"{message.triage}.")
    yield "TX", f"STATEMENT^Statement^{CODES}", "", _lines(STATEMENT)


def _segment(name: str, *fields: str) -> str:
    return "|".join((name, *fields)).rstrip("|")


def _text(text: str) -> str:
    """The text with delimiters escaped (2.7.1); control characters, which could end a segment or a message, are
    blanks.
    """
    return "".join(_ESCAPES.get(letter, letter) for letter in plain(text))


def _lines(text: str) -> str:
    """A text as repetitions of a TX field, one for each line (2.A.78)."""
    return "~".join(map(_text, wrap(text, LINE)))


def _digits(text: str, most: int) -> str:
    """The digits at the beginning of a date or time, "" if there are none."""
    return "".join(takewhile(str.isdecimal, text[:most]))
