"""Instances of a DICOMweb server as a source: studies, series and instances by QIDO-RS, files by WADO-RS."""

import netrc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from glam_deploy.archive.sources.base import Entry, OnPassedOver, SourceUnavailable, ignored
from glam_deploy.archive.sources.storage import Doubt, with_retries
from glam_deploy.dicom.terms import DEFINED
from glam_deploy.errors import GlamError, InputError, PeerBroke, PeerDeclined, PeerError, UsageError
from glam_deploy.installation import refusal
from glam_deploy.reading import MAX_BYTES

if TYPE_CHECKING:
    from glam_deploy.dicom.net.dicomweb import WebPeer
    from glam_deploy.dicom.net.wado import WebReader

T = TypeVar("T")

SCHEMES = ("dicomweb+https", "dicomweb+http")
TOKEN, USER, PASSWORD = "GLAM_DICOMWEB_TOKEN", "GLAM_DICOMWEB_USER", "GLAM_DICOMWEB_PASSWORD"
"""Environment variables with a bearer token, or with user and password."""
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_MODALITIES, _MODALITY = "00080061", "00080060"
"""ModalitiesInStudy and Modality, which results have (PS3.18 tables 10.6.3-3 to 10.6.3-5)."""
_LEVELS = (("studies", _STUDY, _MODALITIES), ("series", _SERIES, _MODALITY), ("instances", _INSTANCE, _MODALITY))
"""Part of the path, element with the UID, element with the modality."""
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_WITHOUT_UID = "/?without-uid"
"""End of the location of the entry for results without a UID."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_MARGIN = 1 << 16
"""Bytes of a response beside the file."""


class _Connection:
    """The session of this process with the server; a copy in another process begins with none."""

    def __init__(self) -> None:
        self._reader: WebReader | None = None

    def __reduce__(self) -> tuple[type["_Connection"], tuple[()]]:
        return _Connection, ()

    def __del__(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def to(self, peer: "WebPeer") -> "WebReader":
        from glam_deploy.dicom.net.wado import WebReader

        if self._reader is None:
            self._reader = WebReader(peer)
        return self._reader


@dataclass(frozen=True, kw_only=True)
class DicomwebSource:
    """The instances of a server in series of certain modalities, in the order of the server.

    `version` of an entry is constant, because another content needs another SOP Instance UID (PS3.5 section 9).
    """

    peer: "WebPeer"
    modalities: Sequence[str] = ("MG",)
    """Empty for all."""
    _connection: _Connection = field(default_factory=_Connection, compare=False, repr=False)

    def entries(self, on_passed_over: OnPassedOver = ignored) -> Iterator[Entry]:
        # no filter is sent: with one, Orthanc's DICOMweb 1.7 leaves out studies on all pages but the first
        return self._below(_Connection(), "")  # another thread may read meanwhile

    def _below(self, listing: _Connection, parent: str) -> Iterator[Entry]:
        """The instances below a path: "" or that of a study or series.

        A study or series that the server lists, but not what is in it, is an entry itself, so that it gets a row with
        the reason; so are all results without a UID below one path.
        """
        name, tag, modalities = _LEVELS[parent.count("/") // 2]
        path, uids, junk = f"{parent}/{name}", 0, 0
        try:
            for item in listing.to(self.peer).search(path, tag, ask=self._ask):
                if (uid := _uid(item, tag)) is None:
                    junk += 1
                    continue
                uids += 1
                if not self._is_wanted(item, modalities):
                    continue
                if name == "instances":
                    yield Entry(location=f"{self._root}{path}/{uid}", name=uid, version="instance")
                else:
                    yield from self._below(listing, f"{path}/{uid}")
        except PeerError as error:
            raise SourceUnavailable(str(error)) from None
        except Doubt as doubt:
            if not parent or not self._answers(listing):
                raise SourceUnavailable(str(doubt)) from None
            uids = junk = 0
        if junk:
            yield Entry(location=f"{self._root}{path}{_WITHOUT_UID}", name=f"{name} without UID")
        elif parent and not uids:
            yield Entry(location=f"{self._root}{parent}", name=parent.rpartition("/")[2])

    def _is_wanted(self, item: Mapping[str, Any], modalities: str) -> bool:
        """Whether the element `modalities` of a result has one asked for, or is absent."""
        from glam_deploy.dicom.net.dicomweb import values_at

        stated = {str(value) for value in values_at(item, modalities)}
        return not (self.modalities and stated) or bool(stated & {*self.modalities})

    def owns(self, location: str) -> bool:
        return location.startswith(f"{self._root}/studies/")

    def read(self, entry: Entry) -> bytes:
        path = entry.location.removeprefix(self._root)
        if path.endswith(_WITHOUT_UID):
            raise InputError("the server lists results without a UID, which cannot be retrieved: check its index")
        if path.count("/") < 2 * len(_LEVELS):
            raise self._unlisted(path)
        try:
            content = self._ask(lambda: self._connection.to(self.peer).retrieve(path, most=MAX_BYTES + _MARGIN))
        except Doubt as doubt:
            if self._answers(self._connection):
                raise InputError(f"the instance cannot be retrieved: {doubt}") from None
            raise SourceUnavailable(str(doubt)) from None
        if len(content) > MAX_BYTES:
            raise InputError(f"it has more than {MAX_BYTES} bytes, too many for one mammogram")
        _compare(path, content)
        return content

    @property
    def _root(self) -> str:
        return f"dicomweb+{self.peer.url}"

    def _unlisted(self, path: str) -> GlamError:
        """Why the study or series at `path` has no instances in the listing."""
        name = _LEVELS[path.count("/") // 2][0]
        try:
            self._ask(lambda: self._connection.to(self.peer).page(f"{path}/{name}", {"limit": "1"}))
        except Doubt as doubt:
            if not self._answers(self._connection):
                return SourceUnavailable(str(doubt))
            return InputError(f"its {name} cannot be listed: {doubt}")
        return InputError(f"the server listed none or not all of its {name}: run again, so that it is listed again")

    def _ask(self, call: Callable[[], T]) -> T:
        """`call()`, repeated if there is no answer. Raises Doubt, and SourceUnavailable if all requests are denied."""

        def once() -> T:
            try:
                return call()
            except (PeerBroke, PeerDeclined) as error:
                is_declined = isinstance(error, PeerDeclined)
                raise Doubt(str(error), about_entry=is_declined, may_pass=not is_declined) from None
            except PeerError as error:
                raise SourceUnavailable(str(error)) from None

        return with_retries(once)

    def _answers(self, connection: _Connection) -> bool:
        try:
            self._ask(lambda: connection.to(self.peer).page("/studies", {"limit": "1"}))
        except (Doubt, SourceUnavailable):
            return False
        return True


def _uid(item: Mapping[str, Any], tag: str) -> str | None:
    """The UID of a result, quoted for a path; None without one."""
    from glam_deploy.dicom.net.dicomweb import first_value

    value = first_value(item, tag)
    uid = value.strip(" \0") if isinstance(value, str) else ""
    return quote(uid, safe="") if uid.strip(".") else None


def _compare(path: str, content: bytes) -> None:
    """Raise InputError if a file states other UIDs than the path of its instance.

    A file without UIDs, or whose header cannot be read, is left to its decoding, which states what is wrong with it.
    """
    from glam_deploy.dicom.attributes import values_of

    try:
        values = values_of(content, _UIDS)
    except Exception:  # a damaged header may break the parser
        return
    found = [next(iter(values[keyword]), "") for keyword in _UIDS]
    if any(found) and found != [unquote(uid) for uid in path.split("/")[2::2]]:
        raise InputError(
            "the server answers with another object than the one asked for, because the UIDs of study, series or "
            "instance differ: check the server, or export the instance"
        )


def open_dicomweb(text: str, *, modalities: Sequence[str], authority: Path | None) -> DicomwebSource:
    """The source of `dicomweb+https://HOST/PATH`, with credentials of the environment or of the netrc file.

    Raises UsageError for another form, for an unknown modality, and for credentials that would be sent without
    encryption; BackendUnavailable without `requests` or pydicom.
    """
    try:
        from glam_deploy.dicom.net.dicomweb import WebPeer
    except ModuleNotFoundError as error:
        if (absence := refusal(error, user="DICOMweb")) is None:
            raise
        raise absence from error
    if unknown := [name for name in modalities if name not in DEFINED["Modality"]]:
        raise UsageError(
            f"--modality {unknown[0]} is no modality of DICOM (PS3.3 section C.7.3.1.1.1), expected one of "
            f"{', '.join(sorted(DEFINED['Modality']))}"
        )
    url = text.removeprefix("dicomweb+").rstrip("/")
    address = urlsplit(url)
    if address.username or address.query or address.fragment or not address.hostname:
        raise UsageError(
            "the URL of a DICOMweb server is dicomweb+https://HOST/PATH, without user, password and query: set "
            f"{TOKEN}, or {USER} and {PASSWORD}, in the environment, or write a netrc file"
        )
    token, user, password = os.environ.get(TOKEN), os.environ.get(USER), os.environ.get(PASSWORD)
    if token is None and user is None:
        user, password = _from_netrc(address.hostname)
    if (token or user) and address.scheme == "http" and address.hostname not in _LOOPBACK:
        raise UsageError(f"{url} is http, which sends the token or password unencrypted: use dicomweb+https")
    peer = WebPeer(url=url, token=token, user=None if token else user, password=password, authority=authority)
    return DicomwebSource(peer=peer, modalities=tuple(modalities))


def _from_netrc(host: str) -> tuple[str | None, str | None]:
    """User and password of a host in the file of the variable NETRC, else ~/.netrc."""
    path = Path(os.environ.get("NETRC") or Path("~/.netrc").expanduser())
    try:
        found = netrc.netrc(path).hosts.get(host)
    except FileNotFoundError:
        return None, None
    except (OSError, netrc.NetrcParseError, ValueError):
        raise UsageError(f"{path} cannot be read as a netrc file: correct it, or set NETRC to another one") from None
    return (found[0], found[2]) if found else (None, None)
