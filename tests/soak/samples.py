"""What an appliance takes of a machine, every few seconds: memory, descriptors, threads, disk, database, log."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pacs.appliance import Appliance
from soak.trouble import processes

MIB = 1 << 20
KIB = 1 << 10


@dataclass(frozen=True, kw_only=True)
class ProcessSample:
    """A process at one moment; sizes in bytes."""

    pid: int
    rss: int
    pss: int
    descriptors: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The appliance at one moment; sizes in bytes."""

    at_s: float
    """Since the beginning of the phase."""
    processes: dict[str, ProcessSample]
    files: int
    """In the spool and the results."""
    bytes: int
    """Their size."""
    used: int
    """Of the file system of the data folder: files, database, log, audit log."""
    database: int
    wal: int
    log: int
    audit: int
    rows: dict[str, int]
    """By table."""


@dataclass
class Sampler:
    appliance: Appliance
    start: float
    every_s: float = 3.0
    samples: list[Sample] = field(default_factory=list)

    def watch(self, stop: threading.Event) -> None:
        while not stop.wait(self.every_s):
            self.samples.append(self.sample())

    def sample(self) -> Sample:
        data = self.appliance.data
        files = [size for folder in ("spool", "results", "quarantine") for size in _sizes(data / folder)]
        disk = os.statvfs(data)
        return Sample(
            at_s=round(time.monotonic() - self.start, 1),
            processes={name: found for name, pid in processes(self.appliance).items() if (found := _process(pid))},
            files=len(files),
            bytes=sum(files),
            used=(disk.f_blocks - disk.f_bfree) * disk.f_frsize,
            database=_size(data / "state.db"),
            wal=_size(data / "state.db-wal"),
            log=_size(self.appliance.folder / "log"),
            audit=sum(_sizes(data / "audit")),
            rows=self._rows(),
        )

    def _rows(self) -> dict[str, int]:
        tables = [row["name"] for row in self.appliance.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        counts = ", ".join(f"(SELECT count(*) FROM {table}) AS {table}" for table in tables)
        return dict(self.appliance.rows(f"SELECT {counts}")[0])


def _process(pid: int) -> ProcessSample | None:
    """None where it has ended."""
    try:
        smaps, status = _fields(Path(f"/proc/{pid}/smaps_rollup")), _fields(Path(f"/proc/{pid}/status"))
        return ProcessSample(
            pid=pid,
            rss=int(smaps["Rss"].split()[0]) * KIB,
            pss=int(smaps["Pss"].split()[0]) * KIB,
            descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())),
            threads=int(status["Threads"]),
        )
    except (OSError, KeyError):
        return None


def _fields(path: Path) -> dict[str, str]:
    lines = path.read_text("ascii", "replace").splitlines()
    return {key: value.strip() for key, colon, value in (line.partition(":") for line in lines) if colon}


def _sizes(folder: Path) -> Iterator[int]:
    """Of all files below it; those that vanish meanwhile are left out."""
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                yield (Path(place) / name).stat().st_size


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
