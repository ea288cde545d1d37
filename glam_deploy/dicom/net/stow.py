"""Sending over HTTP: STOW-RS (PS3.18 section 10.5), and the QIDO-RS that proves delivery (section 10.6)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from glam_deploy.dicom.net.delivery import Answer, Item


@dataclass(frozen=True, kw_only=True)
class StowPeer:
    """A DICOMweb service."""

    url: str
    """Its root, https://pacs/dicom-web."""
    token: str | None = field(default=None, repr=False)
    """Sent as bearer token."""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    """Of `user`, for basic authentication."""
    certificate: Path | None = None
    key: Path | None = None
    """Shown where the service asks for them."""
    authority: Path | None = None
    """What its certificate must be signed by; None: an authority that this machine trusts."""
    timeout_s: float = 30

    def __str__(self) -> str:
        return self.url


class StowSession:
    """Requests to one service about one result set: a `delivery.Session`. Entering sends nothing yet."""

    def __init__(self, peer: StowPeer) -> None:
        self.peer = peer

    def __enter__(self) -> "StowSession":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    def store(self, item: Item) -> Answer:
        """Raises PeerError where the service cannot be reached or turns us away, PeerBroke where it breaks off."""
        raise NotImplementedError

    def holds(self, items: Sequence[Item]) -> frozenset[str]:
        """Those UIDs of `items` that QIDO-RS shows. Raises PeerDeclined where it cannot be asked."""
        raise NotImplementedError


def ask(peer: StowPeer) -> float:
    """Ask the service for a sign of life (a QIDO-RS search that finds nothing): seconds. Raises PeerError."""
    raise NotImplementedError
