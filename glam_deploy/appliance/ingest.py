"""Ingest: takes an instance from C-STORE or STOW-RS, checks it, and stores its file and row together.

    with ingest.open(sender="MODALITY@10.1.2.3", claim=claim) as upload:
        for chunk in chunks:
            upload.write(chunk)
        receipt = upload.finish()

Bytes are written to the disk as they arrive; only a bounded part of the data set's header is parsed. Success means that
the complete file is on the disk under its final name and `state.db` has its row.
"""

import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO

from glam_deploy.appliance.audit import Audit
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder, part_file
from glam_deploy.appliance.identity import with_valid_uids
from glam_deploy.appliance.process import RECURRING
from glam_deploy.appliance.spool import Spool, SpoolOutcome, Stored
from glam_deploy.appliance.state.database import reason_of
from glam_deploy.appliance.state.overview import is_corruption
from glam_deploy.appliance.state.priority import Priority
from glam_deploy.appliance.state.studies import Instance
from glam_deploy.dicom.completeness import require_complete
from glam_deploy.dicom.part10 import Claim, is_accepted_syntax, is_storage_class, read_head, write_head
from glam_deploy.dicom.received import Received, examine, is_identifier
from glam_deploy.dicom.rejection import SOP_CLASS as REJECTION_CLASS
from glam_deploy.dicom.rejection import read_rejection
from glam_deploy.dicom.uids import is_uid, valid_uid
from glam_deploy.errors import DicomError, IncompleteObject, fault

SPACE_STEP = 16 << 20
"""Bytes of one instance between two checks of the free space."""

_LOG = logging.getLogger(__name__)


class Status(IntEnum):
    """Result of an instance: C-STORE statuses (PS3.4 table B.2-1, PS3.7 annex C), in STOW-RS the FailureReason."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    """A fault of glam-deploy itself."""
    CLASS_NOT_SUPPORTED = 0x0122
    """The SOP class is private, or newer than this release."""
    OUT_OF_RESOURCES = 0xA700
    """The disk is full or below the reserve: the sender should send again later."""
    MISMATCH = 0xA900
    """The data set differs from what the command or the file meta information says."""
    NOT_UNDERSTOOD = 0xC000
    """No readable DICOM data set, or one without valid UIDs."""
    UID_COLLISION = 0xC111
    """Another instance has the same SOP Instance UID; that one is kept, this one is in quarantine."""
    TOO_LARGE = 0xC112
    """More than `receive.max_object_bytes`."""
    INCOMPLETE = 0xC113
    """The data set ends too early, or has fewer pixels than its header states: it was cut on its way."""
    SYNTAX_NOT_SUPPORTED = 0xC122
    """The transfer syntax is private, or its pixels are not in the object."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The answer to the sender about one instance."""

    status: Status
    reason: str = ""
    """Why the instance was refused; holds no identifier."""
    sop_class: str = ""
    """UID as announced before the data set, as `sop_uid`; "" if it is not valid."""
    sop_uid: str = ""
    study_uid: str = ""
    """UID of its study if it was stored, or of that with the other version if it is in quarantine; "" otherwise."""


class _RefusedError(Exception):
    def __init__(self, status: Status, reason: str, *, study_uid: str = "") -> None:
        super().__init__(reason)
        self.status, self.study_uid = status, study_uid


class Ingest:
    """Stores instances in a data folder; safe to share between threads. A process may have several."""

    def __init__(self, config: Config, data: DataFolder, audit: Audit) -> None:
        """`data`: a data folder that has been made. Raises UsageError if its database cannot be used."""
        self.config, self.audit, self.spool = config, audit, Spool(config, data, audit)
        self.damage = ""
        """Of `state.db`, as an instance met it; nothing can be stored until it is restored."""

    def open(
        self,
        *,
        sender: str,
        claim: Claim | None = None,
        study: str | None = None,
        instance: str | None = None,
        fetched: bool = False,
    ) -> "InstanceUpload":
        """Begin an instance from `sender` (AE title@address, or another name for the audit log).

        With `claim` the bytes are a data set in its transfer syntax (C-STORE), without it a whole DICOM file (STOW-RS).
        With `study` and `instance`, UIDs, another instance or one of another study is refused. `fetched`: whether the
        appliance asked for it.
        """
        return InstanceUpload(self, sender, claim, (study, instance), fetched)

    def close(self) -> None:
        """Close the database; call it when no instance is being received."""
        self.spool.close()


class InstanceUpload:
    """One instance that is being received; a context manager that leaves no unfinished file on the disk."""

    def __init__(
        self, ingest: Ingest, sender: str, claim: Claim | None, asked: tuple[str | None, str | None], fetched: bool
    ) -> None:
        self._ingest, self._sender, self._claim, self._fetched = ingest, sender, claim, fetched
        self._study, self._instance = asked
        self._started = time.monotonic()
        self._on_disk = ExitStack()
        self._file: BinaryIO | None = None
        self._path = Path()
        self._head = b""
        """First bytes of a whole file, until its file meta information is complete."""
        self._sha256 = hashlib.sha256()
        self._bytes = 0
        self._receipt: Receipt | None = None

    def __enter__(self) -> "InstanceUpload":
        return self

    def __exit__(self, *_: object) -> None:
        if self._receipt is None:
            self._refuse(Status.NOT_UNDERSTOOD, "the sender stopped before the end of the instance")
            self._audit_refusal()
        self._close()

    def write(self, chunk: bytes) -> None:
        """Take the next bytes, in any number. Never raises; after an error further bytes are ignored."""
        if self._receipt is None:
            self._run_step(lambda: self._receive(chunk))

    def finish(self) -> Receipt:
        """Store the instance after its last byte, or refuse it. Never raises; a success is durable when it returns."""
        if self._receipt is None:
            self._run_step(self._store)
        self._close()
        assert self._receipt
        if self._receipt.status != Status.SUCCESS:
            self._audit_refusal()
        return self._receipt

    def _run_step(self, step: Callable[[], None]) -> None:
        """Turn any exception into a refusal, so that one instance cannot affect the next."""
        try:
            step()
        except _RefusedError as error:
            self._refuse(error.status, str(error), study_uid=error.study_uid)
        except IncompleteObject as error:
            self._refuse(Status.INCOMPLETE, str(error))
        except DicomError as error:
            self._refuse(Status.NOT_UNDERSTOOD, str(error))
        except sqlite3.Error as error:
            self._refuse(Status.OUT_OF_RESOURCES, self._database_fault(error))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            self._refuse(
                Status.OUT_OF_RESOURCES, f"it could not be written to the disk ({reason}): send it again later"
            )
        except Exception as error:
            _LOG.error("receiving an instance failed with %s", fault(error))
            self._refuse(Status.PROCESSING_FAILURE, f"a fault of glam-deploy ({type(error).__name__}): report it")

    def _database_fault(self, error: sqlite3.Error) -> str:
        reason = reason_of(error)
        if not is_corruption(error):
            return f"it could not be recorded in state.db ({reason}): send it again later"
        self._ingest.damage = f"state.db is damaged ({reason}): restore a backup"
        _LOG.error("%s", self._ingest.damage, extra=RECURRING)
        return f"{self._ingest.damage}, and send it again then"

    def _refuse(self, status: Status, reason: str, *, study_uid: str = "") -> None:
        uids = {"sop_class": self._claim.sop_class, "sop_uid": self._claim.sop_uid} if self._claim else {}
        known = {name: uid for name, uid in uids.items() if is_uid(uid)}
        self._receipt = Receipt(status=status, reason=reason, study_uid=study_uid, **known)
        self._close()

    def _close(self) -> None:
        """Delete the temporary file; closing may fail once more on a disk that was full."""
        with suppress(OSError):
            self._on_disk.close()

    def _receive(self, chunk: bytes) -> None:
        if self._claim is None:
            self._head += chunk
            found = read_head(self._head)
            if found is None:
                return
            self._claim, length = found
            chunk, self._head = self._head[length:], b""
        if self._file is None:
            self._open_file(self._claim)
        self._append(chunk)

    def _open_file(self, claim: Claim) -> None:
        if not is_identifier(claim.sop_uid):
            raise DicomError("the SOP Instance UID is not valid (PS3.5 section 9.1): correct the object at its source")
        if self._instance not in (None, claim.sop_uid):
            raise _RefusedError(Status.MISMATCH, "it is another instance than the one that was asked for")
        if not is_storage_class(claim.sop_class):
            raise _RefusedError(Status.CLASS_NOT_SUPPORTED, "its SOP class is not a storage class of the standard")
        if not is_accepted_syntax(claim.transfer_syntax):
            raise _RefusedError(
                Status.SYNTAX_NOT_SUPPORTED, "its transfer syntax is private, or its pixels are not in the object"
            )
        self._check_space()
        self._path, self._file = self._on_disk.enter_context(part_file(self._ingest.spool.data.incoming))
        self._file.write(write_head(replace(claim, sop_uid=valid_uid("SOPInstanceUID", claim.sop_uid))))

    def _append(self, chunk: bytes) -> None:
        assert self._file
        before, self._bytes = self._bytes, self._bytes + len(chunk)
        limit = self._ingest.config.receive.max_object_bytes
        if self._bytes > limit:
            raise _RefusedError(Status.TOO_LARGE, f"it has more than {limit} bytes (receive.max_object_bytes)")
        if before // SPACE_STEP != self._bytes // SPACE_STEP:
            self._check_space()
        self._sha256.update(chunk)
        self._file.write(chunk)

    def _check_space(self) -> None:
        """Refuse at the reserve, below which `/health/ready` is false too: without the bytes of this instance, which
        would be free again after its refusal.
        """
        written = self._file.tell() if self._file else 0
        if self._ingest.spool.data.free_bytes() + written < self._ingest.config.receive.reserve_bytes:
            raise _RefusedError(
                Status.OUT_OF_RESOURCES, "the disk has less free space than receive.reserve_bytes: send it again later"
            )

    def _store(self) -> None:
        if self._file is None or self._claim is None:
            raise DicomError("no data set arrived, or the file ends within its file meta information: send it again")
        self._file.flush()
        received = examine(self._path, for_processing=self._ingest.config.accept.for_processing)
        self._check(received, self._claim)
        if received.is_mammogram:
            require_complete(self._path)
        os.fsync(self._file.fileno())
        spool = self._ingest.spool
        instance = spool.row(
            with_valid_uids(received),
            self._claim,
            sha256=self._sha256.hexdigest(),
            count=self._bytes,
            sender=self._sender,
        )
        rejection = read_rejection(self._path) if received.sop_class == REJECTION_CLASS else None
        stored = spool.store(self._path, instance, rejection, priority=self._priority(received))
        if stored.outcome is SpoolOutcome.QUARANTINED:
            raise self._collision(stored, instance)
        self._receipt = Receipt(
            status=Status.SUCCESS,
            sop_class=received.sop_class,
            sop_uid=received.sop_uid,
            study_uid=received.study_uid,
        )
        self._audit_stored(stored, instance)

    def _collision(self, stored: Stored, instance: Instance) -> _RefusedError:
        name = self._ingest.audit.pseudonym(stored.study_uid)
        reason = f"another object has this UID; in quarantine: {stored.reason}. The first one, of study {name}, is kept"
        if instance.study_uid == stored.study_uid:
            remedy = f", until a person accepts this one: glam-deploy queue accept-correction {name}"
        else:
            remedy = ": have this one sent under a SOP Instance UID of its own"
        return _RefusedError(Status.UID_COLLISION, reason + remedy, study_uid=stored.study_uid)

    def _priority(self, received: Received) -> Priority:
        """The priority of the instance, by itself and its sender; an old exam is not urgent, whatever it was."""
        rules, calling_ae = self._ingest.config.priority, self._sender.rpartition("@")[0]
        if self._fetched:
            return Priority.FETCHED
        is_urgent = (rules.header and received.urgent) or calling_ae in rules.stat_senders
        return Priority.STAT if is_urgent else Priority.LIVE

    def _check(self, received: Received, claim: Claim) -> None:
        """Compare the data set with what was announced; if its own UID is invalid, the file meta information may hold
        another.
        """
        if not is_uid(claim.sop_uid) and claim.sop_uid != received.sop_uid:
            raise DicomError("the announced SOP Instance UID is not valid and differs from that of the data set")
        same = claim.sop_uid == received.sop_uid or not is_uid(received.sop_uid)
        if received.sop_class != claim.sop_class or not same:
            raise _RefusedError(
                Status.MISMATCH,
                "SOP class or SOP Instance UID of the data set differ from those announced by the sender",
            )
        if self._study not in (None, received.study_uid):
            raise _RefusedError(Status.MISMATCH, "it belongs to another study than the one it was sent to")

    def _audit_stored(self, stored: Stored, instance: Instance) -> None:
        self._ingest.audit.write(
            stored.outcome.value,
            study=instance.study_uid,
            instance=instance.sop_uid,
            sender=self._sender,
            state=instance.state,
            view=instance.view,
            reason="; ".join(filter(None, (instance.reason, stored.reason))) or None,
            bytes=self._bytes,
            seconds=self._seconds(),
        )

    def _audit_refusal(self) -> None:
        assert self._receipt
        status = f"{self._receipt.status:04X}"
        self._ingest.spool.record_refusal(self._sender, status, self._receipt.reason)
        self._ingest.audit.write(
            SpoolOutcome.QUARANTINED.value if self._receipt.status == Status.UID_COLLISION else "refused",
            study=self._receipt.study_uid or None,
            instance=self._receipt.sop_uid or None,
            sender=self._sender,
            status=f"0x{status}",
            reason=self._receipt.reason,
            bytes=self._bytes,
            seconds=self._seconds(),
        )

    def _seconds(self) -> float:
        return round(time.monotonic() - self._started, 3)
