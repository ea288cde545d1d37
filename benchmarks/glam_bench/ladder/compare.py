"""Comparison of two files bench.json: which rungs became faster or slower by more than the noise of both."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from glam_bench import schema
from glam_bench.ladder.verdicts import is_measurement
from glam_bench.ladder.windows import COUNTED
from glam_bench.schema import Results, Rung
from glam_bench.tables import in_ms, show_table
from glam_deploy.cli import console

SAME, FASTER, SLOWER = "same", "faster", "slower"
NO_VERDICT = "-"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One rung that ran in both."""

    key: str
    name: str
    before_ms: float
    after_ms: float
    noise: float
    """Of the ratio, as a share: both runs' noises together."""

    @property
    def ratio(self) -> float:
        """After over before: below 1 it became faster."""
        return self.after_ms / self.before_ms

    @property
    def verdict(self) -> str:
        """SAME where the ratio is within the noise."""
        if self.ratio > 1 + self.noise:
            return SLOWER
        return FASTER if self.ratio * (1 + self.noise) < 1 else SAME


def compare(before: Path, after: Path) -> None:
    """Print the comparison; warnings go to standard error. Runs that are not a measurement get no verdict.

    Raises UsageError where a file is not a bench.json of this release.
    """
    a, b = schema.read(before), schema.read(after)
    warnings = [*not_measured({before: a, after: b}), *other_images(a, b)]
    for warning in warnings:
        console.err.print(f"warning: {warning}", soft_wrap=True)
    measured = all(is_measurement(results["ladder"]) for results in (a, b))
    for difference in differences(a, b):
        console.out.print(f"! {difference}")
    columns = ("", "before ms", "after ms", "ratio", "noise", "")
    show_table(None, columns, [_cells(row, measured=measured) for row in rows(a, b)])
    for text in only_in_one(a, b):
        console.out.print(text)


def _cells(row: Row, *, measured: bool) -> tuple[str, ...]:
    noise, verdict = (f"{100 * row.noise:.0f} %", row.verdict) if measured else (NO_VERDICT, NO_VERDICT)
    return row.name, in_ms(row.before_ms), in_ms(row.after_ms), f"{row.ratio:.3f}", noise, verdict


def not_measured(results: Mapping[Path, Results]) -> Iterator[str]:
    """A sentence for each file whose run is not a measurement."""
    for path, found in results.items():
        if not is_measurement(found["ladder"]):
            yield (
                f"{path} is not a measurement: fewer than {COUNTED} windows were run (--quick), so no rung is called "
                "faster or slower. Run the bench again without --quick."
            )


def other_images(before: Results, after: Results) -> Iterator[str]:
    """A sentence if the two runs used other images, by their names in the settings and the kind of exam."""
    used = [(found["settings"].get("images"), found["settings"].get("exam")) for found in (before, after)]
    if used[0] != used[1]:
        first, second = (
            f"{', '.join(map(str, images or []))} ({exam or 'exam not recorded'})" for images, exam in used
        )
        yield f"the two runs used different images: {first}; and {second}. Run both with the same --images."


def rows(before: Results, after: Results) -> Iterator[Row]:
    """Every rung that ran in both, in the order of the second."""
    old = _by_key(before)
    for key, rung in _by_key(after).items():
        if key in old and (a := old[key]["latency_ms"]) and (b := rung["latency_ms"]):
            noise = a["noise"] + b["noise"]
            yield Row(key=key, name=rung["name"], before_ms=a["p50"], after_ms=b["p50"], noise=noise)


def differences(before: Results, after: Results) -> Iterator[str]:
    """Sentences that say why the two may not be comparable."""
    for what, a, b in (
        ("machines", before["machine"].get("processor"), after["machine"].get("processor")),
        ("cores", before["machine"].get("cores"), after["machine"].get("cores")),
        ("weights", before["bundle"].get("checkpoint"), after["bundle"].get("checkpoint")),
        ("patches", before["settings"].get("patches"), after["settings"].get("patches")),
        ("threads", before["settings"].get("threads"), after["settings"].get("threads")),
        ("environments", before["settings"].get("environment"), after["settings"].get("environment")),
    ):
        if a != b:
            yield f"The {what} differ: {a} and {b}."
    for name, results in (("first", before), ("second", after)):
        unstable = [r["name"] for r in results["ladder"] if r["latency_ms"] and not r["latency_ms"]["stable"]]
        if unstable:
            yield f"Unstable in the {name}: {', '.join(unstable)}."


def only_in_one(before: Results, after: Results) -> Iterator[str]:
    """Sentences about rungs that ran in one of the two alone."""
    a, b = _by_key(before), _by_key(after)
    for key, rung in {**a, **b}.items():
        ran = [key in side and side[key]["latency_ms"] is not None for side in (a, b)]
        if ran[0] != ran[1]:
            yield f"{rung['name']}: ran in the {'first' if ran[0] else 'second'} alone."


def _by_key(results: Results) -> dict[str, Rung]:
    return {rung["key"]: rung for rung in results["ladder"]}
