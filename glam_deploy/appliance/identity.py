"""UIDs of received objects, and the pseudonyms of studies in logs."""

import hashlib
import hmac
from dataclasses import replace
from typing import TYPE_CHECKING

from glam_deploy.dicom.uids import valid_uid

if TYPE_CHECKING:  # the state of the appliance is read without pydicom too
    from glam_deploy.dicom.received import Received


def with_valid_uids(received: "Received") -> "Received":
    """The received object with its invalid UIDs replaced by derived ones (`valid_uid`)."""
    return replace(
        received,
        sop_uid=valid_uid("SOPInstanceUID", received.sop_uid),
        study_uid=valid_uid("StudyInstanceUID", received.study_uid),
        series_uid=valid_uid("SeriesInstanceUID", received.series_uid),
    )


def pseudonym(key: bytes, identifier: str) -> str:
    """Pseudonym of the study, patient or instance `identifier`: 16 hexadecimal digits, constant for one `key`.

    HMAC-SHA-256: without the key it cannot be found by trying identifiers.
    """
    return hmac.new(key, identifier.encode(), hashlib.sha256).hexdigest()[:16]
