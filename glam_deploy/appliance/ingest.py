"""Taking an instance in: the one way for C-STORE and STOW-RS.

    with ingest.open(sender="MODALITY@10.1.2.3", claim=claim) as intake:
        for chunk in chunks:
            intake.write(chunk)
        receipt = intake.finish()

Bytes go to the disk as they come. Success means: the file is on the disk whole under its name, and `state.db` says so.
"""

from dataclasses import dataclass
from enum import IntEnum

from glam_deploy.appliance.audit import Audit
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder


class Status(IntEnum):
    """How an instance fared: C-STORE statuses (PS3.4 table B.2-1), which STOW-RS gives as FailureReason too."""

    SUCCESS = 0x0000
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


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a C-STORE command and its presentation context say about the data set that follows; UIDs."""

    sop_class: str
    sop_uid: str
    transfer_syntax: str


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What the sender is told."""

    status: Status
    reason: str = ""
    """Why it was not taken; holds no identifier."""
    sop_class: str = ""
    """UID; "" where it could not be read or is none."""
    sop_uid: str = ""
    study_uid: str = ""


class Intake:
    """One instance that is being received; a context manager, at whose end nothing unfinished is left on the disk."""

    def __enter__(self) -> "Intake":
        return self

    def __exit__(self, *_: object) -> None: ...

    def write(self, chunk: bytes) -> None:
        """Take the next bytes, of any number. Never raises: once something is wrong, the rest is passed over."""
        raise NotImplementedError

    def finish(self) -> Receipt:
        """All bytes have come: keep the instance, or say why not. Returns when it is on the disk for good."""
        raise NotImplementedError


class Ingest:
    """Takes instances into a data folder; safe to share between threads, one or more for each process."""

    def __init__(self, config: Config, data: DataFolder, audit: Audit) -> None:
        """`data` has been made."""

    def open(self, *, sender: str, claim: Claim | None = None) -> Intake:
        """Begin an instance from `sender` (AE title@address, or what else the audit should call it).

        With `claim` the bytes are a data set in its transfer syntax (C-STORE), without it a whole DICOM file (STOW-RS).
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close the database."""
