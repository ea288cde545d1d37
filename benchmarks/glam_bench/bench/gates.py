"""What a bundle says of the engines that ran: their gates, and its precision search."""

from collections.abc import Iterable, Sequence

from glam_bench.bench.rungs import RungPlan
from glam_bench.bench.schema import Gate, Mixture, Rung, faults
from glam_deploy.bundle import Bundle
from glam_deploy.runtime.admission import REFERENCES, newest_gate

FRONTIER = "frontier"
"""Key of the manifest."""


def with_gates(ladder: Iterable[Rung], plans: Iterable[RungPlan], bundle: Bundle) -> list[Rung]:
    """The rungs, each with what the bundle says of it."""
    return [{**rung, "gate": _gate(rung, plan, bundle)} for rung, plan in zip(ladder, plans, strict=True)]


def frontier(bundle: Bundle) -> list[Mixture] | None:
    """None where there was no search, or by a release that wrote it down otherwise."""
    found: Sequence[Mixture] = bundle.manifest.get(FRONTIER) or []
    return list(found) if found and not any(faults(found, list[Mixture])) else None


def _gate(rung: Rung, plan: RungPlan, bundle: Bundle) -> Gate | None:
    if plan.opener != "engine" or rung["engine"] is None:
        return None
    if found := newest_gate(bundle, rung["engine"]):
        verdict = "passed" if found["passed"] else "failed"
        return Gate(verdict=verdict, id=str(found["id"]), failures=[str(failure) for failure in found["failures"]])
    engine = rung["engine"]
    is_reference = engine.get("name") in REFERENCES and engine.get("precision") == "fp32"
    return Gate(verdict="reference" if is_reference else "none", id=None, failures=[])
