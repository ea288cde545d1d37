"""UIDs of a C-STORE command that pynetdicom does not take: none, and more than 64 characters.

It would abort the association, so that the images after this one would be lost too. Here the command gets another UID
before it is decoded. The response, which need not have UIDs (PS3.7 section 9.1.1.1), leaves out that of the instance.
"""

from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.presentation import PresentationContext

from glam_deploy.dicom.part10 import Claim

_CLASS, _INSTANCE = "AffectedSOPClassUID", "AffectedSOPInstanceUID"
_LONGEST = 64
_UNUSABLE = "0.0"


def claim_of(command: Dataset, context: PresentationContext) -> Claim:
    """What a C-STORE command announces, as it was sent; in `command` itself, UIDs are replaced that cannot be used."""
    stated = {keyword: str(command.get(keyword) or "") for keyword in (_CLASS, _INSTANCE)}
    for keyword, other in ((_CLASS, context.abstract_syntax), (_INSTANCE, _UNUSABLE)):
        if not 0 < len(stated[keyword]) <= _LONGEST:
            setattr(command, keyword, other)
    return Claim(sop_class=stated[_CLASS], sop_uid=stated[_INSTANCE], transfer_syntax=str(context.transfer_syntax[0]))


class UnusableUids(DIMSEServiceProvider):
    """Mixin of a DIMSE provider whose responses leave out the UID that `claim_of` has put in place of another."""

    def send_msg(self, primitive: Any, context_id: int) -> None:
        if getattr(primitive, _INSTANCE, None) == _UNUSABLE:
            setattr(primitive, _INSTANCE, None)
        super().send_msg(primitive, context_id)
