"""Webhooks: POST of JSON, signed with a symmetric secret by Standard Webhooks 1.0.

webhook-signature is "v1," and the base64 of HMAC-SHA256 over "{webhook-id}.{webhook-timestamp}.{body}".
"""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

from glam_deploy.appliance.config import Webhook
from glam_deploy.appliance.notify.client import web_peer
from glam_deploy.appliance.notify.message import STATEMENT, Message, iso
from glam_deploy.appliance.targets import read_secret
from glam_deploy.dicom.net.web_request import WebClient
from glam_deploy.errors import PeerError
from glam_deploy.exams import ExamScores, Pooled, Triage

SCHEMA = 1
"""Raised when a key is removed or changes its meaning; keys may be added."""

_PREFIX = "whsec_"


class WebhookClient:
    """Sends to one URL."""

    def __init__(self, entry: Webhook, timeout_s: float, *, now: Callable[[], float] = time.time) -> None:
        """`now`: seconds since 1970, for the signature."""
        self._entry, self._timeout_s, self._now = entry, timeout_s, now

    def send(self, message: Message) -> str:
        body = payload(message, identifiers=self._entry.identifiers)
        headers = {"Content-Type": "application/json", **self._signature(f"msg_{message.id}", body)}
        with WebClient(web_peer(self._entry, self._timeout_s)) as client:
            return client.refusal(client.request("POST", "", body=body, headers=headers))

    def check(self) -> str:
        """OPTIONS; only a message shows whether the receiver accepts the signature."""
        self._key()
        with WebClient(web_peer(self._entry, self._timeout_s)) as client:
            client.request("OPTIONS", "")
        return "answers; only a message shows whether it accepts the signature"

    def _signature(self, message_id: str, body: bytes) -> dict[str, str]:
        timestamp = str(int(self._now()))
        signed = b".".join((message_id.encode(), timestamp.encode(), body))
        code = base64.b64encode(hmac.new(self._key(), signed, hashlib.sha256).digest()).decode()
        return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{code}"}

    def _key(self) -> bytes:
        secret = read_secret(self._entry.secret_file) or ""
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if not secret.startswith(_PREFIX) or not 24 <= len(key) <= 64:
            raise PeerError(
                f'{self._entry.secret_file} holds no secret: expected "{_PREFIX}" and the base64 of 24 to 64 random '
                f"bytes in one line, such as from: echo {_PREFIX}$(openssl rand -base64 32)"
            )
        return key


def payload(message: Message, *, identifiers: bool) -> bytes:
    """The body, UTF-8 JSON; docs/notifications.md has an example and the meaning of each key."""
    study = {"pseudonym": message.study}
    if identifiers:
        study |= {
            "study_instance_uid": message.subject.study_uid,
            "accession_number": message.subject.accession_number,
            "patient_id": message.subject.patient_id,
        }
    data = {
        "schema": SCHEMA,
        "study": study,
        "result": message.result,
        "superseded": message.superseded,
        "superseded_by": message.superseded_by,
        "reason": message.reason or None,
        "views": [
            {"view": view.view, "outcome": view.outcome, "reason": view.reason, "scores": dict(view.scores)}
            for view in message.views
        ],
        "exam": _exam(message.exam),
        "triage": _triage(message.triage),
        "deliveries": dict(message.deliveries),
        "statement": STATEMENT,
    }
    text = {"type": f"study.{message.event}", "timestamp": iso(message.at), "data": data}
    return json.dumps(text, separators=(",", ":"), ensure_ascii=False).encode()


def _exam(exam: ExamScores | None) -> dict[str, Any] | None:
    if exam is None:
        return None
    breasts = {side: _pooled(exam.breasts[side]) if side in exam.breasts else None for side in ("L", "R")}
    return {"score": exam.score, "whole": _pooled(exam.whole), **breasts, "remarks": list(exam.remarks)}


def _pooled(scores: Any) -> dict[str, Any]:
    pooled: dict[str, Pooled] = dict(scores)
    return {label: {"mean": value.mean, "maximum": value.maximum} for label, value in pooled.items()}


def _triage(triage: Triage | None) -> dict[str, Any] | None:
    if triage is None:
        return None
    return {
        "flagged": triage.flagged,
        "threshold": triage.threshold,
        "highest": triage.highest,
        "without_result": triage.without_result,
        "text": str(triage),
    }
