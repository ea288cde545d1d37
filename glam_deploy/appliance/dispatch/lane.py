"""One target's parcels, in order of arrival: send, prove, and bear what goes wrong."""

import logging
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glam_deploy.appliance.audit import Audit
from glam_deploy.appliance.config import Dispatch, Target
from glam_deploy.appliance.dispatch.health import Backoff, Health
from glam_deploy.appliance.dispatch.links import Link
from glam_deploy.appliance.identity import derived_uid
from glam_deploy.appliance.state import parcels
from glam_deploy.appliance.state.parcels import Parcel, ParcelObject
from glam_deploy.appliance.state.steady import Steady
from glam_deploy.dicom.net.delivery import Item, Outcome, Session
from glam_deploy.errors import PeerBroke, PeerDeclined, PeerError, fault

log = logging.getLogger(__name__)

COMMITMENT_S = 1.0
"""Wait for a storage commitment report on the association that asked; later ones come to the receiver."""


@dataclass(kw_only=True)
class Lane:
    """Sends to `target` by `link`; for the one thread that `connection` belongs to."""

    target: Target
    policy: Dispatch
    link: Link
    connection: sqlite3.Connection
    steady: Steady
    root: Path
    """The data folder, from which the paths of objects start."""
    audit: Audit

    def __post_init__(self) -> None:
        self._backoff = Backoff(first_s=self.policy.first_retry_s, longest_s=self.policy.longest_retry_s)
        self.health: Health[Parcel] = Health(backoff=self._backoff)
        self.progress: float | None = None
        """While a parcel is being sent: when the target last let us get on, in steady time."""

    def step(self) -> bool:
        """Try the parcel whose turn it is; False where there is none now, or the target is not to be tried yet."""
        now = self.steady()
        if parcels.take_wish(self.connection, self.target.name):
            self.health.hurry()
        if not self.health.may_try(now):
            return False
        parcel = parcels.next_parcel(self.connection, self.target.name, now, last=self.health.suspects)
        if parcel is None:
            return False
        self._try(parcel)
        return True

    def _try(self, parcel: Parcel) -> None:
        self.progress = self.steady()
        try:
            self._deliver(parcel)
        finally:
            self.progress = None

    def _deliver(self, parcel: Parcel) -> None:
        try:
            self._send(parcel)
        except PeerBroke as error:
            self._broke(parcel, str(error))
        except PeerDeclined as error:
            self._declined(parcel, str(error))
        except PeerError as error:
            self._unreachable(str(error))
        except sqlite3.Error:
            raise
        except Exception as error:  # a fault of ours or of a library must not hold up the other parcels
            self._failed(parcel, f"a fault while sending: {fault(error)}")
        else:
            self._close(parcel)

    def _send(self, parcel: Parcel) -> None:
        """One session about all of a parcel that is not proven."""
        objects = parcels.unproven(self.connection, parcel.id)
        if not objects:
            return
        items = {each.sop_uid: Item(sop_uid=each.sop_uid, path=self.root / each.path) for each in objects}
        with self.link.session(list(items.values())) as session:
            if self.target.query:
                self._recall(session, parcel, [items[each.sop_uid] for each in objects if each.sent])
            waiting = [items[each.sop_uid] for each in parcels.unproven(self.connection, parcel.id) if not each.sent]
            no_room = self._store(session, parcel, waiting)
            if not no_room:
                self._prove(session, parcel, items)
        if no_room:
            raise PeerBroke(no_room)
        self._served(parcel)

    def _recall(self, session: Session, parcel: Parcel, items: Sequence[Item]) -> None:
        """What an earlier session sent and could not prove: it is there by now, or is sent again."""
        if items and not self.target.commitment:
            held = session.holds(items)
            parcels.proven(self.connection, parcel.id, held)
            parcels.lost(self.connection, parcel.id, {item.sop_uid for item in items} - held)

    def _store(self, session: Session, parcel: Parcel, items: Sequence[Item]) -> str:
        """Send one after the other, each answer kept at once; the reason where the target has no room for more."""
        for item in items:
            answer = session.store(item)
            if answer.outcome is Outcome.NO_ROOM:
                return f"{self.target.name}: {answer.reason}"
            if answer.outcome is Outcome.STORED:
                # the audit first: a crash between may repeat a line, and never loses one
                self.audit.write("sent", study=parcel.study_uid, instance=item.sop_uid, target=self.target.name)
                parcels.sent(self.connection, parcel.id, item.sop_uid, answer.reason)
            else:
                parcels.refused(self.connection, parcel.id, item.sop_uid, answer.reason)
            self._served(parcel)
        return ""

    def _prove(self, session: Session, parcel: Parcel, items: Mapping[str, Item]) -> None:
        """By what the target says it holds, which may be an object that it refused because it was there already."""
        objects = parcels.unproven(self.connection, parcel.id)
        if self.target.commitment:
            self._commit(session, parcel, [items[each.sop_uid] for each in objects if each.sent])
        elif self.target.query:
            parcels.proven(self.connection, parcel.id, session.holds([items[each.sop_uid] for each in objects]))

    def _commit(self, session: Session, parcel: Parcel, items: Sequence[Item]) -> None:
        if not items:
            return
        transaction_uid = derived_uid("transaction", secrets.token_hex(16))
        parcels.ask_commitment(self.connection, parcel.id, transaction_uid)
        report = session.commit(items, transaction_uid, wait_s=COMMITMENT_S)
        if report:
            parcels.report(self.connection, transaction_uid, committed=report.committed, failed=report.failed)

    def _close(self, parcel: Parcel) -> None:
        """Nothing is left to do, or an attempt in vain."""
        proof = self.target.query or self.target.commitment
        if parcels.deliver(self.connection, parcel.id, proof=proof):
            log.info("study %s: results delivered to %s", parcel.pseudonym, self.target.name)
            self.audit.write("delivered", study=parcel.study_uid, target=self.target.name)
        else:
            self._failed(parcel, _shortfall(parcels.unproven(self.connection, parcel.id)))

    def _served(self, parcel: Parcel) -> None:
        """The target is well: what it broke off at since it last was is to blame."""
        self.progress = self.steady()
        for blamed in self.health.served(parcel.id):
            self._failed(blamed.parcel, blamed.reason)

    def _unreachable(self, reason: str) -> None:
        self.health.unreachable(self.steady(), reason)
        log.warning("%s waits %.0f s: %s", self.target.name, self.health.not_before - self.steady(), reason)

    def _broke(self, parcel: Parcel, reason: str) -> None:
        try:
            self.link.ask()
        except PeerError:
            self._unreachable(reason)
            return
        next_try = self.health.broke(parcel.id, parcel, self.steady(), reason)
        parcels.put_off(self.connection, parcel.id, reason, next_try)
        log.warning("study %s is not delivered to %s: %s", parcel.pseudonym, self.target.name, reason)

    def _declined(self, parcel: Parcel, reason: str) -> None:
        """A person must change something, here or there: nobody is hurried, and no parcel dies of it."""
        self.health.reason = reason
        parcels.put_off(self.connection, parcel.id, reason, self.steady() + self.policy.longest_retry_s)
        log.error("study %s cannot be proven at %s: %s", parcel.pseudonym, self.target.name, reason)

    def _failed(self, parcel: Parcel, reason: str) -> None:
        """An attempt in vain while the target is well."""
        next_try = self.steady() + self._backoff.after(parcel.attempts + 1)
        state = parcels.failed(self.connection, parcel.id, reason, next_try, attempts=self.policy.attempts)
        if state in ("pending", "dead"):
            log.warning("study %s is not delivered to %s: %s", parcel.pseudonym, self.target.name, reason)
        if state == "dead":
            log.error("study %s is given up, after all its attempts at %s", parcel.pseudonym, self.target.name)
            self.audit.write("undeliverable", study=parcel.study_uid, target=self.target.name)


def _shortfall(left: Sequence[ParcelObject]) -> str:
    """Why a parcel is not delivered, by its objects; the reasons are the target's answers."""
    refused = [each for each in left if not each.sent]
    if refused:
        return f"{len(refused)} of its objects refused, the first: {refused[0].reason or 'without a reason'}"
    return f"{len(left)} of its objects were taken, and are not shown to be there"
