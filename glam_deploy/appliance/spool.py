"""The spool: a received file gets its name and its row together, or neither."""

import sqlite3
import threading
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from pathlib import Path

from glam_deploy.appliance.audit import Audit
from glam_deploy.appliance.data import DataFolder, settle
from glam_deploy.appliance.state import instances
from glam_deploy.appliance.state.database import open_database, transaction
from glam_deploy.appliance.state.instances import Instance
from glam_deploy.appliance.state.steady import steady_clock

COLLISION = (
    "another object has the same SOP Instance UID: the first one is kept, this one is in quarantine. The same image "
    "encoded in another way, or with other data of the patient, counts as another one"
)


class Kept(Enum):
    """What became of a file."""

    NEW = "received"
    DUPLICATE = "duplicate"
    """The same data set is there already."""
    QUARANTINED = "uid_collision"
    """Other bytes under a UID that is taken."""


class Spool:
    """Of one process; safe to share between its threads, and beside the spools of other processes."""

    def __init__(self, data: DataFolder, audit: Audit) -> None:
        """`data` has been made."""
        self.data, self._audit = data, audit
        self._database = open_database(data.database, one_thread=False)
        self._steady = steady_clock(self._database)
        self._one_at_a_time = threading.Lock()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def keep(self, part: Path, instance: Instance) -> Kept:
        """Keep a file whose bytes are on the disk, and lies on the same one; `instance.path` is set here.

        Raises OSError or sqlite3.Error where the disk does not take it: then nothing has changed.
        """
        path = self.data.instance(instance.study_uid, instance.sop_uid)
        with self._one_at_a_time:
            try:
                # files are moved inside the transaction, so that no other process can come between
                with transaction(self._database):
                    return self._keep(part, replace(instance, path=self.data.relative(path)))
            except (OSError, sqlite3.Error):
                self._withdraw(path, instance.sop_uid)
                raise

    def _keep(self, part: Path, instance: Instance) -> Kept:
        known = instances.known_sha256(self._database, instance.sop_uid)
        if known == instance.sha256:
            return Kept.DUPLICATE
        if known is not None:
            self._quarantine(part, instance)
            return Kept.QUARANTINED
        settle(part, self.data.root / instance.path)
        pseudonym = self._audit.name(instance.study_uid)
        instances.add(self._database, instance, pseudonym=pseudonym, now=self._steady())
        return Kept.NEW

    def _quarantine(self, part: Path, instance: Instance) -> None:
        path = self.data.quarantine / f"{instance.sop_uid}.{instance.sha256[:16]}.dcm"
        settle(part, path)
        apart = replace(instance, path=self.data.relative(path))
        instances.add_to_quarantine(self._database, apart, reason=COLLISION)

    def _withdraw(self, path: Path, sop_uid: str) -> None:
        """Take a file away whose row could not be written. Where that fails too, the next start's sweep does it."""
        with suppress(OSError, sqlite3.Error), transaction(self._database):
            if instances.known_sha256(self._database, sop_uid) is None:
                path.unlink(missing_ok=True)
