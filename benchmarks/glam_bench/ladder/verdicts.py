"""Verdicts on the rungs of a bench: their gates, the fastest engine that `run` would take, and notices."""

from collections.abc import Iterable, Iterator, Sequence

from glam_bench.ladder.rungs import PUBLISHED, RungPlan
from glam_bench.ladder.windows import COUNTED
from glam_bench.schema import Gate, Load, Mixture, Rung
from glam_deploy.bundle import Bundle
from glam_deploy.engines.admission import is_reference, newest_gate
from glam_deploy.engines.base import EngineIdentity
from glam_deploy.json_records import from_json, to_json

ADMITTED = ("passed", "reference")
"""Verdicts of engines that `run` takes."""
BUSY = 0.5
"""Load before the bench began from which on the machine was not quiet."""
STOLEN = 0.02
"""Share of processor time lost to other virtual machines from which on figures are doubtful."""


def fastest(ladder: Iterable[Rung]) -> Rung | None:
    """The fastest engine that has passed its gate or needs none; None where no such engine ran."""
    return min((rung for rung in ladder if p50(rung) is not None and is_admitted(rung)), key=_speed, default=None)


def faster_without_gate(ladder: Iterable[Rung], than: Rung | None) -> list[Rung]:
    """Engines that are faster, but have failed their gate or have none; the fastest first."""
    limit = _speed(than) if than else float("inf")
    refused = (rung for rung in ladder if rung.get("gate") and not is_admitted(rung) and p50(rung) is not None)
    return sorted((rung for rung in refused if _speed(rung) < limit), key=_speed)


def is_admitted(rung: Rung) -> bool:
    return (gate := rung.get("gate")) is not None and gate["verdict"] in ADMITTED


def p50(rung: Rung) -> float | None:
    """Milliseconds; None where it did not run."""
    return rung["latency_ms"]["p50"] if rung["latency_ms"] else None


def is_measurement(ladder: Iterable[Rung]) -> bool:
    """Whether every rung that ran has the least number of windows. `bench --quick` runs one."""
    return all(len(rung["latency_ms"]["windows"]) >= COUNTED for rung in ladder if rung["latency_ms"])


def why_not(rung: Rung) -> str:
    """Why `run` refuses an engine."""
    gate = rung.get("gate")
    return "its gate failed" if gate and gate["verdict"] == "failed" else "it has no gate"


def _speed(rung: Rung) -> float:
    return found if (found := p50(rung)) is not None else float("inf")


def with_gates(ladder: Iterable[Rung], plans: Iterable[RungPlan], bundle: Bundle) -> list[Rung]:
    """The rungs, each with the newest verdict in the bundle's manifest on its engine."""
    return [{**rung, "gate": _gate(rung, plan, bundle)} for rung, plan in zip(ladder, plans, strict=True)]


def frontier(bundle: Bundle) -> list[Mixture] | None:
    """The precision search of the bundle; None where it has none, or one of an earlier release in another form."""
    found: list[Mixture] = to_json(bundle.manifest.frontier)
    return found or None


def _gate(rung: Rung, plan: RungPlan, bundle: Bundle) -> Gate | None:
    if plan.opener != "engine" or rung["engine"] is None:
        return None
    identity = from_json(EngineIdentity, rung["engine"])
    if found := newest_gate(bundle, identity):
        return Gate(verdict="passed" if found.passed else "failed", id=found.id, failures=list(found.failures))
    return Gate(verdict="reference" if is_reference(identity) else "none", id=None, failures=[])


def notices(ladder: Sequence[Rung], load: Load, *, slowed: tuple[int | None, int | None]) -> Iterator[str]:
    """Sentences. `slowed`: `meters.throttled` before and after the bench."""
    before, after = slowed
    if before is not None and after is not None and after > before:
        yield f"Cores were throttled by their temperature {after - before} times."
    if load["before"] > BUSY:
        yield (
            f"The machine was not quiet: load {load['before']:.1f} before the bench began. Trust ratios within "
            f"this run only, or measure again with nothing else running."
        )
    if load["stolen"] and load["stolen"] > STOLEN:
        yield f"{100 * load['stolen']:.0f} % of processor time went to other virtual machines."
    for rung in ladder:
        if rung["latency_ms"] and not rung["latency_ms"]["stable"] and len(rung["latency_ms"]["windows"]) >= COUNTED:
            yield f"{rung['name']} is unstable: medians of its last three windows differ by more than 10 %."
    if not is_measurement(ladder):
        yield f"Fewer than {COUNTED} windows were run: the times show that everything works, but are not a measurement."
    if any(rung["key"] == PUBLISHED and rung["unavailable"] for rung in ladder):
        yield "The published way did not run, so that nothing is compared with it."
