"""DICOMweb client that reads an archive: searches by QIDO-RS, one object by WADO-RS."""

from collections.abc import Sequence
from typing import Any, Self
from urllib.parse import quote

from glam_deploy.dicom.net.archive import (
    MAMMOGRAPHY,
    MODALITIES,
    Begin,
    ImageRef,
    StudyContent,
    agrees,
    has_mammography,
    is_wanted_class,
)
from glam_deploy.dicom.net.associations import Receipt
from glam_deploy.dicom.net.dicomweb import WebPeer, first_value, values_at
from glam_deploy.dicom.net.wado import NotFound, WebReader

_STUDY, _SERIES, _INSTANCE, _CLASS = "0020000D", "0020000E", "00080018", "00080016"
_DATE, _ACCESSION = "00080020", "00080050"
_MODALITIES, _MODALITY = "00080061", "00080060"
SEARCH_LIMIT = 5000
"""Studies of one answer; more than a day has, because Orthanc's DICOMweb 1.7 loses some on further pages."""


class WebSession:
    """A session with a DICOMweb service: an `archive.ArchiveSession`."""

    def __init__(self, peer: WebPeer, *, most: int) -> None:
        """`most`: largest object in bytes."""
        self._reader, self._most = WebReader(peer), most

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def studies(self, *, day: str = "", accession: str = "") -> Sequence[str]:
        asked = {"StudyDate": day} if day else {"AccessionNumber": accession}
        asked["ModalitiesInStudy"] = MAMMOGRAPHY
        found = self._reader.search("/studies", _STUDY, matching=asked, limit=SEARCH_LIMIT)
        return [
            uid
            for item in found
            if has_mammography(_texts(item, _MODALITIES))
            and agrees(_text(item, _DATE), day)
            and agrees(_text(item, _ACCESSION), accession)
            and (uid := _text(item, _STUDY))
        ]

    def content(self, study_uid: str) -> StudyContent:
        path = f"/studies/{quote(study_uid, safe='')}/series"
        try:
            series = {_text(item, _SERIES): _text(item, _MODALITY) for item in self._reader.search(path, _SERIES)}
        except NotFound:
            series = {}
        wanted = [uid for uid, modality in series.items() if uid and modality in MODALITIES]
        return StudyContent(
            series=len(series), images=tuple(image for uid in wanted for image in self._images(study_uid, uid))
        )

    def _images(self, study_uid: str, series_uid: str) -> Sequence[ImageRef]:
        path = f"/studies/{quote(study_uid, safe='')}/series/{quote(series_uid, safe='')}/instances"
        return [
            ImageRef(study_uid=study_uid, series_uid=series_uid, sop_uid=uid)
            for item in self._reader.search(path, _INSTANCE)
            if is_wanted_class(_text(item, _CLASS)) and (uid := _text(item, _INSTANCE))
        ]

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
