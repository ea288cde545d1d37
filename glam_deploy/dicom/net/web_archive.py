"""DICOMweb client that reads an archive: searches by QIDO-RS, one object by WADO-RS."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self
from urllib.parse import quote

from glam_deploy.dicom.net.archive import (
    MAMMOGRAPHY,
    MOST_MATCHES,
    SEARCH_TIMEOUTS,
    Begin,
    FoundStudies,
    ImageRef,
    Proceed,
    StoppedError,
    StudyContent,
    agrees,
    always,
    found_studies,
    has_mammography,
    study_content,
    too_much,
)
from glam_deploy.dicom.net.associations import Receipt
from glam_deploy.dicom.net.dicomweb import WebPeer, first_value, values_at
from glam_deploy.dicom.net.wado import NotFound, Page, WebReader
from glam_deploy.errors import PeerBroke

_STUDY, _SERIES, _INSTANCE, _CLASS = "0020000D", "0020000E", "00080018", "00080016"
_DATE, _ACCESSION = "00080020", "00080050"
_MODALITIES, _MODALITY = "00080061", "00080060"
SEARCH_LIMIT = 5000
"""Studies of one answer; more than a day has, because Orthanc's DICOMweb 1.7 loses some on further pages."""


class WebSession:
    """A session with a DICOMweb service: an `archive.ArchiveSession`."""

    def __init__(self, peer: WebPeer, *, most: int, proceed: Proceed = always) -> None:
        """`most`: largest object in bytes. A request that was sent is not stopped; it has a limit of time."""
        self._reader, self._most, self._proceed = WebReader(peer), most, proceed
        self._search_s = SEARCH_TIMEOUTS * peer.timeout_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def studies(self, *, day: str = "", accession: str = "") -> FoundStudies:
        asked = {"StudyDate": day} if day else {"AccessionNumber": accession}
        asked["ModalitiesInStudy"] = MAMMOGRAPHY
        found = self._search("/studies", _STUDY, matching=asked, limit=SEARCH_LIMIT)
        return found_studies(
            _text(item, _STUDY)
            for item in found
            if has_mammography(_texts(item, _MODALITIES))
            and agrees(_text(item, _DATE), day)
            and agrees(_text(item, _ACCESSION), accession)
        )

    def content(self, study_uid: str) -> StudyContent:
        path = f"/studies/{quote(study_uid, safe='')}/series"
        try:
            series = {_text(item, _SERIES): _text(item, _MODALITY) for item in self._search(path, _SERIES)}
        except NotFound:
            series = {}

        def objects(series_uid: str) -> Iterator[tuple[str, str]]:
            for item in self._search(f"{path}/{quote(series_uid, safe='')}/instances", _INSTANCE):
                yield _text(item, _CLASS), _text(item, _INSTANCE)

        return study_content(study_uid, series, objects, peer=self._reader.peer, seconds=self._search_s)

    def _search(self, path: str, tag: str, **options: Any) -> Iterator[Mapping[str, Any]]:
        """Results with the limits of C-FIND. Raises PeerBroke beyond them."""
        deadline, problem = (
            time.monotonic() + self._search_s,
            too_much(self._reader.peer, "studies or objects", self._search_s),
        )

        def ask(request: Callable[[], Page]) -> Page:
            if not self._proceed():
                raise StoppedError
            if time.monotonic() > deadline:
                raise PeerBroke(problem)
            return request()

        for count, item in enumerate(self._reader.search(path, tag, ask=ask, **options), 1):
            if count > MOST_MATCHES:
                raise PeerBroke(problem)
            yield item

    def retrieve(self, image: ImageRef, begin: Begin) -> Receipt:
        study, series, instance = (quote(uid, safe="") for uid in (image.study_uid, image.series_uid, image.sop_uid))
        content = self._reader.retrieve(f"/studies/{study}/series/{series}/instances/{instance}", most=self._most)
        with begin(None) as upload:
            upload.write(content)
            return upload.finish()


def _text(item: Any, tag: str) -> str:
    value = first_value(item, tag)
    return value.strip(" \0") if isinstance(value, str) else ""


def _texts(item: Any, tag: str) -> list[str]:
    return [str(value) for value in values_at(item, tag)]
