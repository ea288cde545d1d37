"""Rows of entries and instances over several runs, without Ray."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.archive import outcomes_in, rows
from support.archive_rows import MAKER

from glam_deploy.archive.dataset import Dataset
from glam_deploy.archive.identifiers import UIDS, Identifiers
from glam_deploy.archive.ledger import Ledger
from glam_deploy.archive.objects import ObjectPlan
from glam_deploy.archive.parts import Parts
from glam_deploy.archive.reader import Fingerprint
from glam_deploy.archive.recorder import Recorder
from glam_deploy.archive.rows import SCORES, Finding, entry_id
from glam_deploy.archive.sources.base import Entry
from glam_deploy.archive.station import Task

pytestmark = pytest.mark.ray


def recorded(dataset: Dataset) -> Recorder:
    return Recorder(dataset, Identifiers(), MAKER, lambda _: None, lambda _: None)


def task(location: str, version: str = "1", finding: Finding | None = None) -> Task:
    """An entry that was read: with content, or with the reason why it has none."""
    entry = Entry(location=location, name=Path(location).name, version=version)
    found = Fingerprint(sha256="" if finding else hashlib.sha256(location.encode()).hexdigest(), finding=finding)
    return Task(entry=entry, id=entry_id(entry, Identifiers()), fingerprint=found)


def test_a_kill_between_the_two_tables_keeps_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Dataset(tmp_path, "d") as dataset:
        recorder, one = recorded(dataset), task("/in/a.dcm")
        assert not recorder.is_settled(one)
        recorder.finish(one, Finding(status="failed", error="E", reason="made up for a test"))
        publish = Parts.publish
        monkeypatch.setattr(
            Parts, "publish", lambda self, table, *more: table == "views" and publish(self, table, *more)
        )
        monkeypatch.setattr(Ledger, "record", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            dataset.flush()
        monkeypatch.undo()
    with Dataset(tmp_path, "d") as dataset:
        assert recorded(dataset).is_settled(task("/in/a.dcm"))
        dataset.flush()
    assert {row["reason"] for table in ("views", "files") for row in rows(tmp_path, table)} == {"made up for a test"}
    assert outcomes_in(tmp_path) == {"a.dcm": "failed"}


def test_an_image_with_an_ambiguous_uid_gets_no_dicom_object(tmp_path: Path) -> None:
    """If its other files are written again."""
    uid, key = "1.2.826.0.1.3680043.8.498.1", Identifiers(key=bytes(range(32)))
    plan = ObjectPlan(folder=tmp_path / "objects/d", kinds=frozenset({"seg", "npz"}))
    for identifiers in (Identifiers(), key):
        dest = tmp_path / identifiers.fingerprint / "out"
        dest.mkdir(parents=True)
        with Dataset(dest, "d", identifiers) as dataset:
            recorder = Recorder(dataset, identifiers, MAKER, lambda _: None, lambda _: None)
            first, second, other = (task(f"/in/{name}.dcm") for name in ("a", "b", "c"))
            for one, of in ((first, uid), (second, uid), (other, f"{uid}.2")):
                assert one.fingerprint is not None
                one.fingerprint = replace(one.fingerprint, uids={"SOPInstanceUID": of})
                assert not recorder.is_settled(one)
            assert recorder.objects_of(second, plan) == plan and recorder.objects_of(second, None) is None
            for one, score in ((first, 0.25), (second, 0.5)):
                assert recorder.objects_of(one, plan) == plan
                recorder.finish(one, Finding(status="done", scores={"y_global_benign": score}))
                dataset.flush()
            assert (
                recorder.objects_of(first, plan) == recorder.objects_of(second, plan) == replace(plan, ambiguous=True)
            )
            assert recorder.objects_of(other, plan) == plan and dataset.ambiguous == 2


GONE = Finding(status="failed", reason="it does not exist")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("/in/a.dcm", ""), ("/in/a.dcm", "1")),  # of a list, and not there at first
        (("/in/a.dcm", "1"), ("/in/a.dcm", "2")),
        (("/in/b.zip", "1"), ("/in/b.zip!x/a.dcm", "1")),  # read permission was given
        (("/in/folder", ""), ("/in/folder/below/a.dcm", "1")),
        (("https://host/studies/1", ""), ("https://host/studies/1/series/2/instances/3", "1")),
    ],
)
@pytest.mark.parametrize("key", [None, bytes(range(32))])
def test_what_could_not_be_read_has_one_row_once_it_can(
    tmp_path: Path, before: tuple[str, str], after: tuple[str, str], key: bytes | None
) -> None:
    identifiers = Identifiers(key=key)
    for location, finding in ((before, GONE), (("/in/other.dcm", ""), GONE), (after, None)):
        with Dataset(tmp_path, "d", identifiers) as dataset:
            recorder = Recorder(dataset, identifiers, MAKER, lambda _: None, lambda _: None)
            if not recorder.is_settled(one := task(*location, finding)):
                recorder.finish(one, Finding(status="done"))
            dataset.flush()
    assert sorted(row["outcome"] for row in rows(tmp_path, "files")) == ["done", "unreadable"]


def test_a_container_whose_members_were_read_in_part_keeps_its_row(tmp_path: Path) -> None:
    """Its members come before it, and a run may end between them."""
    with Dataset(tmp_path, "d") as dataset:
        recorded(dataset).is_settled(container := task("/in/b.zip", "1", GONE))
        dataset.flush()
    with Dataset(tmp_path, "d") as dataset:
        recorder, member = recorded(dataset), task("/in/b.zip!a.dcm")
        assert not dataset.is_known(member.id) and not recorder.is_settled(member)
        assert dataset.is_known(container.id)
        recorder.finish(member, Finding(status="done"))
        dataset.flush()
    assert outcomes_in(tmp_path) == {"b.zip": "unreadable", "b.zip!a.dcm": "done"}


BAD = "1.2.\ud800"
UNFIT = [
    {"patches": ((2**40, 0, 1, 1),)},
    {"scores": {SCORES[0]: "much"}},
    {"notices": (5,)},
    {"timings_ms": {"read": "x"}},
]


@pytest.mark.parametrize("key", [None, bytes(range(32))])
def test_text_that_cannot_be_encoded_is_written_out(tmp_path: Path, key: bytes | None) -> None:
    """Of a decoder or a server: in any column, it ended the run and lost the rows before it."""
    identifiers = Identifiers(key=key)
    with Dataset(tmp_path, "d", identifiers) as dataset:
        recorder = Recorder(dataset, identifiers, MAKER, lambda _: None, lambda _: None)
        entry = Entry(location=f"/in/{BAD}", name="a.dcm", version=BAD)
        found = Fingerprint(sha256="0" * 64, uids=dict.fromkeys(UIDS, BAD), patient=BAD)
        one = Task(entry=entry, id=entry_id(entry, identifiers), fingerprint=found)
        assert not recorder.is_settled(one)
        recorder.finish(one, Finding(status="done", kind=BAD, view=BAD, notices=(BAD,), error=BAD, reason=BAD))
        dataset.flush()
    (view,), (file,) = rows(tmp_path, "views"), rows(tmp_path, "files")
    shown = "1.2.\\ud800"
    assert {view[name] for name in ("kind", "view", "error", "reason")} == {shown} == {*view["notices"]}
    if key is None:
        assert (file["location"], file["version"], view["sop_instance_uid"]) == (f"/in/{shown}", shown, shown)


@pytest.mark.parametrize("held", UNFIT, ids=lambda held: next(iter(held)))
def test_a_result_that_does_not_fit_costs_its_own_row(tmp_path: Path, held: dict[str, Any]) -> None:
    with Dataset(tmp_path, "d") as dataset:
        recorder = recorded(dataset)
        for name, more in (("a", {}), ("b", held), ("c", {})):
            one = task(f"/in/{name}.dcm")
            assert not recorder.is_settled(one)
            recorder.finish(one, Finding(status="done", **more))
        dataset.flush()
    assert outcomes_in(tmp_path) == {"a.dcm": "done", "b.dcm": "failed", "c.dcm": "done"}
    (reason,) = (row["reason"] for row in rows(tmp_path, "views") if row["status"] == "failed")
    assert reason.startswith("the result does not fit into the table (")
