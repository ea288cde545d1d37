"""The judgement of a soak: each check is a function from what was seen to the faults that it found."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pydicom.uid import MammographyCADSRStorage, SegmentationStorage
from soak.exams import Kind
from soak.samples import MIB, ProcessSample, Sample
from soak.target import Arrived, by_class

LEAST_CALM_S = 180.0
"""A shorter time without kills shows how processes warm up, not whether they grow."""
GROWTH = 1.05
"""PSS of a process in the last third of the time without kills, as a multiple of that in the second third."""
MORE_DESCRIPTORS = 3
"""Median of the last third above that of the second: an association or a page more at the time."""
DATABASE_GROWTH = 1.1
"""Largest size in the last third, as a multiple of the largest before, for as many rows: pages of deleted rows are used
again, and the file is as large as the most rows that it held."""
KEPT = ("component", "steady", "sender", "refusal", "fetch", "sqlite_sequence")
"""Tables whose rows do not belong to a study."""
LEFT_BY_A_KILL = 20
"""Most files of a killed process, which the keeper removes when they have not changed for an hour: those of a view that
was received, or of the results of an exam.
"""
MOST_WAL = 64 * MIB
"""SQLite writes the log back after 4 MB, but not while a reader needs it."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """A process in the time without kills; PSS in bytes."""

    second_third: float
    last_third: float
    """Medians."""
    most_before: float
    """The most in the second third: a worker takes and returns the memory of its views."""
    descriptors: tuple[float, float]
    """Medians of the two thirds."""
    threads: tuple[float, float]
    lives: int
    """1, unless it was started again although nothing killed it."""


def lost(acknowledged: Mapping[str, tuple[str, Kind]], arrived: Sequence[Arrived]) -> list[str]:
    """Acknowledged images without a segmentation and, unless they are sound, without a report that names them."""
    segmented = {(each.study, image) for each in by_class(arrived, SegmentationStorage) for image in each.images}
    reported = {(each.study, image) for each in by_class(arrived, MammographyCADSRStorage) for image in each.images}
    return [
        f"{kind.value} {sop_uid}"
        for sop_uid, (study, kind) in acknowledged.items()
        if (study, sop_uid) not in (segmented & reported if kind is Kind.SOUND else reported)
    ]


def twice(arrived: Sequence[Arrived]) -> list[str]:
    """Images with several segmentations, and sets of images of one study with several reports."""
    sources = Counter((each.sop_class, each.study, each.images) for each in arrived)
    return [f"{count} objects of {sorted(images)}" for (_, _, images), count in sources.items() if count > 1]


def invented(acknowledged: Mapping[str, tuple[str, Kind]], arrived: Sequence[Arrived]) -> list[str]:
    """Segmentations of images that have no usable pixels."""
    return [
        f"{kind.value} {image}"
        for each in by_class(arrived, SegmentationStorage)
        for image in each.images
        if (kind := acknowledged.get(image, ("", Kind.SOUND))[1]) is not Kind.SOUND
    ]


def growth(calm: Sequence[Sample]) -> dict[str, Growth | None]:
    """Of each process, from the second third of the samples to the last; the first third is for warming up.

    `calm`: under load, without kills. None for a process that was not there for a whole third.
    """
    third = len(calm) // 3
    second, last = calm[third : 2 * third], calm[2 * third :]
    names = {name for sample in (*second, *last) for name in sample.processes}
    return {name: _growth(_of(name, second), _of(name, last)) for name in sorted(names)}


def _of(name: str, samples: Sequence[Sample]) -> list[ProcessSample]:
    return [sample.processes[name] for sample in samples if name in sample.processes]


def _growth(second: Sequence[ProcessSample], last: Sequence[ProcessSample]) -> Growth | None:
    if not second or not last:
        return None
    return Growth(
        second_third=median(each.pss for each in second),
        last_third=median(each.pss for each in last),
        most_before=max(each.pss for each in second),
        descriptors=(median(each.descriptors for each in second), median(each.descriptors for each in last)),
        threads=(median(each.threads for each in second), median(each.threads for each in last)),
        lives=len({each.pid for each in (*second, *last)}),
    )


def grown(found: Mapping[str, Growth | None]) -> Iterator[str]:
    """Processes whose memory, descriptors or threads are not flat, or that did not live on."""
    if not found:
        yield "no samples without kills"
    for name, each in found.items():
        if each is None:
            yield f"{name}: was not there"
            continue
        if each.last_third > max(GROWTH * each.second_third, each.most_before):
            yield f"{name}: PSS grows from {each.second_third / MIB:.1f} to {each.last_third / MIB:.1f} MiB"
        for what, (before, after) in {"descriptors": each.descriptors, "threads": each.threads}.items():
            if after > before + MORE_DESCRIPTORS:
                yield f"{name}: {what} grow from {before:g} to {after:g}"
        if each.lives > 1:
            yield f"{name}: ended and was started again"


def too_large(samples: Sequence[Sample], *, quota: int) -> Iterator[str]:
    """A disk beyond its quota; a database that grows, or a write-ahead log that is not written back."""
    most = max(sample.used for sample in samples)
    if most > quota:
        yield f"disk: {most / MIB:.0f} MiB of {quota / MIB:.0f} MiB"
    parts = len(samples) // 3
    begin, end = samples[: 2 * parts], samples[2 * parts :]
    before, last = (max(each.database for each in part) for part in (begin, end))
    held, holds = (max(sum(each.rows.values()) for each in part) for part in (begin, end))
    if last > DATABASE_GROWTH * before * max(1, holds / max(held, 1)):
        yield f"state.db grows from {before / MIB:.1f} to {last / MIB:.1f} MiB"
    if (wal := max(sample.wal for sample in samples)) > MOST_WAL:
        yield f"state.db-wal has {wal / MIB:.0f} MiB"


def left(end: Sample, *, kills: int) -> Iterator[str]:
    """What retention should have removed when everything was delivered."""
    rows = {table: count for table, count in end.rows.items() if count and table not in KEPT}
    if end.files > LEFT_BY_A_KILL * kills:
        yield f"{end.files} files, {end.bytes / MIB:.1f} MiB, after {kills} kills"
    if rows:
        yield "rows: " + ", ".join(f"{table} {count}" for table, count in rows.items())


def failed_pages(answers: Mapping[str, int]) -> list[str]:
    """Answers of a server that is at fault; 503 of /health/ready, and a study that has gone meanwhile, are none."""
    return [f"{name}: {count} times" for name, count in answers.items() if name.rpartition(" ")[2] in ("500", "401")]
