"""The record of a phase, and the table of it that is printed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pydicom.uid import MammographyCADSRStorage, SegmentationStorage
from soak import judge
from soak.phase import Seen
from soak.plan import QUOTA
from soak.samples import MIB, Sample
from soak.target import by_class

MOST_SAMPLES = 40
"""That are kept in the record."""


def faults(seen: Seen) -> dict[str, list[str]]:
    """Every check, and what it found."""
    acknowledged = seen.ledger.acknowledged
    return {
        "lost": judge.lost(acknowledged, seen.arrived),
        "twice": judge.twice(seen.arrived),
        "invented": judge.invented(acknowledged, seen.arrived),
        "given up": [f"{seen.dead} jobs and deliveries"] if seen.dead else [],
        "answers": seen.ledger.wrong,
        "pages": judge.failed_pages(seen.visitors.answers),
        "processes": list(judge.grown(judge.growth(seen.calm))) if _is_long(seen.calm) else [],
        "disk": list(judge.too_large(seen.loaded, quota=QUOTA)),
        "after retention": list(judge.left(seen.end, kills=seen.trouble.kills.total())),
    }


def _is_long(samples: Sequence[Sample]) -> bool:
    return bool(samples) and samples[-1].at_s - samples[0].at_s >= judge.LEAST_CALM_S


def record(seen: Seen) -> dict[str, Any]:
    """JSON-ready; sizes in bytes."""
    acknowledged, step = seen.ledger.acknowledged, max(1, len(seen.samples) // MOST_SAMPLES)
    arrived = {
        name: sum(1 for _ in by_class(seen.arrived, sop_class))
        for name, sop_class in {"segmentations": SegmentationStorage, "reports": MammographyCADSRStorage}.items()
    }
    return {
        "seconds": round(seen.loaded_s, 1),
        "seconds_until_delivered": round(seen.idle_s - seen.loaded_s, 1),
        "rate_asked": seen.plan.rate,
        "views_per_s": round(len(acknowledged) / seen.loaded_s, 2),
        "acknowledged": len(acknowledged),
        "studies": len({study for study, _ in acknowledged.values()}),
        "arrived": arrived,
        "answers": dict(sorted(seen.ledger.statuses.items())),
        "kills": dict(sorted(seen.trouble.kills.items())),
        "outages": seen.trouble.outages,
        "clock_jumps": seen.trouble.jumps,
        "pages": dict(sorted(seen.visitors.answers.items())),
        "most": _most(seen.loaded),
        "growth_judged": _is_long(seen.calm),
        "growth": {name: asdict(found) for name, found in judge.growth(seen.calm).items() if found},
        "faults": faults(seen),
        "samples": [asdict(sample) for sample in (*seen.samples[::step], seen.end)],
    }


def _most(samples: Sequence[Sample]) -> dict[str, int]:
    names = ("used", "files", "bytes", "database", "wal", "log", "audit")
    return {name: max(getattr(sample, name) for sample in samples) for name in names}


def table(name: str, found: Mapping[str, Any]) -> str:
    """A phase in some lines."""
    most, kills = found["most"], found["kills"]
    work = f"{found['acknowledged']} views of {found['studies']} studies in {found['seconds']:.0f} s"
    rate = f"{found['views_per_s']:g} views/s, delivered {found['seconds_until_delivered']:.0f} s later"
    trouble = f"kills {sum(kills.values())}, outages {found['outages']}, jumps of the clock {found['clock_jumps']}"
    disk = f"disk {most['used'] / MIB:.0f} of {QUOTA / MIB:.0f} MiB, {most['files']} files"
    database = f"state.db {most['database'] / MIB:.1f} MiB, its log {most['wal'] / MIB:.1f} MiB"
    lines = [
        f"{name}: {work} ({rate})",
        f"  {trouble}, pages {sum(found['pages'].values())}",
        f"  at most: {disk}, {database}",
        f"  {'process':<12}{'PSS, second and last third':>28}{'descriptors':>14}{'threads':>12}",
        *(_line(process, each) for process, each in found["growth"].items()),
    ]
    if not found["growth_judged"]:
        lines.append(f"  growth was not judged: less than {judge.LEAST_CALM_S:.0f} s without kills")
    said = [f"  {check}: {fault}" for check, each in found["faults"].items() for fault in each]
    return "\n".join([*lines, *(said or ["  no fault"])])


def _line(process: str, found: Mapping[str, Any]) -> str:
    memory = f"{found['second_third'] / MIB:.1f} {found['last_third'] / MIB:.1f} MiB"
    pairs = ["{:g} {:g}".format(*found[key]) for key in ("descriptors", "threads")]
    return f"  {process:<12}{memory:>28}{pairs[0]:>14}{pairs[1]:>12}"
