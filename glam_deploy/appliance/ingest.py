"""Taking an instance in: the one way for C-STORE and STOW-RS.

    with ingest.open(sender="MODALITY@10.1.2.3", claim=claim) as intake:
        for chunk in chunks:
            intake.write(chunk)
        receipt = intake.finish()

Bytes go to the disk as they come; of the data set no more than a bounded part of its header is ever read. Success
means: the file is on the disk whole under its name, and `state.db` says so.
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
from glam_deploy.appliance.identity import is_uid, kept, kept_uid
from glam_deploy.appliance.spool import COLLISION, Kept, Spool
from glam_deploy.appliance.state.instances import Instance
from glam_deploy.dicom.part10 import Claim, is_storage_class, is_taken_syntax, read_head, write_head
from glam_deploy.dicom.received import Received, examine, is_identifier
from glam_deploy.errors import DicomError, fault

SPACE_STEP = 16 << 20
"""Bytes of one instance between two looks at how much room the disk has."""

_LOG = logging.getLogger(__name__)


class Status(IntEnum):
    """How an instance fared: C-STORE statuses (PS3.4 table B.2-1, PS3.7 annex C), in STOW-RS the FailureReason."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110
    """A fault of glam-deploy itself."""
    CLASS_NOT_SUPPORTED = 0x0122
    """Its SOP class is private, or not in the standard yet."""
    OUT_OF_RESOURCES = 0xA700
    """The disk is full or under its watermark: send again later."""
    MISMATCH = 0xA900
    """The data set is another one than the command, or the file meta information, says."""
    NOT_UNDERSTOOD = 0xC000
    """No readable DICOM data set, or one without proper UIDs."""
    UID_COLLISION = 0xC111
    """Another instance has the same SOP Instance UID; it is kept, this one lies in quarantine."""
    TOO_LARGE = 0xC112
    """More than `receive.max_object_bytes`."""
    SYNTAX_NOT_SUPPORTED = 0xC122
    """Its transfer syntax is private, or its pixels lie elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What the sender is told."""

    status: Status
    reason: str = ""
    """Why it was not taken; holds no identifier."""
    sop_class: str = ""
    """UID; this and the next as said before the data set, "" where that is none."""
    sop_uid: str = ""
    study_uid: str = ""
    """UID; "" unless it was taken."""


class _RefusedError(Exception):
    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Ingest:
    """Takes instances into a data folder; safe to share between threads, one or more for each process."""

    def __init__(self, config: Config, data: DataFolder, audit: Audit) -> None:
        """`data` has been made. Raises UsageError where its database cannot be used."""
        self.config, self.audit, self.spool = config, audit, Spool(data, audit)

    def open(self, *, sender: str, claim: Claim | None = None, study: str | None = None) -> "Intake":
        """Begin an instance from `sender` (AE title@address, or what else the audit should call it).

        With `claim` the bytes are a data set in its transfer syntax (C-STORE), without it a whole DICOM file (STOW-RS).
        One of another study than `study`, a UID, is refused.
        """
        return Intake(self, sender, claim, study)

    def close(self) -> None:
        """Close the database; nothing is being received any more."""
        self.spool.close()


class Intake:
    """One instance that is being received; a context manager, at whose end nothing unfinished is left on the disk."""

    def __init__(self, ingest: Ingest, sender: str, claim: Claim | None, study: str | None) -> None:
        self._ingest, self._sender, self._claim, self._study = ingest, sender, claim, study
        self._started = time.monotonic()
        self._on_disk = ExitStack()
        self._file: BinaryIO | None = None
        self._path = Path()
        self._head = b""
        """Of a whole file, until all of it has come."""
        self._sha256 = hashlib.sha256()
        self._bytes = 0
        self._receipt: Receipt | None = None

    def __enter__(self) -> "Intake":
        return self

    def __exit__(self, *_: object) -> None:
        if self._receipt is None:
            self._refuse(Status.NOT_UNDERSTOOD, "the sender broke off")
            self._tell_refusal()
        self._close()

    def write(self, chunk: bytes) -> None:
        """Take the next bytes, of any number. Never raises: once something is wrong, the rest is passed over."""
        if self._receipt is None:
            self._guard(lambda: self._take(chunk))

    def finish(self) -> Receipt:
        """All bytes have come: keep the instance, or say why not. Never raises; success is on the disk for good."""
        if self._receipt is None:
            self._guard(self._keep)
        self._close()
        assert self._receipt
        if self._receipt.status != Status.SUCCESS:
            self._tell_refusal()
        return self._receipt

    def _guard(self, step: Callable[[], None]) -> None:
        """Turn whatever goes wrong into a receipt: one instance never harms the next."""
        try:
            step()
        except _RefusedError as error:
            self._refuse(error.status, str(error))
        except DicomError as error:
            self._refuse(Status.NOT_UNDERSTOOD, str(error))
        except (OSError, sqlite3.Error) as error:
            told = getattr(error, "strerror", None) or type(error).__name__
            self._refuse(Status.OUT_OF_RESOURCES, f"the disk did not take it ({told}): send it again later")
        except Exception as error:
            _LOG.error("taking an instance in: %s", fault(error))
            self._refuse(Status.PROCESSING_FAILURE, f"a fault of glam-deploy ({type(error).__name__}): report it")

    def _refuse(self, status: Status, reason: str) -> None:
        uids = {"sop_class": self._claim.sop_class, "sop_uid": self._claim.sop_uid} if self._claim else {}
        self._receipt = Receipt(status=status, reason=reason, **{k: uid for k, uid in uids.items() if is_uid(uid)})
        self._close()

    def _close(self) -> None:
        """Nothing stays in `incoming`; a disk that was full may complain once more about what it did not take."""
        with suppress(OSError):
            self._on_disk.close()

    def _take(self, chunk: bytes) -> None:
        if self._claim is None:
            self._head += chunk
            found = read_head(self._head)
            if found is None:
                return
            self._claim, length = found
            chunk, self._head = self._head[length:], b""
        if self._file is None:
            self._begin(self._claim)
        self._append(chunk)

    def _begin(self, claim: Claim) -> None:
        if not is_identifier(claim.sop_uid):
            raise DicomError("the SOP Instance UID is no UID (PS3.5 section 9.1): correct the object at its source")
        if not is_storage_class(claim.sop_class):
            raise _RefusedError(Status.CLASS_NOT_SUPPORTED, "its SOP class is no storage class of the standard")
        if not is_taken_syntax(claim.transfer_syntax):
            raise _RefusedError(Status.SYNTAX_NOT_SUPPORTED, "its transfer syntax is private, or its pixels elsewhere")
        self._check_space()
        self._path, self._file = self._on_disk.enter_context(part_file(self._ingest.spool.data.incoming))
        self._file.write(write_head(replace(claim, sop_uid=kept_uid("SOPInstanceUID", claim.sop_uid))))

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
        if self._ingest.spool.data.free_bytes() < self._ingest.config.receive.reserve_bytes:
            raise _RefusedError(
                Status.OUT_OF_RESOURCES, "the disk has less room than receive.reserve_bytes: send it again later"
            )

    def _keep(self) -> None:
        if self._file is None or self._claim is None:
            raise DicomError("no data set came, or a file that ends in its file meta information: send it again")
        self._file.flush()
        received = examine(self._path, for_processing=self._ingest.config.accept.for_processing)
        self._check(received, self._claim)
        os.fsync(self._file.fileno())
        instance = self._row(kept(received), self._claim)
        outcome = self._ingest.spool.keep(self._path, instance)
        if outcome is Kept.QUARANTINED:
            raise _RefusedError(Status.UID_COLLISION, COLLISION)
        self._receipt = Receipt(
            status=Status.SUCCESS,
            sop_class=received.sop_class,
            sop_uid=received.sop_uid,
            study_uid=received.study_uid,
        )
        self._tell(outcome.value, instance)

    def _check(self, received: Received, claim: Claim) -> None:
        """The file meta information of a file needs a valid UID, also where its data set has none."""
        if not is_uid(claim.sop_uid) and claim.sop_uid != received.sop_uid:
            raise DicomError("the SOP Instance UID that came with the data set is no UID, and not the data set's")
        same = claim.sop_uid == received.sop_uid or not is_uid(received.sop_uid)
        if received.sop_class != claim.sop_class or not same:
            raise _RefusedError(
                Status.MISMATCH, "SOP class or SOP Instance UID of the data set differ from those it was sent under"
            )
        if self._study not in (None, received.study_uid):
            raise _RefusedError(Status.MISMATCH, "it belongs to another study than the one it was sent to")

    def _row(self, received: Received, claim: Claim) -> Instance:
        return Instance(
            sop_uid=received.sop_uid, study_uid=received.study_uid, series_uid=received.series_uid,
            sop_class=received.sop_class, transfer_syntax=claim.transfer_syntax, sha256=self._sha256.hexdigest(),
            bytes=self._bytes, sender=self._sender, state=received.state, reason=received.reason or None,
            view=received.view.value if received.view else None, is_mammogram=received.is_mammogram,
        )  # fmt: skip

    def _tell(self, event: str, instance: Instance) -> None:
        self._ingest.audit.write(
            event,
            study=instance.study_uid,
            instance=instance.sop_uid,
            sender=self._sender,
            state=instance.state,
            view=instance.view,
            reason=instance.reason,
            bytes=self._bytes,
            seconds=self._seconds(),
        )

    def _tell_refusal(self) -> None:
        assert self._receipt
        self._ingest.audit.write(
            Kept.QUARANTINED.value if self._receipt.status == Status.UID_COLLISION else "refused",
            instance=self._receipt.sop_uid or None,
            sender=self._sender,
            status=f"0x{self._receipt.status:04X}",
            reason=self._receipt.reason,
            bytes=self._bytes,
            seconds=self._seconds(),
        )

    def _seconds(self) -> float:
        return round(time.monotonic() - self._started, 3)
