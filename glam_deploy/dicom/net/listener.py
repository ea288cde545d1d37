"""The storage SCP: who is let in, which objects are offered a context, and what is told to whom."""

import ipaddress
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

from glam_deploy.dicom.mammography import IMPLEMENTATION_UID
from glam_deploy.dicom.net.associations import Receipt, ServedAssociation, Server, Upload
from glam_deploy.dicom.net.bounded_socket import MAX_PDU, TOO_SLOW
from glam_deploy.dicom.net.commitment import read_report, reported
from glam_deploy.dicom.net.delivery import Commitment
from glam_deploy.dicom.net.peer import TlsFiles, hush
from glam_deploy.dicom.net.waiting import WaitingRoom
from glam_deploy.dicom.part10 import TRANSFER_SYNTAXES, Claim
from glam_deploy.dicom.read import hush_pydicom
from glam_deploy.errors import DicomError, UsageError

__all__ = ["Listener", "Receipt", "Rules", "Sender", "Upload"]

NO_DATA_SET = 0xC000
INVALID_ARGUMENT = 0x0115
QUIET_S = 60.0
"""An address that is turned away again and again is told of once in so long."""

LEAST_WAITING, MOST_ADDRESSES = 16, 4
"""Connections that have not asked for an association: of one address as many as `max_associations`, but not fewer than
the first; of all together, those of so many addresses."""
LEAST_OBJECT = 64 << 20
"""Bytes of a data set that are passed over in any case, so that its sender hears why it is not taken."""

_PERMANENT, _TRANSIENT = 1, 2
_REFUSALS = {
    "called": (_PERMANENT, 1, 7),
    "calling": (_PERMANENT, 1, 3),
    "busy": (_TRANSIENT, 3, 2),
    "fault": (_TRANSIENT, 2, 1),
}
"""Result, source and diagnostic of an A-ASSOCIATE-RJ (PS3.8 section 9.3.4)."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, kw_only=True)
class Sender:
    """A calling AE title, and the networks from which it may be used."""

    ae_title: str
    networks: tuple[Network, ...]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Who may come, and how much."""

    ae_title: str
    """Ours: what must be called."""
    senders: tuple[Sender, ...]
    max_associations: int
    idle_s: float
    """A peer that sends nothing for so long, or needs longer for one PDU, is cut off."""
    max_object_bytes: int = 2 << 30
    """A sender of a longer data set is told so at its end, and cut off at twice as many bytes."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """Something that happened at the door, for audit and log."""

    event: str
    """accepted, rejected, aborted, echo, commitment."""
    sender: str
    """AE title@address, or the address alone."""
    reason: str = ""
    times: int = 1
    """How often, since it was told last."""


class Listener:
    """One AE at one or more addresses. `begin(peer, claim)` makes an upload of a C-STORE; `tell` may come in a thread.

    `reported` gets storage commitment reports, and says whether anybody waited for that one.

    Storage classes of the standard only: a context for a private or unknown one is rejected, so that a sender knows.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        begin: Callable[[str, Claim], Upload],
        tell: Callable[[Told], None],
        reported: Callable[[Commitment], bool] = lambda _: False,
    ) -> None:
        hush()
        hush_pydicom()
        self._rules, self._begin, self._reported = rules, begin, reported
        self._door = _Door(rules)
        self._quiet = _Quiet(tell)
        self._tell = tell
        self._servers: list[Server] = []
        most_of_one = max(LEAST_WAITING, rules.max_associations)
        self._waiting = WaitingRoom(most=MOST_ADDRESSES * most_of_one, most_of_one=most_of_one)
        self._ae = AE(rules.ae_title)
        self._ae.maximum_pdu_size = MAX_PDU
        # the door counts: pynetdicom would count connections too that are on their way out
        self._ae.maximum_associations = 1 << 16
        self._ae.implementation_class_uid = IMPLEMENTATION_UID
        self._ae.implementation_version_name = "GLAM_DEPLOY"
        self._ae.network_timeout = self._ae.dimse_timeout = rules.idle_s
        self._request_s = min(30.0, rules.idle_s)
        self._ae.acse_timeout = self._request_s

    def listen(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> int:
        """Take connections at this address from now on; the port, which `port` 0 leaves to the system.

        Raises UsageError where the address cannot be had.
        """
        try:
            server = Server(
                self._ae, (host, port), _contexts(), idle_s=self._rules.idle_s, tls=tls,
                request_s=self._request_s, most_bytes=2 * max(self._rules.max_object_bytes, LEAST_OBJECT),
                begin=lambda association, claim: self._begin(association.peer, claim),
                tell=self._told, leave=self._door.leave,
                handlers=[
                    (evt.EVT_REQUESTED, self._requested), (evt.EVT_ACCEPTED, _accepted), (evt.EVT_ABORTED, _aborted),
                    (evt.EVT_C_ECHO, _echoed), (evt.EVT_C_STORE, _stored), (evt.EVT_N_EVENT_REPORT, self._report),
                ],
                knows=self._door.knows, waiting=self._waiting,
            )  # fmt: skip
        except OSError as error:
            raise UsageError(
                f"nobody can listen at {host} port {port} ({error.strerror}): is another program there, and is it an "
                "address of this machine?"
            ) from error
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()
        self._servers.append(server)
        return int(server.server_address[1])

    @property
    def associations(self) -> int:
        """How many there are."""
        return len(self._door.inside)

    def stop(self) -> None:
        """Close every address and abort what is going on; what was not acknowledged is sent again."""
        for server in self._servers:
            server.shutdown()
        for association in self._door.inside:
            association.end("the receiver stops")

    def _told(self, event: str, who: ServedAssociation | str, reason: str) -> None:
        if isinstance(who, str):
            self._quiet.tell(Told(event=event, sender=who, reason=reason))
        else:
            self._tell(Told(event=event, sender=who.peer, reason=reason))

    def _requested(self, event: evt.Event) -> None:
        association = _served(event)
        try:
            refusal = self._door.enter(association)
        except Exception as error:
            # pynetdicom passes over what a handler raises, and would let everybody in
            refusal = "fault", f"a fault of glam-deploy ({type(error).__name__})"
        if refusal:
            kind, reason = refusal
            association.acse.send_reject(*_REFUSALS[kind])
            association.tell("rejected", reason)
            association.kill()

    def _report(self, event: evt.Event) -> tuple[int, None]:
        """A report that nobody waits for is answered with success too, or it would come again and again."""
        try:
            is_awaited = self._reported(read_report(reported(event)))
        except DicomError:
            return INVALID_ARGUMENT, None
        _served(event).tell("commitment", "" if is_awaited else "nobody waits for this report (any more)")
        return 0x0000, None


def _accepted(event: evt.Event) -> None:
    _served(event).tell("accepted")


def _aborted(event: evt.Event) -> None:
    silent = event.assoc.dul.idle_timer_expired()
    why = TOO_SLOW if silent else "it broke off, or its connection is gone"
    _served(event).tell("aborted", why)


def _echoed(event: evt.Event) -> int:
    _served(event).tell("echo")
    return 0x0000


def _stored(event: evt.Event) -> Dataset:
    receipt = _served(event).finish_upload(getattr(event.request, "DataSet", None))
    answer = Dataset()
    answer.Status = NO_DATA_SET if receipt is None else int(receipt.status)
    if answer.Status:
        answer.ErrorComment = (receipt.reason if receipt else "no data set came, or before the last answer")[:64]
    return answer


def _served(event: evt.Event) -> ServedAssociation:
    assert isinstance(event.assoc, ServedAssociation)
    return event.assoc


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """For a listener: shows our certificate, and asks for one that `authority` has signed. TLS 1.2 or later.

    Raises UsageError where a file cannot be used.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.authority)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(files.certificate, files.key, password="")  # without: a prompt on the terminal
    except OSError as error:  # SSLError is one
        told = getattr(error, "reason", None) or error.strerror or type(error).__name__
        raise UsageError(
            f"the TLS files {files.certificate}, {files.key}, {files.authority} cannot be used ({told}): expected "
            "readable PEM files, the key belonging to the certificate, without a password"
        ) from None
    return context


def _contexts() -> list[PresentationContext]:
    classes = [context.abstract_syntax for context in AllStoragePresentationContexts]
    storage = [build_context(sop_class, list(TRANSFER_SYNTAXES)) for sop_class in classes if sop_class]
    plain: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    reports = build_context(StorageCommitmentPushModel, plain)
    reports.scu_role = reports.scp_role = True  # who reports acts as the SCP, though it asked for the association
    return [*storage, build_context(Verification, plain), reports]


class _Door:
    """Who is inside, and whether one more may come in."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._inside: set[ServedAssociation] = set()
        self._lock = threading.Lock()

    @property
    def inside(self) -> tuple[ServedAssociation, ...]:
        with self._lock:
            return tuple(self._inside)

    def knows(self, host: str) -> bool:
        """Whether any sender may come from there."""
        return any(_within(host, sender.networks) for sender in self._rules.senders)

    def enter(self, association: ServedAssociation) -> tuple[str, str] | None:
        """Why not: a key of `_REFUSALS`, and the words for it."""
        request = association.requestor.primitive
        assert request
        association.requestor.ae_title = calling = request.calling_ae_title
        called, host = request.called_ae_title, association.host
        if called != self._rules.ae_title:
            return "called", f"it calls {called!r}, and this is {self._rules.ae_title!r}"
        if not any(sender.ae_title == calling and _within(host, sender.networks) for sender in self._rules.senders):
            return "calling", "no sender of the configuration has this AE title at this address"
        return self._take_slot(association)

    def _take_slot(self, association: ServedAssociation) -> tuple[str, str] | None:
        with self._lock:
            victim = None
            if len(self._inside) >= self._rules.max_associations:
                victim = self._dispensable(association.peer)
                if victim is None:
                    return "busy", f"there are {self._rules.max_associations} associations (receive.max_associations)"
                self._inside.discard(victim)
            self._inside.add(association)
        if victim:
            victim.end(f"idle, and {association.peer} needed its place (receive.max_associations)")
        return None

    def _dispensable(self, peer: str) -> ServedAssociation | None:
        """The association that is ended for a new one of `peer`, if any; the lock is held.

        Of the peer that holds the most: the one whose last C-STORE is the longest ago. Never one with a C-STORE under
        way, and never one of a peer that would then hold fewer than `peer`, unless `peer` holds none.
        """
        held = Counter(each.peer for each in self._inside)
        idle = [
            (-held[each.peer], since, each)
            for each in self._inside
            if (since := each.idle_since) is not None and (held[peer] == 0 or held[each.peer] > held[peer] + 1)
        ]
        return min(idle, key=lambda each: each[:2])[2] if idle else None

    def leave(self, association: ServedAssociation) -> None:
        with self._lock:
            self._inside.discard(association)


def _within(host: str, networks: Sequence[Network]) -> bool:
    address: Address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


class _Quiet:
    """Tells of an address once in `QUIET_S`, with a count, so that no stranger can fill the disk with audit."""

    MOST = 1000
    """Addresses that are remembered."""

    def __init__(self, tell: Callable[[Told], None]) -> None:
        self._tell = tell
        self._last: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def tell(self, told: Told) -> None:
        now = time.monotonic()
        with self._lock:
            at, missed = self._last.get(told.sender, (now - QUIET_S, 0))
            speaks = now - at >= QUIET_S
            if len(self._last) >= self.MOST:
                self._last.clear()
            self._last[told.sender] = (now, 0) if speaks else (at, missed + 1)
        if speaks:
            self._tell(Told(event=told.event, sender=told.sender, reason=told.reason, times=missed + 1))
