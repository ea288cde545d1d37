"""What a bundle says of the engines that ran: their gates, and its precision search."""

from collections.abc import Iterable

from glam_bench.bench.rungs import RungPlan
from glam_bench.bench.schema import Gate, Mixture, Rung
from glam_deploy.bundle import Bundle
from glam_deploy.engines.admission import is_reference, newest_gate
from glam_deploy.engines.base import EngineIdentity
from glam_deploy.json_records import from_json, to_json


def with_gates(ladder: Iterable[Rung], plans: Iterable[RungPlan], bundle: Bundle) -> list[Rung]:
    """The rungs, each with what the bundle says of it."""
    return [{**rung, "gate": _gate(rung, plan, bundle)} for rung, plan in zip(ladder, plans, strict=True)]


def frontier(bundle: Bundle) -> list[Mixture] | None:
    """None where there was no search, or by a release that wrote it down otherwise."""
    found: list[Mixture] = to_json(bundle.manifest.frontier)
    return found or None


def _gate(rung: Rung, plan: RungPlan, bundle: Bundle) -> Gate | None:
    if plan.opener != "engine" or rung["engine"] is None:
        return None
    identity = from_json(EngineIdentity, rung["engine"])
    if found := newest_gate(bundle, identity):
        return Gate(verdict="passed" if found.passed else "failed", id=found.id, failures=list(found.failures))
    return Gate(verdict="reference" if is_reference(identity) else "none", id=None, failures=[])
