"""The archive of [fetch]: sessions by DIMSE or DICOMweb, and how to find out whether it answers."""

from collections.abc import Sequence
from typing import Protocol

from glam_deploy.appliance.config import Config, Fetch
from glam_deploy.appliance.targets import tls_files, web_peer
from glam_deploy.dicom.net.archive import ArchiveSession, Proceed
from glam_deploy.dicom.net.dicomweb import WebPeer
from glam_deploy.dicom.net.peer import Peer
from glam_deploy.dicom.net.retrieve import RetrieveSession
from glam_deploy.dicom.net.sender import echo
from glam_deploy.dicom.net.stow import ask
from glam_deploy.dicom.net.web_archive import WebSession
from glam_deploy.reading import MAX_BYTES


class ArchiveClient(Protocol):
    """Access to the archive."""

    def session(self, proceed: Proceed) -> ArchiveSession:
        """A session that ends when `proceed` says so; entering it raises PeerError."""

    def check_reachable(self) -> None:
        """Raises PeerError if the archive does not answer (C-ECHO, QIDO-RS)."""

    def missing(self) -> Sequence[str]:
        """Names of what fetching needs and the archive does not accept; of DICOMweb only a retrieval shows it.

        Raises PeerError if it does not answer.
        """


class DimseArchive:
    """An archive that is read by C-FIND and C-GET or C-MOVE."""

    def __init__(self, fetch: Fetch, most: int, destination: str | None) -> None:
        """`most`: largest object in bytes. `destination`: own AE title for C-MOVE; None for C-GET."""
        assert fetch.ae_title and fetch.host and fetch.port is not None  # Fetch has checked
        self._most, self._destination = most, destination
        self._peer = Peer(
            ae_title=fetch.ae_title,
            host=fetch.host,
            port=fetch.port,
            calling_ae_title=fetch.calling_ae_title,
            tls=tls_files(fetch.tls) if fetch.tls else None,
            timeout_s=fetch.timeout_s,
        )

    def session(self, proceed: Proceed) -> ArchiveSession:
        return RetrieveSession(self._peer, most=self._most, destination=self._destination, proceed=proceed)

    def check_reachable(self) -> None:
        echo(self._peer)

    def missing(self) -> Sequence[str]:
        with RetrieveSession(self._peer, destination=self._destination) as session:
            return session.missing()


class WebArchive:
    """An archive that is read by QIDO-RS and WADO-RS. Secret files are read for each session; they may be replaced."""

    def __init__(self, fetch: Fetch, most: int) -> None:
        """`most`: largest object in bytes."""
        self._fetch, self._most = fetch, most

    def session(self, proceed: Proceed) -> ArchiveSession:
        return WebSession(self._peer(), most=self._most, proceed=proceed)

    def check_reachable(self) -> None:
        ask(self._peer())

    def missing(self) -> Sequence[str]:
        self.check_reachable()
        return ()

    def _peer(self) -> WebPeer:
        fetch = self._fetch
        assert fetch.url  # Fetch has checked
        return web_peer(
            fetch.url,
            token_file=fetch.token_file,
            user=fetch.user,
            password_file=fetch.password_file,
            tls=fetch.tls,
            authority=fetch.authority,
            timeout_s=fetch.timeout_s,
        )


def archive_client(config: Config, fetch: Fetch) -> ArchiveClient:
    """The client for the archive: DIMSE or DICOMweb, as configured."""
    most = min(config.receive.max_object_bytes, MAX_BYTES)
    if fetch.url:
        return WebArchive(fetch, most)
    return DimseArchive(fetch, most, config.receive.ae_title if fetch.moves else None)
