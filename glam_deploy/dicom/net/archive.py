"""Reading of an archive over DIMSE or DICOMweb: what is searched for and retrieved."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from glam_deploy.dicom import acceptance
from glam_deploy.dicom.net.associations import Receipt, Upload
from glam_deploy.dicom.part10 import Claim
from glam_deploy.dicom.received import is_identifier
from glam_deploy.dicom.rejection import SOP_CLASS as REJECTION_CLASS
from glam_deploy.errors import PeerBroke

MAMMOGRAPHY = "MG"
MODALITIES = (MAMMOGRAPHY, "KO")
"""Modalities of the series that are retrieved: mammography, and documents that may reject its images (IHE IOCM)."""
WANTED = (str(acceptance.FOR_PRESENTATION), str(acceptance.FOR_PROCESSING), REJECTION_CLASS)
"""SOP classes that are retrieved; others, such as tomosynthesis, would be skipped after their reception."""

MOST_MATCHES = 10_000
"""Largest number of matches of one query, and of wanted objects of one study."""
SEARCH_TIMEOUTS = 10
"""A search, or the time without a byte of the object of a retrieval, takes at most this many times `timeout_s`."""

Begin = Callable[[Claim | None], Upload]
"""Begins the reception of an object: with a claim of its data set, without one of a whole DICOM file."""

Proceed = Callable[[], bool]
"""Whether to go on; a session asks while it waits for the archive, and raises `StoppedError` for False."""


class StoppedError(Exception):
    """A search or retrieval was broken off, because it is not wanted at present."""


@dataclass(frozen=True, kw_only=True)
class FoundStudies:
    """Result of a search."""

    studies: tuple[str, ...]
    """Study Instance UIDs, each once, or identifiers in their place that the receiver accepts too."""
    refused: int = 0
    """Number of results without such an identifier."""


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
    refused: int = 0
    """Number of wanted series and objects that cannot be retrieved, because their UIDs are no identifiers."""


class ArchiveSession(Protocol):
    """A connection to the archive, for one thread.

    Methods raise PeerBroke if the archive ends the connection or does not answer; PeerDeclined if it declines this
    request and may answer others; PeerError if a person has to change something first. No message has an identifier.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def studies(self, *, day: str = "", accession: str = "") -> FoundStudies:
        """The studies with mammography of a day (YYYYMMDD), or with an accession number.

        Studies whose modalities the archive does not tell are among them.
        """

    def content(self, study_uid: str) -> StudyContent:
        """The objects of a study that are wanted."""

    def retrieve(self, image: ImageRef, begin: Begin) -> Receipt | None:
        """Retrieve an object; its receipt, None if it was not sent, or arrives at the receiver (C-MOVE).

        What the archive sends beside it is refused.
        """


def always() -> bool:
    """A `Proceed` that never stops."""
    return True


def found_studies(uids: Iterable[str]) -> FoundStudies:
    """What a search found; an identifier that an archive may take for a pattern or a path is refused."""
    listed = list(uids)
    usable = [uid for uid in listed if is_identifier(uid)]
    return FoundStudies(studies=tuple(dict.fromkeys(usable)), refused=len(listed) - len(usable))


def study_content(
    study_uid: str,
    series: Mapping[str, str],
    objects: Callable[[str], Iterable[tuple[str, str]]],
    *,
    peer: object,
    seconds: float,
) -> StudyContent:
    """The wanted objects of a study. `series`: UID -> modality. `objects`: SOP Class and Instance UIDs of a series.

    Raises PeerBroke for more than `MOST_MATCHES` of them, or after `seconds`.
    """
    deadline, refused, images = time.monotonic() + seconds, 0, list[ImageRef]()
    for series_uid in [uid for uid, modality in series.items() if modality in MODALITIES]:
        if not is_identifier(series_uid):
            refused += 1
            continue
        for sop_class, sop_uid in objects(series_uid):
            if not is_wanted_class(sop_class):
                continue
            if is_identifier(sop_uid):
                images.append(ImageRef(study_uid=study_uid, series_uid=series_uid, sop_uid=sop_uid))
            else:
                refused += 1
            if len(images) + refused > MOST_MATCHES or time.monotonic() > deadline:
                raise PeerBroke(too_much(peer, "the objects of one study", seconds))
    return StudyContent(series=len(series), images=tuple(images), refused=refused)


def too_much(peer: object, what: str, seconds: float) -> str:
    """Message about a search without end."""
    return f"{peer} answers a search for {what} with more than {MOST_MATCHES} matches, or for longer than {seconds:g} s"


def is_wanted_class(sop_class: str) -> bool:
    """Whether objects of a SOP class are retrieved; those of a class that the archive does not tell are."""
    return not sop_class or sop_class in WANTED


def agrees(stated: str, asked: str) -> bool:
    """Whether a result has the value that was searched for: an archive may ignore a key, and give all its studies."""
    return not asked or not stated or stated == asked


def has_mammography(modalities: Sequence[str]) -> bool:
    """Whether a study with these ModalitiesInStudy may have mammograms; an archive may not tell them."""
    return not modalities or MAMMOGRAPHY in modalities
