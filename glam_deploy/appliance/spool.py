"""Spool: gives received files their final names and their rows, both or neither; keeps other versions in quarantine."""

import hashlib
import logging
import os
import sqlite3
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from glam_deploy.appliance.audit import Audit
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.identity import with_valid_uids
from glam_deploy.appliance.process import RECURRING
from glam_deploy.appliance.state import fetches, senders, studies
from glam_deploy.appliance.state.database import monotonic_clock, open_database, transaction
from glam_deploy.appliance.state.priority import Priority, raise_priority
from glam_deploy.appliance.state.rejections import RejectionNote
from glam_deploy.appliance.state.studies import Instance, StoredVersion
from glam_deploy.appliance.versions import Judgement, Verdict, VersionJudge
from glam_deploy.dicom.part10 import MAX_HEAD, Claim, read_head
from glam_deploy.dicom.received import Received, examine
from glam_deploy.dicom.rejection import EXPIRED, TITLES, Rejection
from glam_deploy.dicom.uids import valid_uid
from glam_deploy.durable import move_into_place, sync
from glam_deploy.errors import DicomError, UsageError, counted

_LOG = logging.getLogger(__name__)


class SpoolOutcome(Enum):
    """What was done with a received file; the values are codes of the audit log."""

    NEW = "received"
    DUPLICATE = "duplicate"
    """The same data set had already been stored."""
    SAME_IMAGE = "same_image"
    """The stored image in another encoding."""
    REPLACED = "replaced"
    """The stored image could give no result; this one has taken its place."""
    REJECTION = "rejection"
    """A new rejection note, which was applied."""
    QUARANTINED = "uid_collision"
    """Another data set has the same SOP Instance UID; the file is in quarantine."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An outcome and its reason, without identifiers; "" where there is nothing to say."""

    outcome: SpoolOutcome
    reason: str = ""
    study_uid: str = ""
    """Of the stored object with the same UID, if this one is in quarantine."""


class Spool:
    """The received files of a data folder and their rows.

    Belongs to one process, whose threads may share it; other processes may have spools of their own.
    """

    def __init__(self, config: Config, data: DataFolder, audit: Audit) -> None:
        """`data`: a data folder that has been made."""
        self.data, self._audit, self._accept = data, audit, config.accept
        self._fetch = config.fetch
        self._judge = VersionJudge(config, data)
        self._database = open_database(data.database, one_thread=False)
        self._monotonic = monotonic_clock(self._database)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the database."""
        self._judge.close()
        self._database.close()

    def store(
        self,
        part: Path,
        instance: Instance,
        rejection: Rejection | None = None,
        *,
        priority: Priority = Priority.LIVE,
    ) -> Stored:
        """Store the file `part`, whose bytes are synchronized and which is on the same file system; sets
        `instance.path`. `rejection`: content of a rejection note, which is applied to its study.
        `priority`: that of its study, unless the study has a higher one.

        Raises OSError or sqlite3.Error if the disk is full or fails; then nothing has changed.
        """
        while True:
            with self._lock:
                stored = studies.stored_version(self._database, instance.sop_uid)
            # outside of the transaction, because it takes seconds
            differs = stored is not None and stored.sha256 != instance.sha256
            judgement = self._judge.judge(stored, instance, part) if stored and differs else None
            if (
                done := self._store_unless_changed(
                    part, instance, stored=stored, judgement=judgement, rejection=rejection, priority=priority
                )
            ) is not None:
                return done

    def _store_unless_changed(
        self,
        part: Path,
        instance: Instance,
        *,
        stored: StoredVersion | None,
        judgement: Judgement | None,
        rejection: Rejection | None,
        priority: Priority,
    ) -> Stored | None:
        """Store `part`; None if the stored version is not `stored` any more."""
        path = self._path(instance, stored)
        with self._lock:
            try:
                # files are moved inside the transaction, so that no other process can interfere
                with transaction(self._database):
                    current = studies.stored_version(self._database, instance.sop_uid)
                    if (current and current.sha256) != (stored and stored.sha256):
                        return None
                    if self._is_moved(instance):
                        priority = Priority.FETCHED
                    placed = replace(instance, path=self.data.relative(path))
                    done = self._store(part, placed, stored, judgement, priority)
                    if done.outcome is not SpoolOutcome.QUARANTINED:
                        senders.record_stored(self._database, instance.sender)
                        raise_priority(self._database, instance.study_uid, priority)
                    if rejection and done.outcome is SpoolOutcome.NEW:
                        done = self._reject(instance, rejection)
            except (OSError, sqlite3.Error):
                self._remove_unrecorded(path, instance.sop_uid)
                raise
            if done.outcome is SpoolOutcome.REPLACED and stored:
                (self.data.root / stored.path).unlink(missing_ok=True)
        return done

    def _path(self, instance: Instance, stored: StoredVersion | None) -> Path:
        """Path of the file in the spool; a version that replaces another one has a name of its own."""
        return self.data.instance(instance.study_uid, instance.sop_uid, version=instance.sha256 if stored else None)

    def _is_moved(self, instance: Instance) -> bool:
        """Whether the archive of [fetch] sends an instance because the appliance asked for it by C-MOVE."""
        fetch = self._fetch
        if fetch is None or not fetch.moves or instance.sender.rpartition("@")[0] != fetch.ae_title:
            return False
        return fetches.is_fetching(self._database, self._audit.pseudonym(instance.study_uid))

    def _store(
        self,
        part: Path,
        instance: Instance,
        stored: StoredVersion | None,
        judgement: Judgement | None,
        priority: Priority,
    ) -> Stored:
        if stored is None:
            move_into_place(part, self.data.root / instance.path)
            pseudonym = self._audit.pseudonym(instance.study_uid)
            studies.add_instance(
                self._database, instance, pseudonym=pseudonym, now=self._monotonic(), priority=priority
            )
            other = studies.has_other_patient(self._database, instance)
            return Stored(outcome=SpoolOutcome.NEW, reason=studies.OTHER_PATIENT if other else "")
        if judgement is None:
            return Stored(outcome=SpoolOutcome.DUPLICATE)
        if judgement.verdict is Verdict.SAME:
            studies.note_same_image(self._database, instance)
            return Stored(outcome=SpoolOutcome.SAME_IMAGE)
        if judgement.verdict is Verdict.BETTER:
            move_into_place(part, self.data.root / instance.path)
            self._replace(stored, instance, f"the version before could not be used ({judgement.reason})")
            return Stored(outcome=SpoolOutcome.REPLACED, reason=judgement.reason)
        self._quarantine(part, instance, judgement.reason)
        return Stored(outcome=SpoolOutcome.QUARANTINED, reason=judgement.reason, study_uid=stored.study_uid)

    def _reject(self, document: Instance, rejection: Rejection) -> Stored:
        note = RejectionNote(
            code=rejection.code,
            meaning=TITLES[rejection.code],
            document=document.sop_uid,
            study_uid=document.study_uid,
            images=tuple(valid_uid("SOPInstanceUID", uid) for uid in rejection.images),
        )
        expired = rejection.code == EXPIRED
        count = studies.apply_rejection(self._database, note, expired=expired, now=self._monotonic())
        reason = f"{note.meaning} ({note.code}, DCM): {counted(count, 'mammogram')} here"
        return Stored(outcome=SpoolOutcome.REJECTION, reason=reason)

    def _replace(self, stored: StoredVersion, instance: Instance, reason: str) -> None:
        """Replace the row of `stored`, whose file goes to quarantine, by that of `instance`, whose file is in place."""
        kept = self.data.quarantined(instance.sop_uid, stored.sha256)
        with suppress(FileExistsError, FileNotFoundError):  # removed by retention
            os.link(self.data.root / stored.path, kept)
        sync(kept.parent)
        studies.replace_instance(
            self._database, stored, instance, kept=self.data.relative(kept), reason=reason, now=self._monotonic()
        )

    def _quarantine(self, part: Path, instance: Instance, reason: str) -> None:
        path = self.data.quarantined(instance.sop_uid, instance.sha256)
        move_into_place(part, path)
        quarantined = replace(instance, path=self.data.relative(path))
        studies.add_quarantined(self._database, quarantined, reason=reason)

    def _remove_unrecorded(self, path: Path, sop_uid: str) -> None:
        """Remove a file whose row could not be written. If that fails too, the keeper's sweep removes it."""
        with suppress(OSError, sqlite3.Error), transaction(self._database):
            stored = studies.stored_version(self._database, sop_uid)
            if stored is None or stored.path != self.data.relative(path):
                path.unlink(missing_ok=True)

    def accept(self, number: int, sha256: str) -> Instance:
        """Let the quarantined version with this number take the place of the stored one, by a person's decision.

        `sha256`: digest of the version that the person saw, because the version that is replaced may get its number.
        Raises UsageError if there is no such version, if its file is gone, or if it belongs to another study.
        """
        with self._lock, transaction(self._database):
            row = studies.quarantined_version(self._database, number)
            stored = studies.stored_version(self._database, row["sop_uid"]) if row else None
            if row is None or stored is None or row["sha256"] != sha256:
                raise UsageError(
                    f"there is no version {number} any more, or another one has its number now: list the versions again"
                )
            instance = self._examined(self.data.root / row["path"], row["sender"], row["sha256"])
            if (instance.study_uid, instance.sop_uid) != (stored.study_uid, stored.sop_uid):
                raise UsageError(
                    f"version {number} belongs to another study than the stored one, so it cannot take its place: "
                    "have the image sent under a SOP Instance UID of its own"
                )
            path = self._path(instance, stored)
            with suppress(FileExistsError):
                os.link(self.data.root / row["path"], path)
            sync(path.parent)
            instance = replace(instance, path=self.data.relative(path))
            self._replace(stored, instance, "accepted by a person")
        for left in (stored.path, row["path"]):
            (self.data.root / left).unlink(missing_ok=True)
        return instance

    def _examined(self, path: Path, sender: str, sha256: str) -> Instance:
        """The row of a file in quarantine. Raises UsageError if it cannot be read or has changed."""
        try:
            content = path.read_bytes()
            received = with_valid_uids(examine(path, for_processing=self._accept.for_processing))
            head = read_head(content[:MAX_HEAD])
        except (OSError, DicomError) as error:
            raise UsageError(
                f"the file of this version in quarantine cannot be read ({type(error).__name__}): have it sent again"
            ) from error
        claim, length = head or (None, 0)
        if claim is None or hashlib.sha256(content[length:]).hexdigest() != sha256:
            raise UsageError("the file of this version in the quarantine has changed: have it sent again")
        return self.row(received, claim, sha256=sha256, count=len(content) - length, sender=sender)

    def record_refusal(self, sender: str, code: str, reason: str, *, times: int = 1) -> None:
        """Count an instance or association that was refused (`senders.record_refusal`); never raises.

        A full disk is one of the reasons for refusals, and takes no row either; the audit log has them all.
        """
        try:
            with self._lock:
                senders.record_refusal(self._database, sender, code, reason, times=times)
        except sqlite3.Error as error:
            _LOG.error("state.db cannot be written (%s)", error, extra=RECURRING)

    def row(self, received: Received, claim: Claim, *, sha256: str, count: int, sender: str) -> Instance:
        """The row of a received object whose UIDs are valid; `sha256` and `count` bytes are those of its data set."""
        return Instance(
            sop_uid=received.sop_uid, study_uid=received.study_uid, series_uid=received.series_uid,
            sop_class=received.sop_class, transfer_syntax=claim.transfer_syntax, sha256=sha256,
            bytes=count, sender=sender, state=received.state, reason=received.reason or None,
            view=received.view.value if received.view else None, is_mammogram=received.is_mammogram,
            patient=self._audit.pseudonym(received.patient),
        )  # fmt: skip
