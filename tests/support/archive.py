"""Archives for tests: folders of small mammograms and other files, sources and pipelines that misbehave, the tables."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mammograms import write_mg
from pydicom.dataset import Dataset

from glam_bench.simulated_pipeline import SimulatedPipeline, Simulation
from glam_deploy.archive.actors import EnginePlan
from glam_deploy.archive.plan import RunPlan
from glam_deploy.archive.reader import Condition, EntryReader
from glam_deploy.archive.shipping import ShippedBundle
from glam_deploy.archive.sources import open_source
from glam_deploy.archive.sources.base import Entry, OnPassedOver, Source, SourceUnavailable, ignored
from glam_deploy.errors import BackendRunError, InputError
from glam_deploy.records import Mammogram, View
from glam_deploy.runtime.result import Result
from support.until import until

CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass(frozen=True)
class BadSource:
    """A folder whose files do what their names say when they are read."""

    folder: Path

    @property
    def inner(self) -> Source:
        return open_source([str(self.folder)])

    def entries(self, on_passed_over: OnPassedOver = ignored) -> Iterator[Entry]:
        return self.inner.entries(on_passed_over)

    def read(self, entry: Entry) -> bytes:
        if entry.name.startswith("abort"):
            os.abort()
        if entry.name.startswith("slow"):
            time.sleep(60)
        if entry.name.startswith("gone") and not (self.folder / "here.txt").exists():
            raise InputError("made up for a test")
        if (self.folder / "unmounted.txt").exists() and entry.name > (self.folder / "unmounted.txt").read_text():
            raise SourceUnavailable("the disk is unmounted, made up for a test")
        return self.inner.read(entry)


@dataclass(frozen=True)
class ListedSource:
    """A folder whose entries have no version, in the order of their names or the other way round."""

    folder: Path
    backwards: bool = False

    def entries(self, on_passed_over: OnPassedOver = ignored) -> Iterator[Entry]:
        listed = [replace(entry, version="") for entry in open_source([str(self.folder)]).entries(on_passed_over)]
        return iter(listed[::-1] if self.backwards else listed)

    def read(self, entry: Entry) -> bytes:
        return open_source([str(self.folder)]).read(entry)


@dataclass(frozen=True)
class BadPipeline:
    """A simulated pipeline that does what the names of files and flags in a folder say."""

    folder: Path
    inner: SimulatedPipeline

    @property
    def provenance(self) -> Any:
        return self.inner.provenance

    @property
    def ahead(self) -> int:
        return 1

    @property
    def in_flight(self) -> int:
        return 1

    def prepare(self, image: Mammogram) -> Mammogram:
        return image

    def __call__(self, view: Mammogram) -> Result:
        name, flag = view.source.name, self.folder / "died.txt"
        if name.startswith("lethal") or (name.startswith("once") and not flag.exists()):
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("fails") and (self.folder / "broken.txt").exists():
            raise BackendRunError("made up for a test")
        return self.inner(view)


@dataclass(frozen=True)
class BadOpener:
    """Opener of `BadPipeline`."""

    folder: Path

    def __call__(self, folder: Path, plan: EnginePlan) -> BadPipeline:
        return BadPipeline(self.folder, SimulatedPipeline(wait_s=0))


@dataclass(frozen=True)
class GpuOpener:
    """Opener of a simulated pipeline; leaves the GPU of its process in a folder, and waits for that of each station."""

    folder: Path
    stations: int

    def __call__(self, folder: Path, plan: EnginePlan) -> SimulatedPipeline:
        (self.folder / os.environ["CUDA_VISIBLE_DEVICES"]).touch()
        until(lambda: len(list(self.folder.iterdir())) == self.stations)
        return SimulatedPipeline(wait_s=0)


@dataclass(frozen=True)
class NameCondition:
    """Excludes content with these bytes."""

    text: bytes

    def matches(self, data: bytes) -> bool:
        return self.text not in data

    def __str__(self) -> str:
        return f"without {self.text!r}"


def plan_of(
    folder: Path, dest: Path, *, where: Condition | None = None, patients: bool = False, **changed: Any
) -> RunPlan:
    """A run over a folder with the simulated pipeline."""
    source = changed.pop("source", None) or open_source([str(folder)])
    given: dict[str, Any] = {"opener": Simulation()} | changed
    return RunPlan(
        source=source,
        dest=dest,
        bundle=ShippedBundle(folder=folder, id="0" * 64, digest="0" * 32),
        reader=EntryReader(source=source, where=where, patients=patients),
        **given,
    )


def write_views(folder: Path, names: list[str]) -> None:
    """Distinct mammograms with these names; `breast(L-CC)` with one pixel changed for each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        write_mg(folder / name, partial(_mark, number=number), view=View.L_CC)


def _mark(dataset: Dataset, *, number: int) -> None:
    data = bytearray(dataset.PixelData)
    data[2 * (20 * 70 + 6)] = number % 256
    data[2 * (20 * 70 + 7)] = number // 256 + 1
    dataset.PixelData = bytes(data)


def _make_ct(dataset: Dataset) -> None:
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CT


def write_mixture(folder: Path) -> dict[str, str]:
    """An archive with all that happens; name of each file -> its outcome."""
    write_views(folder, [f"a{n}.dcm" for n in range(12)])
    outcomes = {f"a{n}.dcm": "done" for n in range(12)}
    for n in (3, 7, 11):  # in the order of the names, after the originals
        (folder / f"copy{n}.dcm").write_bytes((folder / f"a{n}.dcm").read_bytes())
        outcomes[f"copy{n}.dcm"] = "duplicate"
    whole = (folder / "a0.dcm").read_bytes()
    (folder / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    (folder / "cut_too.dcm").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.dcm").write_bytes(b"")
    write_mg(
        folder / "other.dcm",
        lambda ds: setattr(ds, "SOPClassUID", CT) or setattr(ds.file_meta, "MediaStorageSOPClassUID", CT),
    )
    (folder / "text.png").write_bytes(b"no picture")
    return outcomes | {
        "cut.dcm": "failed",
        "cut_too.dcm": "duplicate",
        "empty.dcm": "failed",
        "other.dcm": "skipped",
        "text.png": "failed",
    }


def rows(dest: Path, table: str) -> list[dict[str, Any]]:
    """All rows of a table."""
    import pyarrow.dataset as ds

    found: list[dict[str, Any]] = ds.dataset(dest / table, partitioning="hive").to_table().to_pylist()
    return found


def outcomes_in(dest: Path) -> dict[str, str]:
    """Name of each file -> its outcome. Fails if an entry has two rows, or an instance none or two."""
    files, views = rows(dest, "files"), rows(dest, "views")
    assert len({row["entry"] for row in files}) == len(files)
    instances = [row["instance"] for row in views]
    assert sorted(instances) == sorted({row["instance"] for row in files} - {""})
    status = {row["instance"]: row["status"] for row in views}
    for row in files:
        assert row["outcome"] in (status.get(row["instance"], ""), "duplicate", "excluded", "unreadable")
    return {Path(row["location"]).name: row["outcome"] for row in files}
