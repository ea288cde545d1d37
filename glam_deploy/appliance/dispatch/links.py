"""From a target of the configuration to sessions with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from glam_deploy.appliance.config import Target, Tls
from glam_deploy.dicom.net.delivery import Item, Session
from glam_deploy.dicom.net.peer import Peer, TlsFiles
from glam_deploy.errors import PeerError

if TYPE_CHECKING:
    from glam_deploy.dicom.net.stow import StowPeer


class Link(Protocol):
    """The way to one target."""

    def session(self, items: Sequence[Item]) -> Session:
        """For sending and proving `items`; entering it raises PeerError."""

    def ask(self) -> None:
        """Raises PeerError where the target gives no sign of life."""


@dataclass(frozen=True, kw_only=True)
class DimseLink:
    """C-STORE to a listener."""

    target: Target
    timeout_s: float

    def session(self, items: Sequence[Item]) -> Session:
        from glam_deploy.dicom.net.sender import DimseSession

        commitment = self.target.commitment
        return DimseSession(self.peer(), items, query=self.target.query and not commitment, commitment=commitment)

    def ask(self) -> None:
        from glam_deploy.dicom.net.sender import echo

        echo(self.peer())

    def peer(self) -> Peer:
        target = self.target
        assert target.ae_title and target.host and target.port is not None  # Target has checked
        return Peer(
            ae_title=target.ae_title,
            host=target.host,
            port=target.port,
            calling_ae_title=target.calling_ae_title,
            tls=tls_files(target.tls) if target.tls else None,
            timeout_s=self.timeout_s,
        )


@dataclass(frozen=True, kw_only=True)
class StowLink:
    """STOW-RS to a DICOMweb service. Files of secrets are read anew for each session: they may be exchanged."""

    target: Target
    timeout_s: float

    def session(self, items: Sequence[Item]) -> Session:
        from glam_deploy.dicom.net.stow import StowSession

        return StowSession(self.peer())

    def ask(self) -> None:
        from glam_deploy.dicom.net.stow import ask

        ask(self.peer())

    def peer(self) -> "StowPeer":
        """Raises PeerError where a file of secrets cannot be read."""
        from glam_deploy.dicom.net.stow import StowPeer

        target, tls = self.target, self.target.tls
        assert target.stow_url  # Target has checked
        return StowPeer(
            url=target.stow_url,
            token=_secret(target.stow_token_file),
            user=target.stow_user,
            password=_secret(target.stow_password_file),
            certificate=tls.certificate if tls else None,
            key=tls.key if tls else None,
            authority=tls.authority if tls else target.stow_authority,
            timeout_s=self.timeout_s,
        )


def tls_files(tls: Tls) -> TlsFiles:
    """As the network side knows them."""
    return TlsFiles(certificate=tls.certificate, key=tls.key, authority=tls.authority)


def _secret(path: Path | None) -> str | None:
    """The first line of a file."""
    if path is None:
        return None
    try:
        return path.read_text("ascii").splitlines()[0].strip()
    except (OSError, IndexError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is empty, or no ASCII text"
        raise PeerError(
            f"{path} gives no token or password ({reason}): expected a file with one line that this user may read"
        ) from None


def link_to(target: Target, timeout_s: float) -> Link:
    """By C-STORE or STOW-RS, as the target is configured."""
    kind = StowLink if target.stow_url else DimseLink
    return kind(target=target, timeout_s=timeout_s)
