"""Storage SCP: policy of accepted associations, presentation contexts, and events for the audit log."""

import re
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

from glam_deploy.addresses import Network, parsed_address
from glam_deploy.dicom.mammography import IMPLEMENTATION_UID
from glam_deploy.dicom.net.associations import Receipt, ServedAssociation, Server, Upload
from glam_deploy.dicom.net.bounded_socket import MAX_PDU, TOO_SLOW, PendingConnections
from glam_deploy.dicom.net.delivery import Commitment
from glam_deploy.dicom.net.files import read_report, reported
from glam_deploy.dicom.net.peer import TlsFiles, silence_pynetdicom
from glam_deploy.dicom.net.verification import verifying_context
from glam_deploy.dicom.part10 import TRANSFER_SYNTAXES, Claim
from glam_deploy.dicom.read import silence_pydicom
from glam_deploy.errors import DicomError, UsageError
from glam_deploy.ports import listen_remedy
from glam_deploy.regular import require_small

__all__ = ["Listener", "Receipt", "Rules", "Sender", "Upload"]

NO_DATA_SET = 0xC000
INVALID_ARGUMENT = 0x0115
RATE_LIMIT_S = 60.0
"""Repeated rejections of one address for one reason are audited once in this time, in seconds."""
_NUMBER = re.compile(r"0x[0-9A-F]+|\d+")

LEAST_WAITING, MOST_ADDRESSES = 16, 4
"""Limits of connections that have not requested an association: `max_associations` per address, but at least
LEAST_WAITING; in total, MOST_ADDRESSES times as many."""
LEAST_OBJECT = 64 << 20
"""Bytes of a data set that are read in any case, so that the sender receives the status of the refusal."""

_PERMANENT, _TRANSIENT = 1, 2
_REFUSALS = {
    "called": (_PERMANENT, 1, 7),
    "calling": (_PERMANENT, 1, 3),
    "busy": (_TRANSIENT, 3, 2),
    "fault": (_TRANSIENT, 2, 1),
}
"""Result, source and diagnostic of an A-ASSOCIATE-RJ (PS3.8 section 9.3.4)."""


@dataclass(frozen=True, kw_only=True)
class Sender:
    """A calling AE title, and the networks from which it is accepted."""

    ae_title: str
    networks: tuple[Network, ...]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Which associations are accepted, and their limits."""

    ae_title: str
    """Own AE title, which the peer must use as the called AE title."""
    senders: tuple[Sender, ...]
    max_associations: int
    idle_s: float
    """An association is aborted if its peer sends nothing for this time in seconds, or needs longer for one PDU."""
    max_object_bytes: int = 2 << 30
    """A longer data set is refused at its end; at twice this size the association is aborted."""


@dataclass(frozen=True, kw_only=True)
class AuditEvent:
    """An event of an association or connection, for the audit log."""

    event: str
    """accepted, rejected, aborted, echo, commitment."""
    sender: str
    """AE title@address, or the address alone."""
    reason: str = ""
    times: int = 1
    """Number of events since the last audited one, including this one."""


class Listener:
    """One application entity that listens at one or more addresses.

    `begin(peer, claim)` creates the upload of a C-STORE. `audit` is called with events, also from other threads, and
    `on_rejected` with each rejection, also with those that are left out of the audit log.
    `on_commitment` is called with storage commitment reports; it returns whether the report was expected. Only storage
    SOP classes of the standard are accepted: a context for a private or unknown class is rejected, so that the sender
    reports an error.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        begin: Callable[[str, Claim], Upload],
        audit: Callable[[AuditEvent], None],
        on_commitment: Callable[[Commitment], bool] = lambda _: False,
        on_rejected: Callable[[AuditEvent], None] = lambda _: None,
    ) -> None:
        silence_pynetdicom()
        silence_pydicom()
        self._rules, self._begin, self._on_commitment = rules, begin, on_commitment
        self._policy = AssociationPolicy(rules)
        self._rate_limiter = AuditRateLimiter(audit)
        self._audit, self._on_rejected = audit, on_rejected
        self._servers: list[Server] = []
        most_of_one = max(LEAST_WAITING, rules.max_associations)
        self._waiting = PendingConnections(most=MOST_ADDRESSES * most_of_one, most_of_one=most_of_one)
        self._ae = AE(rules.ae_title)
        self._ae.maximum_pdu_size = MAX_PDU
        # the policy limits associations, because pynetdicom also counts connections that are closing
        self._ae.maximum_associations = 1 << 16
        self._ae.implementation_class_uid = IMPLEMENTATION_UID
        self._ae.implementation_version_name = "GLAM_DEPLOY"
        self._ae.network_timeout = self._ae.dimse_timeout = rules.idle_s
        self._request_s = min(30.0, rules.idle_s)
        self._ae.acse_timeout = self._request_s

    def listen(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> int:
        """Listen at this address; returns the port, which the system chooses for `port` 0.

        Raises UsageError if the address cannot be used.
        """
        try:
            server = Server(
                self._ae, (host, port), _contexts(), idle_s=self._rules.idle_s, tls=tls,
                request_s=self._request_s, most_bytes=2 * max(self._rules.max_object_bytes, LEAST_OBJECT),
                begin=lambda association, claim: self._begin(association.peer, claim),
                audit=self._audit_event, release=self._policy.release,
                handlers=[
                    (evt.EVT_REQUESTED, self._requested), (evt.EVT_ACCEPTED, _accepted), (evt.EVT_ABORTED, _aborted),
                    (evt.EVT_C_ECHO, _echoed), (evt.EVT_C_STORE, _stored), (evt.EVT_N_EVENT_REPORT, self._report),
                ],
                allows_host=self._policy.allows_host, waiting=self._waiting,
            )  # fmt: skip
        except OSError as error:
            remedy = listen_remedy(error)
            raise UsageError(f"cannot listen at {host} port {port} ({error.strerror}): {remedy}") from error
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True).start()
        self._servers.append(server)
        return int(server.server_address[1])

    @property
    def associations(self) -> int:
        """Number of open associations."""
        return len(self._policy.open_associations)

    def stop(self) -> None:
        """Close every address and abort all associations; senders send objects without acknowledgement again."""
        for server in self._servers:
            server.shutdown()
        for association in self._policy.open_associations:
            association.end("the receiver stops")

    def _audit_event(self, event: str, who: ServedAssociation | str, reason: str) -> None:
        told = AuditEvent(event=event, sender=who if isinstance(who, str) else who.peer, reason=reason)
        if event == "rejected":
            self._on_rejected(told)
        if isinstance(who, str):
            self._rate_limiter.audit(told)
        else:
            self._audit(told)

    def _requested(self, event: evt.Event) -> None:
        association = _served(event)
        try:
            refusal = self._policy.admit(association)
        except Exception as error:
            # pynetdicom ignores exceptions of handlers and would accept the association
            refusal = "fault", f"an internal error of glam-deploy ({type(error).__name__})"
        if refusal:
            kind, reason = refusal
            association.acse.send_reject(*_REFUSALS[kind])
            association.audit("rejected", reason)
            association.kill()

    def _report(self, event: evt.Event) -> tuple[int, None]:
        """Apply a commitment report; returns success also for an unexpected one, which would be repeated otherwise."""
        try:
            is_awaited = self._on_commitment(read_report(reported(event)))
        except DicomError:
            return INVALID_ARGUMENT, None
        _served(event).audit("commitment", "" if is_awaited else "no delivery waits for this report")
        return 0x0000, None


def _accepted(event: evt.Event) -> None:
    _served(event).audit("accepted")


def _aborted(event: evt.Event) -> None:
    silent = event.assoc.dul.idle_timer_expired()
    reason = TOO_SLOW if silent else "the peer aborted the association, or the connection was lost"
    _served(event).audit("aborted", reason)


def _echoed(event: evt.Event) -> int:
    _served(event).audit("echo")
    return 0x0000


def _stored(event: evt.Event) -> Dataset:
    receipt = _served(event).finish_upload(getattr(event.request, "DataSet", None))
    answer = Dataset()
    answer.Status = NO_DATA_SET if receipt is None else int(receipt.status)
    if answer.Status:
        answer.ErrorComment = (receipt.reason if receipt else "no data set, or sent before the last response")[:64]
    return answer


def _served(event: evt.Event) -> ServedAssociation:
    assert isinstance(event.assoc, ServedAssociation)
    return event.assoc


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS context of a listener: TLS 1.2 or later; requires a peer certificate signed by `authority`.

    Raises UsageError if a file cannot be used.
    """
    try:
        require_small(files.certificate, files.key, files.authority)
        context = verifying_context(ssl.Purpose.CLIENT_AUTH, files.authority)
        context.verify_mode = ssl.CERT_REQUIRED
        # without a password OpenSSL would prompt on the terminal
        context.load_cert_chain(files.certificate, files.key, password="")
    except OSError as error:  # SSLError is one
        reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
        raise UsageError(
            f"the TLS files {files.certificate}, {files.key}, {files.authority} cannot be used ({reason}): expected "
            "readable PEM files, and the key of the certificate, without a password"
        ) from None
    return context


def _contexts() -> list[PresentationContext]:
    classes = [context.abstract_syntax for context in AllStoragePresentationContexts]
    storage = [build_context(sop_class, list(TRANSFER_SYNTAXES)) for sop_class in classes if sop_class]
    plain: list[str | UID] = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
    reports = build_context(StorageCommitmentPushModel, plain)
    # the peer that reports has the SCP role, although it requested the association
    reports.scu_role = reports.scp_role = True
    return [*storage, build_context(Verification, plain), reports]


class AssociationPolicy:
    """Policy of accepted associations, and the set of open ones. Thread-safe."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._open: set[ServedAssociation] = set()
        self._lock = threading.Lock()

    @property
    def open_associations(self) -> tuple[ServedAssociation, ...]:
        with self._lock:
            return tuple(self._open)

    def allows_host(self, host: str) -> bool:
        """Whether any configured sender may connect from this address."""
        return any(_within(host, sender.networks) for sender in self._rules.senders)

    def admit(self, association: ServedAssociation) -> tuple[str, str] | None:
        """Accept the association and return None, or return a key of `_REFUSALS` and the reason for the audit log."""
        request = association.requestor.primitive
        assert request
        association.requestor.ae_title = calling = request.calling_ae_title
        called, host = request.called_ae_title, association.host
        if called != self._rules.ae_title:
            return "called", f"the called AE title is {called!r}, expected {self._rules.ae_title!r}"
        if not any(sender.ae_title == calling and _within(host, sender.networks) for sender in self._rules.senders):
            return "calling", "no configured sender has this AE title at this address"
        return self._take_slot(association)

    def _take_slot(self, association: ServedAssociation) -> tuple[str, str] | None:
        with self._lock:
            victim = None
            if len(self._open) >= self._rules.max_associations:
                victim = self._preemptible(association.peer)
                if victim is None:
                    return "busy", f"{self._rules.max_associations} associations are open (receive.max_associations)"
                self._open.discard(victim)
            self._open.add(association)
        if victim:
            victim.end(f"idle, aborted to accept {association.peer} (receive.max_associations)")
        return None

    def _preemptible(self, peer: str) -> ServedAssociation | None:
        """The association to abort so that `peer` can have a new one, None if there is none; call with the lock held.

        Of the peer with the most associations, the one whose last C-STORE was the longest ago. Never one with a C-STORE
        in progress, and never one of a peer that would then have fewer than `peer`, unless `peer` has none.
        """
        held = Counter(each.peer for each in self._open)
        idle = [
            (-held[each.peer], since, each)
            for each in self._open
            if (since := each.idle_since) is not None and (held[peer] == 0 or held[each.peer] > held[peer] + 1)
        ]
        return min(idle, key=lambda each: each[:2])[2] if idle else None

    def release(self, association: ServedAssociation) -> None:
        with self._lock:
            self._open.discard(association)


def _within(host: str, networks: Sequence[Network]) -> bool:
    address = parsed_address(host)
    return any(address in network for network in networks)


class AuditRateLimiter:
    """Limits audit events to one per address and kind of reason in `RATE_LIMIT_S`, with a count, so that no peer can
    fill the disk. Reasons that differ in a number are of one kind.
    """

    MOST = 1000
    """Largest number of addresses and kinds kept."""

    def __init__(self, audit: Callable[[AuditEvent], None]) -> None:
        self._audit = audit
        self._last: dict[tuple[str, str], tuple[float, int]] = {}
        self._lock = threading.Lock()

    def audit(self, event: AuditEvent) -> None:
        now, key = time.monotonic(), (event.sender, _NUMBER.sub("", event.reason))
        with self._lock:
            at, missed = self._last.get(key, (now - RATE_LIMIT_S, 0))
            passes = now - at >= RATE_LIMIT_S
            if len(self._last) >= self.MOST:
                self._last.clear()
            self._last[key] = (now, 0) if passes else (at, missed + 1)
        if passes:
            self._audit(AuditEvent(event=event.event, sender=event.sender, reason=event.reason, times=missed + 1))
