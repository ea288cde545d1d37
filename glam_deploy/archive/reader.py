"""Entry of a source -> its content, identity and mammogram."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Protocol

from glam_deploy import reading
from glam_deploy.archive.identifiers import patient_of
from glam_deploy.archive.rows import Finding, finding_of_error
from glam_deploy.archive.sources.base import Entry, Source, SourceUnavailable
from glam_deploy.records import Mammogram, picklable


class Condition(Protocol):
    """A condition on the header of an image."""

    def matches(self, data: bytes) -> bool: ...

    def __str__(self) -> str: ...


class Decoder(Protocol):
    """Decodes the content of a file with the path `name`; raises as `reading.read`."""

    def __call__(self, data: bytes, name: PurePath, /, *, for_processing: bool) -> Mammogram: ...


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What is known of an entry after it was read."""

    sha256: str = ""
    """Of the content, as hexadecimal digits; "" if it could not be read."""
    bytes: int | None = None
    uids: Mapping[str, str] = field(default_factory=dict)
    """DICOM keyword -> UID, as `Source.uids`."""
    has_view_of_name: bool = False
    """Whether the result depends on the view in its name."""
    patient: str = field(default="", repr=False)
    """As `identifiers.patient_of`, for its pseudonym."""
    excluded: str = ""
    """The condition that excludes it."""
    finding: Finding | None = None
    """Of an instance that cannot be used, or of an entry without readable content."""
    unavailable: str = ""
    """Message, if the source cannot be reached."""


@dataclass(frozen=True, kw_only=True)
class DecodedView:
    """An image that can be used, on its way from a reader to a predictor."""

    mammogram: Mammogram
    header: bytes = field(default=b"", repr=False)
    """Its DICOM file without pixels, so with the patient's data; empty if none is asked for, or for other formats."""


@dataclass(frozen=True, kw_only=True)
class EntryReader:
    """Reads and decodes entries; sent to the reading processes."""

    source: Source
    for_processing: bool = False
    where: Condition | None = None
    patients: bool = False
    """Whether the patient is read, for its pseudonym."""
    headers: bool = False
    """Whether the header of a DICOM image is passed on, for result objects."""

    def read(self, entry: Entry, decoder: Decoder | None) -> tuple[Fingerprint, DecodedView | None]:
        """Read an entry: its fingerprint, and its view if it can be used. Raises no error of the entry.

        `decoder`: None to read content and UIDs only.
        """
        try:
            content = self.source.read(entry)
        except SourceUnavailable as error:
            return Fingerprint(unavailable=str(error)), None
        except Exception as error:
            return Fingerprint(finding=finding_of_error(error)), None
        patient = self._patient(content) if self.patients else ""
        known = Fingerprint(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content), patient=patient)
        try:
            if decoder is None:
                return self._identified(content, known), None
            return self._decoded(entry, content, known, decoder)
        except Exception as error:
            return replace(self._identified(content, known), finding=finding_of_error(error)), None

    def _decoded(
        self, entry: Entry, content: bytes, known: Fingerprint, decoder: Decoder
    ) -> tuple[Fingerprint, DecodedView | None]:
        if self.where is not None and not self.where.matches(content):
            return replace(known, excluded=str(self.where)), None
        mammogram = decoder(content, entry.path, for_processing=self.for_processing)
        # not from the decoder, which an image may have taken over: by its UIDs another entry counts as a duplicate
        found = self._identified(content, known)
        source = replace(picklable(mammogram.source), name=entry.name, uids=found.uids)
        header = _header(content) if self.headers and source.kind == "dicom" else b""
        return found, DecodedView(mammogram=replace(mammogram, source=source), header=header)

    def _patient(self, content: bytes) -> str:
        try:
            return patient_of(content)
        except Exception:  # a header that breaks the parser has no patient
            return ""

    def _identified(self, content: bytes, known: Fingerprint) -> Fingerprint:
        try:
            named = reading.has_view_of_name(content)
            return replace(known, uids=dict(reading.uids_of(content)), has_view_of_name=named)
        except Exception:  # a header that breaks the parser has no UIDs
            return known


def _header(content: bytes) -> bytes:
    from glam_deploy.dicom.part10 import without_pixels
    from glam_deploy.dicom.read import MAX_BYTES

    return without_pixels(content, limit=MAX_BYTES)
