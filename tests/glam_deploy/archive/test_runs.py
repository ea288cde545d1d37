"""Runs over folders with the simulated pipeline: the tables say what each file was."""

import hashlib
import os
import signal
import tarfile
import zipfile
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mammograms import breast, write_mg
from pydicom.dataset import Dataset
from support.archive import (
    BadOpener,
    BadSource,
    ListedSource,
    NameCondition,
    outcomes_in,
    plan_of,
    rows,
    write_mixture,
    write_views,
)
from support.decoders import MISDEEDS, RISCV, DecodedSource, program
from support.engines import small_view

from glam_bench.simulated_pipeline import Simulation
from glam_deploy.archive.actors import EnginePlan
from glam_deploy.archive.driver import Driver
from glam_deploy.archive.identifiers import Identifiers
from glam_deploy.archive.plan import survey
from glam_deploy.archive.rows import entry_id
from glam_deploy.archive.sources import open_source
from glam_deploy.archive.sources.base import SourceUnavailable
from glam_deploy.archive.summary import write_summary
from glam_deploy.archive.where import parse_where
from glam_deploy.dicom.read import read_view
from glam_deploy.errors import UsageError
from glam_deploy.records import View

pytestmark = pytest.mark.ray


def test_the_table_says_what_each_file_was(ray: Any, tmp_path: Path) -> None:
    expected = write_mixture(tmp_path / "in")
    plan = plan_of(tmp_path / "in", tmp_path / "out")
    assert survey(plan) == {"new": len(expected)}
    assert Driver(ray, plan).run() == Counter(expected.values())
    found = outcomes_in(tmp_path / "out")
    # of several entries with the same content, which of them is the first depends on the readers
    assert Counter(found.values()) == Counter(expected.values())
    assert {name: found[name] for name in expected if name not in _SAME} == {
        name: outcome for name, outcome in expected.items() if name not in _SAME
    }
    for row in rows(tmp_path / "out", "views"):
        if row["status"] == "done":
            pixels = read_view(Path(row["location"])).pixels.astype(np.float64)
            assert row["y_global_benign"] == np.float32(pixels.mean()) / 65536
            assert row["y_global_malignant"] == pixels.max() / 65536
            assert row["view"] == "L-CC"
    reasons = {row["location"]: row["reason"] for row in rows(tmp_path / "out", "views") if row["status"] != "done"}
    assert all(reasons.values())


_SAME = {"a3.dcm", "copy3.dcm", "a7.dcm", "copy7.dcm", "a11.dcm", "copy11.dcm", "cut.dcm", "cut_too.dcm"}


def test_a_second_run_does_nothing_and_another_bundle_all(ray: Any, tmp_path: Path) -> None:
    write_views(tmp_path / "in", ["a.dcm", "b.dcm"])
    plan = plan_of(tmp_path / "in", tmp_path / "out")
    first = Driver(ray, plan)
    assert first.run() == {"done": 2}
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    assert survey(plan) == {"kept": 2}
    assert Driver(ray, plan).run() == {"kept": 2}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")} == parts
    other = Driver(ray, replace(plan, opener=Simulation(checkpoint="2" * 64)))
    assert other.run() == {"done": 2}
    assert other.partition != first.partition
    assert {row["bundle"] for row in rows(tmp_path / "out", "views")} == {first.partition, other.partition}


def test_an_index_that_was_lost_is_made_again(ray: Any, tmp_path: Path) -> None:
    expected = write_mixture(tmp_path / "in")
    plan = plan_of(tmp_path / "in", tmp_path / "out")
    Driver(ray, plan).run()
    (ledger,) = (tmp_path / "out").glob("ledger-*.db")
    ledger.unlink()
    assert Driver(ray, plan).run() == {"kept": len(expected)}


def test_more_threads_than_cores_are_refused(ray: Any, tmp_path: Path) -> None:
    write_views(tmp_path / "in", ["a.dcm"])
    cores = len(os.sched_getaffinity(0))
    plan = plan_of(tmp_path / "in", tmp_path / "out", engine=EnginePlan(threads=cores + 1))
    with pytest.raises(UsageError, match=f"--threads {cores + 1} is more than .*: give at most {cores}, or leave"):
        Driver(ray, plan).run()


def test_limit(ray: Any, tmp_path: Path) -> None:
    write_views(tmp_path / "in", ["a.dcm", "b.dcm", "c.dcm"])
    plan = plan_of(tmp_path / "in", tmp_path / "out", limit=2)
    assert Driver(ray, plan).run() == {"done": 2}
    assert Driver(ray, plan).run() == {"kept": 2, "done": 1}


def test_excluded_and_unreadable_entries_have_no_view(ray: Any, tmp_path: Path) -> None:
    write_views(tmp_path / "in", ["a.dcm", "b.dcm", "gone.dcm"])
    (tmp_path / "in/c.dcm").write_bytes((tmp_path / "in/b.dcm").read_bytes() + b"EXCLUDE")
    source = BadSource(tmp_path / "in")
    plan = plan_of(tmp_path / "in", tmp_path / "out", source=source, where=NameCondition(b"EXCLUDE"))
    Driver(ray, plan).run()
    expected = {"a.dcm": "done", "b.dcm": "done", "c.dcm": "excluded", "gone.dcm": "unreadable"}
    assert outcomes_in(tmp_path / "out") == expected
    assert survey(plan) == {"kept": 4}

    # what a condition has excluded is tried again under another one
    other = plan_of(tmp_path / "in", tmp_path / "out", source=source, where=NameCondition(b"OTHER"))
    assert survey(other) == {"kept": 3, "new": 1}
    assert Driver(ray, other).run() == {"kept": 3, "done": 1}
    assert outcomes_in(tmp_path / "out") == expected | {"c.dcm": "done"}


@pytest.mark.parametrize("size", [2**87, 2**63])
def test_an_impossible_size_costs_one_row(ray: Any, tmp_path: Path, size: int) -> None:
    """In base 256, as GNU tar writes what eleven octal digits cannot hold."""
    write_views(tmp_path / "in", ["a.dcm"])
    member = tarfile.TarInfo("lies.dcm")
    member.size = size
    (tmp_path / "in/b.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    Driver(ray, plan_of(tmp_path / "in", tmp_path / "out")).run()
    found = {Path(row["location"]).name: row for row in rows(tmp_path / "out", "files")}
    assert found["a.dcm"]["outcome"] == "done"
    lying = found.pop("b.tar!lies.dcm")
    assert (lying["outcome"], lying["bytes"]) == ("unreadable", None)
    assert lying["reason"]
    assert {name: row["outcome"] for name, row in found.items()} == {"a.dcm": "done", "b.tar": "unreadable"}


def test_conditions_on_headers(ray: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, maker in (("a.dcm", "Hologic, Inc."), ("b.dcm", "SIEMENS"), ("c.dcm", "HOLOGIC")):
        write_mg(tmp_path / "in" / name, partial(_made_by, maker=maker))
    (tmp_path / "in/picture_L-CC.png").write_bytes(b"no header")
    plan = plan_of(tmp_path / "in", tmp_path / "out", where=parse_where(["Manufacturer=hologic*"]))
    Driver(ray, plan).run()
    expected = {"a.dcm": "done", "b.dcm": "excluded", "c.dcm": "done", "picture_L-CC.png": "excluded"}
    assert outcomes_in(tmp_path / "out") == expected
    assert {row["reason"] for row in rows(tmp_path / "out", "files") if row["outcome"] == "excluded"} == {
        "does not fulfil Manufacturer=hologic*"
    }


def test_pseudonyms_leave_no_identifier(ray: Any, tmp_path: Path) -> None:
    """Neither as it is nor as its SHA-256, which can be found by trying; in no file of the result."""
    folder = tmp_path / "in/Doe^Jane"
    folder.mkdir(parents=True)
    for name, patient in (("a.dcm", "PAT-0815"), ("b.dcm", "PAT-0815"), ("c.dcm", "PAT-4711"), ("cut.dcm", "PAT-1")):
        write_mg(folder / name, partial(_of_patient, patient=patient, uid=f"1.2.826.0.1.3680043.8.498.{ord(name[0])}"))
    (folder / "cut.dcm").write_bytes((folder / "cut.dcm").read_bytes()[:-500])
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    key = Identifiers(key=bytes(range(32)))
    made = {"identifiers": key, "patients": True, "write": frozenset({"npz"})}
    plan = plan_of(tmp_path / "in", tmp_path / "out", **made)
    Driver(ray, plan).run()
    write_summary(tmp_path / "out")
    assert survey(plan) == {"kept": 4}
    assert Driver(ray, plan).run() == {"kept": 4}

    found = rows(tmp_path / "out", "views")
    patients = Counter(row["patient"] for row in found)
    assert sorted(patients.values()) == [1, 1, 2] and all(patients)
    uids = {row["sop_instance_uid"] for row in found}  # c.dcm and cut.dcm have the same
    assert len(uids) == 3 and all(uid.startswith("2.25.") for uid in uids)
    hidden = [b"Doe", b"PAT-", b"1.2.826.0.1.3680043.8.498", b".dcm"]
    hidden += [hashlib.sha256(content).hexdigest()[:32].encode() for content in contents.values()]
    hidden += [entry_id(entry, Identifiers()).encode() for entry in open_source([str(tmp_path / "in")]).entries()]
    for path in (tmp_path / "out").rglob("*"):
        text = str(path.relative_to(tmp_path / "out")).encode()
        if path.suffix == ".parquet":
            text += repr([row for table in ("views", "files") for row in rows(tmp_path / "out", table)]).encode()
        if path.is_file():
            text += path.read_bytes()
        assert not [word for word in hidden if word in text], path

    other = plan_of(tmp_path / "in", tmp_path / "other", where=parse_where(["PatientID=PAT-4711"]), **made)
    Driver(ray, other).run()
    write_summary(tmp_path / "other")
    assert {row["reason"] for row in rows(tmp_path / "other", "files")} == {"", "does not fulfil the condition"}
    assert not [path for path in (tmp_path / "other").rglob("*") if path.is_file() and b"4711" in path.read_bytes()]

    with pytest.raises(UsageError, match="was given: use the same --pseudonyms"):
        Driver(ray, plan_of(tmp_path / "in", tmp_path / "out")).run()
    with pytest.raises(UsageError, match="was given: use the same --pseudonyms"):
        survey(plan_of(tmp_path / "in", tmp_path / "out", identifiers=Identifiers(key=b"1" * 32)))


def _made_by(dataset: Dataset, *, maker: str) -> None:
    dataset.Manufacturer = maker
    dataset.SOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{len(maker)}"


def _of_patient(dataset: Dataset, *, patient: str, uid: str) -> None:
    dataset.PatientID = patient
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid


def test_files_that_end_or_stop_their_process_cost_one_row_each(ray: Any, tmp_path: Path) -> None:
    lethal = ["lethal0.dcm", "lethal1.dcm", "lethal2.dcm"]
    names = ["a.dcm", "abort.dcm", "b.dcm", "c.dcm", *lethal, "m.dcm", "once.dcm", "slow.dcm", "z.dcm"]
    write_views(tmp_path / "in", names)
    source, opener = BadSource(tmp_path / "in"), BadOpener(tmp_path / "in")
    plan = plan_of(tmp_path / "in", tmp_path / "out", source=source, opener=opener, reading_limit_s=5)
    Driver(ray, plan).run()
    bad = {"abort.dcm": "unreadable", "slow.dcm": "unreadable"} | dict.fromkeys(lethal, "failed")
    assert outcomes_in(tmp_path / "out") == dict.fromkeys(names, "done") | bad
    failed = [row for row in rows(tmp_path / "out", "views") if row["status"] == "failed"]
    assert {(row["error"], Path(row["location"]).name) for row in failed} == {("ProcessDied", name) for name in lethal}


def test_decoders_that_misbehave_cost_one_row_each(ray: Any, tmp_path: Path) -> None:
    """Each with its own reason, and none is taken for an end of the reading process."""
    write_views(tmp_path / "in", ["a.dcm", *(f"{misdeed}_L-CC.dcm" for misdeed in MISDEEDS), "z.dcm"])
    np.save(tmp_path / "in/aborts_R-CC.npy", breast(View.R_CC))
    (tmp_path / "rights").mkdir()
    source = DecodedSource(tmp_path / "in", program(tmp_path / "rights"))
    driver = Driver(ray, plan_of(tmp_path / "in", tmp_path / "out", source=source))
    assert driver.run() == {"done": 2, "failed": len(MISDEEDS) + 1}
    assert driver.unlimited == ""
    found = {Path(row["location"]).name: row for row in rows(tmp_path / "out", "views")}
    assert found["a.dcm"]["status"] == found["z.dcm"]["status"] == "done"
    for name in found.keys() - {"a.dcm", "z.dcm"}:
        row = found[name]
        assert row["status"] == "failed" and MISDEEDS[name.partition("_")[0]][1] in row["reason"]
        assert row["sha256"] == hashlib.sha256((tmp_path / "in" / name).read_bytes()).hexdigest()
        assert bool(row["sop_instance_uid"]) == name.endswith(".dcm")
    assert "--retry-failed" in found["hangs_L-CC.dcm"]["reason"]
    assert not list((tmp_path / "rights").iterdir())


def test_a_node_without_the_filter_is_reported(ray: Any, tmp_path: Path) -> None:
    write_views(tmp_path / "in", ["a.dcm"])
    driver = Driver(ray, plan_of(tmp_path / "in", tmp_path / "out", source=DecodedSource(tmp_path / "in", RISCV)))
    assert driver.run() == {"done": 1}
    assert driver.unlimited == "no filter of system calls (no filter for the processor riscv64)"


def test_what_failed_is_tried_again_on_request(ray: Any, tmp_path: Path) -> None:
    write_views(tmp_path / "in", ["a.dcm", "b.dcm", "fails.dcm"])
    (tmp_path / "in/fails_too.dcm").write_bytes((tmp_path / "in/fails.dcm").read_bytes())
    (tmp_path / "in/broken.txt").touch()
    plan = plan_of(tmp_path / "in", tmp_path / "out", opener=BadOpener(tmp_path / "in"))
    assert Driver(ray, plan).run() == {"done": 2, "failed": 1, "duplicate": 1}
    (tmp_path / "in/broken.txt").unlink()
    assert Driver(ray, plan).run() == {"kept": 4}
    assert Driver(ray, replace(plan, retry_failed=True)).run() == {"kept": 3, "done": 1}
    assert Counter(outcomes_in(tmp_path / "out").values()) == {"done": 3, "duplicate": 1}
    assert Driver(ray, replace(plan, retry_failed=True)).run() == {"kept": 4}


def test_a_source_that_goes_away_ends_the_run_and_the_next_completes_it(ray: Any, tmp_path: Path) -> None:
    names = [f"a{n}.dcm" for n in range(8)]
    write_views(tmp_path / "in", names)
    (tmp_path / "in/unmounted.txt").write_text("a4.dcm")
    plan = plan_of(tmp_path / "in", tmp_path / "out", source=BadSource(tmp_path / "in"))
    with pytest.raises(SourceUnavailable, match="unmounted"):
        Driver(ray, plan).run()
    assert outcomes_in(tmp_path / "out") == dict.fromkeys(names[:5], "done")
    (tmp_path / "in/unmounted.txt").unlink()
    Driver(ray, plan).run()
    assert outcomes_in(tmp_path / "out") == dict.fromkeys(names, "done")


def test_files_of_an_instance_are_written(ray: Any, tmp_path: Path) -> None:
    write_views(tmp_path / "in", ["a.dcm"])
    driver = Driver(ray, plan_of(tmp_path / "in", tmp_path / "out", write=frozenset({"npz"})))
    driver.run()
    (row,) = rows(tmp_path / "out", "views")
    path = tmp_path / f"out/objects/{driver.partition}/{row['instance'][:2]}/{row['instance']}.npz"
    with np.load(path) as arrays:
        assert arrays["y_global"].tolist() == [row["y_global_benign"], row["y_global_malignant"]]


def test_files_that_are_missing_are_written_by_a_later_run(ray: Any, tmp_path: Path) -> None:
    """Those that an earlier run did not write, and those that were lost; nothing else is computed again."""
    write_views(tmp_path / "in", ["a.dcm", "b.dcm", "copy.dcm"])
    (tmp_path / "in/copy.dcm").write_bytes((tmp_path / "in/b.dcm").read_bytes())
    (tmp_path / "in/cut.dcm").write_bytes((tmp_path / "in/a.dcm").read_bytes()[:-500])
    plain = plan_of(tmp_path / "in", tmp_path / "out")
    assert Driver(ray, plain).run() == {"done": 2, "duplicate": 1, "failed": 1}
    outcomes = outcomes_in(tmp_path / "out")
    plan = replace(plain, write=frozenset({"npz"}))
    assert survey(plan) == {"new": 2, "kept": 2} and survey(plain) == {"kept": 4}
    assert Driver(ray, plan).run() == {"done": 2, "kept": 2}
    first, second = sorted((tmp_path / "out/objects").rglob("*.npz"))
    assert Driver(ray, plan).run() == {"kept": 4} == survey(plan)
    before = second.stat().st_mtime_ns
    first.unlink()
    assert Driver(ray, plan).run() == {"done": 1, "kept": 3}
    assert first.exists() and second.stat().st_mtime_ns == before
    assert outcomes_in(tmp_path / "out") == outcomes
    assert not (tmp_path / "out/device.uid").exists()


def test_an_image_whose_files_are_written_later_keeps_its_entry(ray: Any, tmp_path: Path) -> None:
    """Also if a copy of it is read first."""
    write_views(tmp_path / "in", ["a.dcm"])
    (tmp_path / "in/copy.dcm").write_bytes((tmp_path / "in/a.dcm").read_bytes())
    plan = plan_of(tmp_path / "in", tmp_path / "out", source=ListedSource(tmp_path / "in"), readers=1)
    assert Driver(ray, plan).run() == {"done": 1, "duplicate": 1}
    backwards = ListedSource(tmp_path / "in", backwards=True)
    made = {"source": backwards, "readers": 1, "write": frozenset({"npz"})}
    assert Driver(ray, plan_of(tmp_path / "in", tmp_path / "out", **made)).run() == {"duplicate": 1, "kept": 1}
    assert outcomes_in(tmp_path / "out") == {"a.dcm": "done", "copy.dcm": "duplicate"}
    assert len(list((tmp_path / "out/objects").rglob("*.npz"))) == 1


def test_a_result_stays_where_its_files_cannot_be_made(ray: Any, tmp_path: Path) -> None:
    """A failure, or a file that went away, takes the place of no result; a later run tries again."""
    write_views(tmp_path / "in", ["a.dcm", "fails.dcm", "gone.dcm"])
    (tmp_path / "in/here.txt").touch()
    made = {"source": BadSource(tmp_path / "in"), "opener": BadOpener(tmp_path / "in")}
    plain = plan_of(tmp_path / "in", tmp_path / "out", **made)
    assert Driver(ray, plain).run() == {"done": 3}
    before = {row["instance"]: row["y_global_benign"] for row in rows(tmp_path / "out", "views")}
    (tmp_path / "in/broken.txt").touch()
    (tmp_path / "in/here.txt").unlink()
    plan = replace(plain, write=frozenset({"npz"}))
    assert Driver(ray, plan).run() == {"done": 1, "failed": 1, "unreadable": 1}
    assert set(outcomes_in(tmp_path / "out").values()) == {"done"}
    assert {row["instance"]: row["y_global_benign"] for row in rows(tmp_path / "out", "views")} == before
    (tmp_path / "in/broken.txt").unlink()
    (tmp_path / "in/here.txt").touch()
    assert Driver(ray, plan).run() == {"kept": 1, "done": 2}


def test_ten_interruptions_at_random(ray: Any, tmp_path: Path) -> None:
    """Each after a random number of entries, as Ctrl-C does it; rows are written after each entry or at the end."""
    expected = write_mixture(tmp_path / "in")
    random, stopped = np.random.default_rng(0), 0
    for _ in range(10):
        plan = plan_of(tmp_path / "in", tmp_path / "out", flush_rows=int(random.integers(1, 5)))
        allowed = int(random.integers(0, 3))

        def stop(driver: Driver, allowed: int = allowed) -> None:
            if driver.counts.total() - driver.counts["kept"] > allowed:
                os.kill(os.getpid(), signal.SIGINT)

        try:
            Driver(ray, plan, progress=stop).run()
        except KeyboardInterrupt:
            stopped += 1
    assert stopped >= 5  # afterwards there may be nothing left to interrupt
    Driver(ray, plan_of(tmp_path / "in", tmp_path / "out")).run()
    assert Counter(outcomes_in(tmp_path / "out").values()) == Counter(expected.values())


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_images_of_one_name_have_two_results(ray: Any, tmp_path: Path) -> None:
    pixels = small_view().pixels
    path = tmp_path / "twice.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for image in (pixels, pixels // 2):
            archive.writestr("0_L-CC.png", cv2.imencode(".png", image)[1].tobytes())
    assert Driver(ray, plan_of(path, tmp_path / "out")).run() == {"done": 2}
    locations = {f"{path}!0_L-CC.png", f"{path}!0_L-CC.png!2"}
    for table in ("files", "views"):
        assert {row["location"] for row in rows(tmp_path / "out", table)} == locations
