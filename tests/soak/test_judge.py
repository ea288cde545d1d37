"""What the judgement of a soak sees: results that are missing, double or invented, and what grows."""

import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom.uid import MammographyCADSRStorage, SegmentationStorage
from soak import judge
from soak.exams import Kind
from soak.samples import MIB, ProcessSample, Sample
from soak.target import Arrived
from soak.wall_clock import WallClock

PROCESS = ProcessSample(pid=1, rss=90 * MIB, pss=80 * MIB, descriptors=20, threads=5)
SAMPLE = Sample(
    at_s=0,
    processes={"worker": PROCESS},
    files=5,
    bytes=MIB,
    used=10 * MIB,
    database=MIB,
    wal=4 * MIB,
    log=0,
    audit=0,
    rows={"study": 1, "component": 7},
)


def segmentation(image: str, uid: str = "", study: str = "study") -> Arrived:
    return Arrived(sop_uid=uid or f"seg {image}", sop_class=SegmentationStorage, study=study, images=frozenset([image]))


def report(*images: str, uid: str = "report", study: str = "study") -> Arrived:
    return Arrived(sop_uid=uid, sop_class=MammographyCADSRStorage, study=study, images=frozenset(images))


def taken(**kinds: Kind) -> Mapping[str, tuple[str, Kind]]:
    return {image: ("study", kind) for image, kind in kinds.items()}


def test_nothing_is_lost() -> None:
    arrived = [segmentation("a"), report("a", "b", "c")]
    assert not judge.lost(taken(a=Kind.SOUND, b=Kind.FOR_PROCESSING, c=Kind.UNDECODABLE), arrived)


@pytest.mark.parametrize(
    "arrived",
    [
        [],
        [segmentation("a")],
        [report("a")],
        [segmentation("b"), report("a")],
        [segmentation("a"), report("b")],
        [segmentation("a", study="another"), report("a")],
    ],
)
def test_a_sound_image_needs_a_segmentation_and_a_report_of_its_study(arrived: list[Arrived]) -> None:
    assert judge.lost(taken(a=Kind.SOUND), arrived) == ["sound a"]


def test_an_image_without_pixels_needs_a_report() -> None:
    assert judge.lost(taken(a=Kind.UNDECODABLE), []) == ["undecodable a"]
    assert judge.invented(taken(a=Kind.UNDECODABLE, b=Kind.SOUND), [segmentation("a"), segmentation("b")]) == [
        "undecodable a"
    ]


def test_what_is_twice() -> None:
    later = report("a", "b", uid="later")
    assert not judge.twice([segmentation("a"), segmentation("b"), report("a"), later])
    assert judge.twice([segmentation("a"), segmentation("a", uid="again")]) == ["2 objects of ['a']"]
    assert judge.twice([report("a"), report("a", uid="again")]) == ["2 objects of ['a']"]


def samples(*, last: ProcessSample) -> list[Sample]:
    """Three thirds, the last one with another process."""
    return [*[SAMPLE] * 10, *[replace(SAMPLE, processes={"worker": last})] * 5]


@pytest.mark.parametrize(
    ("last", "fault"),
    [
        (PROCESS, ""),
        (replace(PROCESS, pss=84 * MIB), ""),
        (replace(PROCESS, pss=85 * MIB), "worker: PSS grows from 80.0 to 85.0 MiB"),
        (replace(PROCESS, descriptors=23), ""),
        (replace(PROCESS, descriptors=24), "worker: descriptors grow from 20 to 24"),
        (replace(PROCESS, threads=9), "worker: threads grow from 5 to 9"),
        (replace(PROCESS, pid=2), "worker: ended and was started again"),
    ],
)
def test_what_grows(last: ProcessSample, fault: str) -> None:
    assert list(judge.grown(judge.growth(samples(last=last)))) == ([fault] if fault else [])


def test_memory_that_comes_and_goes_is_no_growth() -> None:
    """The median of the last third is above that of the second by 10 %, but not above what was taken then."""
    sizes = [80, 80, 80, 80, 80, 80, 80, 80, 90, 90, *[88] * 5]
    calm = [replace(SAMPLE, processes={"worker": replace(PROCESS, pss=size * MIB)}) for size in sizes]
    assert not list(judge.grown(judge.growth(calm)))
    higher = [*calm[:10], *[replace(SAMPLE, processes={"worker": replace(PROCESS, pss=91 * MIB)})] * 5]
    assert list(judge.grown(judge.growth(higher))) == ["worker: PSS grows from 80.0 to 91.0 MiB"]


def test_a_process_that_is_away_for_a_whole_third_is_a_fault() -> None:
    assert list(judge.grown(judge.growth([*[SAMPLE] * 10, *[replace(SAMPLE, processes={})] * 5]))) == [
        "worker: was not there"
    ]


def test_no_samples_show_nothing() -> None:
    assert list(judge.grown(judge.growth([]))) == ["no samples without kills"]


def test_disk_and_database() -> None:
    flat = [SAMPLE] * 9
    assert not list(judge.too_large(flat, quota=10 * MIB))
    assert list(judge.too_large(flat, quota=9 * MIB)) == ["disk: 10 MiB of 9 MiB"]
    grown = [*flat, *[replace(SAMPLE, database=2 * MIB)] * 3]
    assert list(judge.too_large(grown, quota=10 * MIB)) == ["state.db grows from 1.0 to 2.0 MiB"]
    fuller = [replace(SAMPLE, rows={"event": 10}), *[replace(SAMPLE, database=2 * MIB, rows={"event": 19})] * 2]
    assert not list(judge.too_large(fuller, quota=10 * MIB)), "for twice the rows"
    assert list(judge.too_large([replace(SAMPLE, wal=65 * MIB)] * 3, quota=10 * MIB)) == ["state.db-wal has 65 MiB"]


def test_what_retention_leaves() -> None:
    clean = replace(SAMPLE, rows={"study": 0, "component": 7}, files=0)
    assert not list(judge.left(clean, kills=0))
    assert list(judge.left(replace(clean, files=1), kills=0)) == ["1 files, 1.0 MiB, after 0 kills"]
    assert not list(judge.left(replace(clean, files=judge.LEFT_BY_A_KILL), kills=1))
    assert list(judge.left(replace(clean, rows={"event": 3}), kills=9)) == ["rows: event 3"]


def test_pages() -> None:
    answers = {"/ 200": 9, "/health/ready 503": 2, "/study 404": 1, "/ ConnectError": 3, "/metrics 500": 1}
    assert judge.failed_pages(answers) == ["/metrics 500: 1 times"]


SHOWN = "import time; input(); print(time.time(), time.monotonic())"


@pytest.mark.parametrize("seconds", [0, 86400, -3600])
def test_the_wall_clock_jumps_and_no_other(seconds: int, tmp_path: Path) -> None:
    """By another process's clocks, whose jump comes after its start."""
    clock = WallClock(tmp_path)
    command = [sys.executable, "-c", SHOWN]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(clock.environment)
    ) as child:
        clock.jump(seconds)
        before = datetime.now(UTC).timestamp(), _uptime()
        wall, monotonic = map(float, child.communicate("\n")[0].split())
        after = datetime.now(UTC).timestamp(), _uptime()
    assert before[0] <= wall - seconds <= after[0]
    assert before[1] - 1 <= monotonic <= after[1] + 1
    assert struct.unpack("=q", (tmp_path / "clock").read_bytes()) == (seconds,)


def _uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])
