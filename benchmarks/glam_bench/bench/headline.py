"""Which rung a bench names first: the fastest that `run` would take."""

from collections.abc import Iterable

from glam_bench.bench.schema import Rung

ADMITTED = ("passed", "reference")
"""Verdicts of engines that may give results."""


def fastest(ladder: Iterable[Rung]) -> Rung | None:
    """Of the engines that passed their gate or need none; None where no such engine ran."""
    return min((rung for rung in ladder if p50(rung) is not None and is_admitted(rung)), key=_speed, default=None)


def faster_without_gate(ladder: Iterable[Rung], than: Rung | None) -> list[Rung]:
    """Engines that are faster, but failed their gate or have none; the fastest first."""
    limit = _speed(than) if than else float("inf")
    refused = (rung for rung in ladder if rung.get("gate") and not is_admitted(rung) and p50(rung) is not None)
    return sorted((rung for rung in refused if _speed(rung) < limit), key=_speed)


def is_admitted(rung: Rung) -> bool:
    return (gate := rung.get("gate")) is not None and gate["verdict"] in ADMITTED


def p50(rung: Rung) -> float | None:
    """Milliseconds; None where it did not run."""
    return rung["latency_ms"]["p50"] if rung["latency_ms"] else None


def why_not(rung: Rung) -> str:
    """Of an engine that `run` refuses."""
    gate = rung.get("gate")
    return "its gate failed" if gate and gate["verdict"] == "failed" else "it has no gate"


def _speed(rung: Rung) -> float:
    return found if (found := p50(rung)) is not None else float("inf")
