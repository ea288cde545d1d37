"""Rows of an archive's data set as a run adds them, without Ray."""

from pathlib import Path

from glam_deploy.archive.dataset import RETRIED, Dataset, Kept
from glam_deploy.archive.identifiers import Identifiers
from glam_deploy.archive.rows import FileRow, Finding, Maker, ViewRow

RETRY = Kept(tried_again=RETRIED)
MAKER = Maker(engine="e", bundle="b", gate="g", made_by="m")


def add_row(dataset: Dataset, number: int, status: str = "done", uid: str = "", found: int | None = None) -> None:
    """Add an instance and its entry as a run does: only what has no row.

    `uid`: its SOPInstanceUID. `found`: the number whose result it has; None: its own.
    """
    entry, instance = f"e{number}", f"i{number}"
    if dataset.is_known(entry):
        return
    known = dataset.instance(instance)
    view = None
    if known is None:
        view = ViewRow(
            instance=instance,
            entry=entry,
            sha256=f"{number:064}",
            identifiers=Identifiers().of({"SOPInstanceUID": uid}, f"/in/{number}.dcm"),
            finding=Finding(
                status=status,
                scores={"y_global_benign": (number if found is None else found) / 8},
                patches=((1, 2, 3, 4), None),
                timings_ms={"global": 1.5},
            ),
            maker=MAKER,
        )
    outcome = status if known is None or known.entry == entry else "duplicate"
    row = FileRow(
        entry=entry,
        instance=instance,
        location=f"/in/{number}.dcm",
        version="1",
        bytes=10,
        sha256=f"{number:064}",
        outcome=outcome,
    )
    dataset.add(row, view)


def write_rows(dest: Path, numbers: range, status: str = "done") -> None:
    with Dataset(dest, "d") as dataset:
        for number in numbers:
            add_row(dataset, number, status)
        dataset.flush()
