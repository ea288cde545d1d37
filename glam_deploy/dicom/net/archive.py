"""Reading of an archive over DIMSE or DICOMweb: what is searched for and retrieved."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from glam_deploy.dicom import acceptance
from glam_deploy.dicom.net.associations import Receipt, Upload
from glam_deploy.dicom.part10 import Claim
from glam_deploy.dicom.rejection import SOP_CLASS as REJECTION_CLASS

MAMMOGRAPHY = "MG"
MODALITIES = (MAMMOGRAPHY, "KO")
"""Modalities of the series that are retrieved: mammography, and documents that may reject its images (IHE IOCM)."""
WANTED = (str(acceptance.FOR_PRESENTATION), str(acceptance.FOR_PROCESSING), REJECTION_CLASS)
"""SOP classes that are retrieved; others, such as tomosynthesis, would be skipped after their reception."""

Begin = Callable[[Claim | None], Upload]
"""Begins the reception of an object: with a claim of its data set, without one of a whole DICOM file."""


@dataclass(frozen=True, kw_only=True)
class ImageRef:
    """An object of the archive."""

    study_uid: str
    series_uid: str
    sop_uid: str


@dataclass(frozen=True, kw_only=True)
class StudyContent:
    """What the archive lists of a study."""

    series: int
    """Number of its series of any modality; 0 if the archive does not have the study."""
    images: tuple[ImageRef, ...]
    """Objects that are wanted, in the order of the archive."""


class ArchiveSession(Protocol):
    """A connection to the archive, for one thread.

    Methods raise PeerBroke if the archive ends the connection or does not answer; PeerDeclined if it declines this
    request and may answer others; PeerError if a person has to change something first. No message has an identifier.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def studies(self, *, day: str = "", accession: str = "") -> Sequence[str]:
        """Study Instance UIDs of the studies with mammography of a day (YYYYMMDD), or with an accession number.

        Studies whose modalities the archive does not tell are among them.
        """

    def content(self, study_uid: str) -> StudyContent:
        """The objects of a study that are wanted."""

    def retrieve(self, image: ImageRef, begin: Begin) -> Receipt | None:
        """Retrieve an object; its receipt, None if it was not sent, or arrives at the receiver (C-MOVE)."""


def is_wanted_class(sop_class: str) -> bool:
    """Whether objects of a SOP class are retrieved; those of a class that the archive does not tell are."""
    return not sop_class or sop_class in WANTED


def agrees(stated: str, asked: str) -> bool:
    """Whether a result has the value that was searched for: an archive may ignore a key, and give all its studies."""
    return not asked or not stated or stated == asked


def has_mammography(modalities: Sequence[str]) -> bool:
    """Whether a study with these ModalitiesInStudy may have mammograms; an archive may not tell them."""
    return not modalities or MAMMOGRAPHY in modalities
