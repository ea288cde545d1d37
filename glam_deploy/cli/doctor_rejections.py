"""Findings of `doctor` on rejected associations: who was rejected today, the listener's reason, and the remedy."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from glam_deploy.cli.doctor_findings import Finding, note

if TYPE_CHECKING:
    from glam_deploy.appliance.data import DataFolder

_REMEDIES = {
    "receive.max_associations": "if it needs that many at once: raise receive.max_associations; else let it use fewer",
    "no configured sender": "if it should be allowed: add its AE title and address to [[receive.senders]]",
    "the called AE title": "if it should be allowed: correct the called AE title there, or set receive.ae_title",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": (
        "if it should be allowed: give it a certificate that an authority in receive.tls.authority has signed"
    ),
    "CERTIFICATE_VERIFY_FAILED": (
        "if it should be allowed: renew its certificate if it has ended, or add the authority that has signed it to "
        "the file receive.tls.authority, and restart the appliance"
    ),
    "ALERT": "if it is a sender: have it trust the authority that has signed receive.tls.certificate, and see its log",
    "no TLS connection": (
        "port scans do this; if it is a sender: turn TLS 1.2 or later on in its configuration, or let it use "
        "receive.port, which has no TLS"
    ),
    "the peer uses TLS": "let it use the port of [receive.tls], or turn TLS off in its configuration",
    "an internal error": "please report it, with the log of the receiver",
    "association request": "health checks and port scans do this; if it is a sender: see its log",
}
"""Part of a reason of the listener -> the remedy; the first that fits counts."""
_OTHERWISE = "find out which program connects to the DICOM port; if it is a sender: see its log"


def rejections(data: "DataFolder") -> Iterator[Finding]:
    """Findings on the five commonest rejections of today."""
    for (peer, reason), times in _of_today(data).most_common(5):
        remedy = next((remedy for part, remedy in _REMEDIES.items() if part in reason), _OTHERWISE)
        yield note("rejected", f"{peer}, {times} times today: {reason}", remedy)


def _of_today(data: "DataFolder") -> Counter[tuple[str, str]]:
    """Number of today's rejected associations by peer and reason, from the audit log."""
    found: Counter[tuple[str, str]] = Counter()
    with suppress(OSError, ValueError):
        for text in (data.audit / f"{time.strftime('%Y-%m-%d', time.gmtime())}.jsonl").read_text("utf-8").splitlines():
            if '"association_rejected"' in text:
                line = json.loads(text)
                found[line["sender"], line["reason"]] += line.get("times", 1)
    return found
