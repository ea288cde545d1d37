"""The configured targets: clients (C-STORE, STOW-RS, folders), state of each (circuit breaker), and the loop check."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from glam_deploy.appliance.config import Config, Target, Tls
from glam_deploy.dicom.net.delivery import Item, Session
from glam_deploy.dicom.net.peer import Peer, TlsFiles
from glam_deploy.errors import PeerError
from glam_deploy.regular import SMALL_FILE, read_regular

if TYPE_CHECKING:
    from glam_deploy.dicom.net.dicomweb import WebPeer

P = TypeVar("P")

SUSPECTS_TO_BLAME_TARGET = 2
"""Number of different deliveries that must fail, without a success in between, to blame the target."""


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential backoff in seconds: doubles from `first_s` up to `longest_s`."""

    first_s: float
    longest_s: float

    def after(self, failures: int) -> float:
        """The wait after this many failures in a row, 1 or more."""
        return min(self.first_s * 2.0 ** min(failures - 1, 100), self.longest_s)


@dataclass(frozen=True, kw_only=True)
class Suspect(Generic[P]):
    """A delivery at which the target broke off."""

    delivery: P
    times: int
    reason: str


@dataclass(kw_only=True)
class TargetHealth(Generic[P]):
    """State of one target; times are monotonic, in seconds. Nothing is sent before `not_before`."""

    backoff: Backoff
    failures: int = 0
    """Failures in a row that have opened the circuit."""
    not_before: float = 0.0
    reason: str = ""
    """The target's fault; "" while it works."""
    suspects: dict[int, Suspect[P]] = field(default_factory=dict)
    """Delivery id -> deliveries at which the target broke off since it last accepted an object."""

    def may_try(self, now: float) -> bool:
        return now >= self.not_before

    def retry_now(self) -> None:
        """Allow a try at once and reset the backoff, because a person asked for it."""
        self.failures, self.not_before = 0, 0.0

    def record_unreachable(self, now: float, reason: str) -> None:
        """The target could not be reached: open the circuit."""
        self.failures += 1
        self.not_before = now + self.backoff.after(self.failures)
        self.reason = reason

    def record_interruption(self, delivery_id: int, delivery: P, now: float, reason: str) -> float:
        """The target broke off during this delivery; the monotonic time of its next try."""
        before = self.suspects.get(delivery_id)
        times = before.times + 1 if before else 1
        self.suspects[delivery_id] = Suspect(delivery=delivery, times=times, reason=reason)
        if len(self.suspects) >= SUSPECTS_TO_BLAME_TARGET:
            self.record_unreachable(now, reason)
        return now + self.backoff.after(times)

    def record_success(self, delivery_id: int) -> list[Suspect[P]]:
        """The target answered for an object of this delivery: close the circuit; the other suspects are to blame."""
        blamed = [suspect for other, suspect in self.suspects.items() if other != delivery_id]
        self.failures, self.not_before, self.reason = 0, 0.0, ""
        self.suspects.clear()
        return blamed


class TargetClient(Protocol):
    """Access to one target."""

    def session(self, items: Sequence[Item]) -> Session:
        """A session for sending and verifying `items`; entering it raises PeerError."""

    def check_reachable(self) -> None:
        """Raises PeerError if the target does not answer (C-ECHO, QIDO-RS)."""

    def not_accepted(self, kinds: Sequence[str]) -> Mapping[str, str]:
        """What a delivery of these kinds of objects needs and the target does not accept: a kind, "query" or
        "commitment" -> name of its SOP class.

        Raises PeerError if the target does not answer.
        """


@dataclass(frozen=True, kw_only=True)
class DimseClient:
    """Sends by C-STORE to a DICOM listener."""

    target: Target
    timeout_s: float

    def session(self, items: Sequence[Item]) -> Session:
        from glam_deploy.dicom.net.sender import DimseSession

        commitment = self.target.commitment
        return DimseSession(self.peer(), items, query=self.target.query and not commitment, commitment=commitment)

    def check_reachable(self) -> None:
        from glam_deploy.dicom.net.sender import echo

        echo(self.peer())

    def not_accepted(self, kinds: Sequence[str]) -> Mapping[str, str]:
        from glam_deploy.dicom.net.sender import not_accepted
        from glam_deploy.dicom.results.kinds import KINDS

        commitment = self.target.commitment
        wanted = {kind: (KINDS[kind].sop_class, KINDS[kind].transfer_syntax) for kind in kinds}
        return not_accepted(self.peer(), wanted, query=self.target.query and not commitment, commitment=commitment)

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
class StowClient:
    """Sends by STOW-RS to a DICOMweb service. Secret files are read for each session, since they may be replaced."""

    target: Target
    timeout_s: float

    def session(self, items: Sequence[Item]) -> Session:
        from glam_deploy.dicom.net.stow import StowSession

        return StowSession(self.peer())

    def check_reachable(self) -> None:
        from glam_deploy.dicom.net.stow import ask

        ask(self.peer())

    def not_accepted(self, kinds: Sequence[str]) -> Mapping[str, str]:
        """Nothing: DICOMweb has no negotiation, so that only a store shows it."""
        return {}

    def peer(self) -> "WebPeer":
        """The service with its credentials. Raises PeerError if a secret file cannot be read."""
        target = self.target
        assert target.stow_url  # Target has checked
        return web_peer(
            target.stow_url,
            token_file=target.stow_token_file,
            user=target.stow_user,
            password_file=target.stow_password_file,
            tls=target.tls,
            authority=target.stow_authority,
            timeout_s=self.timeout_s,
        )


@dataclass(frozen=True, kw_only=True)
class FolderClient:
    """Writes files into a folder."""

    folder: Path

    def session(self, items: Sequence[Item]) -> Session:
        from glam_deploy.dicom.net.folder import FolderSession

        return FolderSession(folder=self.folder)

    def check_reachable(self) -> None:
        from glam_deploy.dicom.net.folder import require_usable

        require_usable(self.folder)

    def not_accepted(self, kinds: Sequence[str]) -> Mapping[str, str]:
        """Nothing: a folder takes objects of every kind."""
        return {}


def web_peer(
    url: str,
    *,
    token_file: Path | None,
    user: str | None,
    password_file: Path | None,
    tls: Tls | None,
    authority: Path | None,
    timeout_s: float,
) -> "WebPeer":
    """A DICOMweb service with its credentials. Raises PeerError if a secret file cannot be read."""
    from glam_deploy.dicom.net.dicomweb import WebPeer

    return WebPeer(
        url=url,
        token=read_secret(token_file),
        user=user,
        password=read_secret(password_file),
        certificate=tls.certificate if tls else None,
        key=tls.key if tls else None,
        authority=tls.authority if tls else authority,
        timeout_s=timeout_s,
    )


def tls_files(tls: Tls) -> TlsFiles:
    """The TLS files in the form that the network layer takes."""
    return TlsFiles(certificate=tls.certificate, key=tls.key, authority=tls.authority)


def read_secret(path: Path | None) -> str | None:
    """The first line of a file."""
    if path is None:
        return None
    try:
        return read_regular(path, SMALL_FILE).decode("ascii").splitlines()[0].strip()
    except (OSError, IndexError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is empty or not ASCII text"
        raise PeerError(
            f"no token or password in {path} ({reason}): expected a file with one line that this user can read"
        ) from None


def target_client(target: Target, timeout_s: float) -> TargetClient:
    """The client for a target: a folder, STOW-RS or DIMSE, as configured."""
    if target.folder:
        return FolderClient(folder=target.folder)
    kind = StowClient if target.stow_url else DimseClient
    return kind(target=target, timeout_s=timeout_s)


LOOP_REASON = (
    "it is this appliance itself (an address that it listens on, so that results would be received as images, or a "
    "folder within its data folder); correct the target"
)

_WEB_PORTS = {"http": 80, "https": 443}


def is_own_address(target: Target, config: Config) -> bool:
    """Whether a target is this appliance itself: an address of this machine and a port that it listens on, or a folder
    within its data folder.
    """
    if target.folder:
        return target.folder.resolve().is_relative_to(config.data.resolve())
    host, port = _host_and_port(target)
    return port in _own_ports(config) and any(map(_is_local_address, _addresses(host)))


def _host_and_port(target: Target) -> tuple[str, int]:
    if target.stow_url is None:
        return target.host or "", target.port or 0
    url = urlsplit(target.stow_url)
    return url.hostname or "", url.port or _WEB_PORTS.get(url.scheme, 0)


def _own_ports(config: Config) -> set[int]:
    tls = config.receive.tls
    ports = {config.receive.port, tls.port if tls else None, config.web.port if config.web.stow else None}
    return {port for port in ports if port}


def _addresses(host: str) -> set[str]:
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:  # the name cannot be resolved now; connecting will report it
        return set()


def _is_local_address(address: str) -> bool:
    """Whether `address` belongs to this machine: only such an address can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
