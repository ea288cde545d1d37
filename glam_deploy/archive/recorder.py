"""What became of each entry -> rows: one of `files` for each, and one of `views` for each distinct instance."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from glam_deploy.archive.dataset import Dataset
from glam_deploy.archive.identifiers import Identifiers
from glam_deploy.archive.objects import ObjectPlan
from glam_deploy.archive.parts import unfit
from glam_deploy.archive.reader import Fingerprint
from glam_deploy.archive.rows import (
    DONE,
    DUPLICATE,
    EXCLUDED,
    FAILED,
    KEPT,
    UNREADABLE,
    FileRow,
    Finding,
    Maker,
    ViewRow,
    instance_id,
)
from glam_deploy.archive.sources.base import Entry
from glam_deploy.archive.sources.locations import places
from glam_deploy.archive.station import Task
from glam_deploy.errors import InternalError
from glam_deploy.json_records import valid_text

LARGEST = 2**63 - 1
"""Of the column of sizes, int64; a header of a tar file or a list can state more."""


@dataclass(kw_only=True, eq=False)
class _Claim:
    """An instance that one task is working on."""

    owner: Task
    duplicates: list[Task] = field(default_factory=list)
    """Further tasks with the same content; recorded when the owner is, so that none is a duplicate of nothing."""


class Recorder:
    """Writes the rows of a run to its data set.

    `count` is called with the outcome of each entry, `again` with a task that is to be read again.
    """

    def __init__(
        self,
        dataset: Dataset,
        identifiers: Identifiers,
        maker: Maker,
        count: Callable[[str], None],
        again: Callable[[Task], None],
    ) -> None:
        self._dataset, self._identifiers, self._maker = dataset, identifiers, maker
        self._count, self._again = count, again
        self._claims: dict[str, _Claim] = {}

    def is_settled(self, task: Task) -> bool:
        """Whether nothing more is to be done for an entry that was read: it has its row, or gets it with another's."""
        found = task.fingerprint
        assert found is not None
        is_content = bool(found.sha256) and not found.excluded
        instance = self._instance_of(task.entry, found) if is_content else ""
        if task.instance != instance:
            self._leave(task)
        if not is_content:
            if found.excluded:
                condition = found.excluded if self._identifiers.key is None else "the condition"
                self._add(task, EXCLUDED, reason=f"does not fulfil {condition}")
            else:
                self._add(task, UNREADABLE, reason="" if found.finding is None else found.finding.reason)
            return True
        task.instance = instance
        if (known := self._dataset.instance(task.instance)) is not None:
            # the row of its instance may be from a run that was killed before it wrote that of the entry
            is_owner = known.entry == task.id
            self._add(task, known.status if is_owner else DUPLICATE, reason=known.reason if is_owner else "")
            return True
        claim = self._claims.setdefault(task.instance, _Claim(owner=task))
        if claim.owner is not task and not any(task is other for other in claim.duplicates):
            claim.duplicates.append(task)
        return claim.owner is not task

    def _instance_of(self, entry: Entry, found: Fingerprint) -> str:
        named = found.has_view_of_name
        return instance_id(found.uids, found.sha256, entry.path, self._identifiers, has_view_of_name=named)

    def objects_of(self, task: Task, objects: ObjectPlan | None) -> ObjectPlan | None:
        """Files that are written for an entry: those of the run, but no SEG and SR with an ambiguous UID."""
        assert task.fingerprint is not None
        uid = self._identifiers.uid(task.fingerprint.uids.get("SOPInstanceUID", ""))
        return objects and replace(objects, ambiguous=self._dataset.has_ambiguous(uid))

    def finish(self, task: Task, finding: Finding) -> None:
        """Record the finding of an entry, and the duplicates of its instance."""
        found = task.fingerprint
        if found is None or not task.instance:  # its content is not known, because reading it ended the process
            self._add(task, UNREADABLE, reason=finding.reason)
            return
        owner = self._dataset.owner(task.instance) or task.id
        view = ViewRow(
            instance=task.instance,
            entry=owner,
            sha256=self._identifiers.text("content", found.sha256),
            identifiers=self._identifiers.of(found.uids, task.entry.location, patient=found.patient),
            finding=finding,
            maker=self._maker,
        )
        if reason := unfit(view):
            finding = Finding(status=FAILED, error=InternalError.__name__, reason=reason)
            view = replace(view, finding=finding, identifiers=self._identifiers.of({}, task.entry.location))
        is_copy = finding.status == DONE and owner != task.id  # of an entry whose files are written later
        self._add(task, DUPLICATE if is_copy else finding.status, view=view, reason=finding.reason)
        if (claim := self._claims.pop(task.instance, None)) is not None:
            for duplicate in claim.duplicates:
                self._add(duplicate, DUPLICATE)

    def _leave(self, task: Task) -> None:
        """Give up the claim of a task whose content is another one when it is read again; others are to claim it."""
        claim = self._claims.get(task.instance)
        if claim is not None and claim.owner is task:
            del self._claims[task.instance]
            for duplicate in claim.duplicates:
                self._again(duplicate)
        task.instance = ""

    def drop(self, task: Task) -> None:
        """Forget an entry without a row, with those that wait for it; a later run takes them."""
        if task.instance:
            self._claims.pop(task.instance, None)

    def _places(self, location: str) -> Iterator[str]:
        """`places` as the tables have them."""
        return (valid_text(self._identifiers.text("location", place)) for place in places(location))

    def _add(self, task: Task, outcome: str, *, view: ViewRow | None = None, reason: str = "") -> None:
        found, entry = task.fingerprint, task.entry
        location = self._identifiers.of({}, entry.location)["location"]
        size = entry.size if found is None or found.bytes is None else found.bytes
        if size is not None and not 0 <= size <= LARGEST:
            size = None
        row = FileRow(
            entry=task.id,
            instance=task.instance,
            location=location,
            version=self._identifiers.text("version", entry.version),
            bytes=size,
            sha256=self._identifiers.text("content", found.sha256) if found else "",
            outcome=outcome,
            reason=reason,
        )
        if view is None and self._dataset.is_known(task.id):
            outcome = KEPT  # twice in the source, or read again without a version
        elif outcome in (DONE, DUPLICATE) or not self._dataset.has_result(task.id, task.instance):
            self._dataset.add(row, view, self._places(entry.location))
        self._count(outcome)
