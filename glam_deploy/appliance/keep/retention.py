"""The retention cleaner: files of a study go when everything about it is done, delivered and old enough.

It is the only thing that deletes what was received or made. Time is steady: no change of the clock empties the disk.
"""

import shutil
import sqlite3

from glam_deploy.appliance.audit import Audit
from glam_deploy.appliance.config import Retain
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.state import studies
from glam_deploy.appliance.state.database import transaction

DAY_S = 86400.0
AT_ONCE = 50
"""Studies that are forgotten in one look, so that others do not wait long for the database."""


class Retention:
    """Removes files, and at last every row, of studies that have been settled for long enough."""

    def __init__(self, data: DataFolder, connection: sqlite3.Connection, rules: Retain, audit: Audit) -> None:
        self._data, self._connection, self._audit = data, connection, audit
        self._instances_s, self._results_s = rules.instances_days * DAY_S, rules.results_days * DAY_S

    def __call__(self, now: float) -> None:
        """Do what is due at steady time `now`. Raises OSError where a file cannot be removed."""
        studies.settle(self._connection, now)
        gone_s = max(self._instances_s, self._results_s)
        for study_uid in studies.settled_before(self._connection, now - gone_s)[:AT_ONCE]:
            self._forget(study_uid, now - gone_s)
        for study_uid in studies.settled_before(self._connection, now - self._instances_s):
            self._remove_instances(studies.files(self._connection, study_uid), study_uid)
        for study_uid in studies.settled_before(self._connection, now - self._results_s):
            self._remove_results(studies.files(self._connection, study_uid))

    def _forget(self, study_uid: str, moment: float) -> None:
        """Under the right to write, so that no instance of it comes to be known in between."""
        with transaction(self._connection):
            if study_uid not in studies.settled_before(self._connection, moment):
                return
            found = studies.files(self._connection, study_uid)
            self._remove_instances(found, study_uid)
            self._remove_results(found)
            studies.forget(self._connection, study_uid)
        self._audit.write("study_removed", study=study_uid, instances=len(found.instances), jobs=len(found.job_keys))

    def _remove_instances(self, found: studies.Files, study_uid: str) -> None:
        """Those that the database knows: another one may be about to come."""
        for path in (*found.instances, *found.quarantined):
            (self._data.root / path).unlink(missing_ok=True)
        folder = self._data.study(study_uid)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def _remove_results(self, found: studies.Files) -> None:
        folders = [self._data.root / path for path in found.view_folders]
        for folder in (*folders, *map(self._data.job_results, found.job_keys)):
            if folder.is_dir():
                shutil.rmtree(folder)
