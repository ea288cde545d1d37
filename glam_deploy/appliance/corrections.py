"""Accepting a later version of an image that is in quarantine, by a person's decision."""

from collections.abc import Collection
from sqlite3 import Row

from glam_deploy.appliance.audit import Audit
from glam_deploy.appliance.spool import Spool
from glam_deploy.appliance.state.study_detail import StudyDetail


def acceptable(detail: StudyDetail, numbers: Collection[int] = ()) -> list[Row]:
    """The versions of a study with these numbers; without any, the latest one of each image that waits."""
    if numbers:
        return [row for row in detail.versions if row["id"] in numbers]
    return list({row["sop_uid"]: row for row in detail.versions if not row["replaced"]}.values())


def accept(spool: Spool, audit: Audit, version: Row, *, by: str, sender: str | None = None) -> None:
    """Let this version take the place of the stored one (`Spool.accept`), and audit it.

    `by`: name of the person; `sender`: address of the person's browser. Raises UsageError as `Spool.accept`.
    """
    instance = spool.accept(version["id"], version["sha256"])
    study, image = instance.study_uid, instance.sop_uid
    audit.write("correction_accepted", study=study, instance=image, id=version["id"], by=by, sender=sender)
