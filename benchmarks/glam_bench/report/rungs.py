"""What a rung of the ladder says of itself, for plots and tables alike."""

from collections.abc import Iterable
from typing import NamedTuple

from glam_bench.ladder.rungs import PUBLISHED
from glam_bench.report.words import known
from glam_bench.schema import Latency, Results, Rung
from glam_deploy.agreement.limits import Limits
from glam_deploy.networks import GLAM

OPERATING_POINT = "0.5"
"""The threshold that the Dice beside a speed is told at."""


LEAST_DICE = Limits().dice_worst
"""What the gate asks of the worst image, if its limits are not changed."""


class Timed(NamedTuple):
    """A rung that ran."""

    rung: Rung
    latency: Latency


def timed(results: Results) -> list[Timed]:
    """The rungs that ran, in the ladder's order."""
    return [Timed(rung, latency) for rung in results["ladder"] if (latency := rung["latency_ms"])]


def baseline_name(results: Results) -> str:
    """Of the rung that speeds are compared with."""
    return next((rung["name"] for rung in results["ladder"] if rung["key"] == PUBLISHED), PUBLISHED)


def speed(rung: Rung) -> float | None:
    """Times as fast as the published way; None where that did not run."""
    return (rung["ratio_to"] or {}).get(PUBLISHED)


def worst_dice(rung: Rung) -> float | None:
    """Of any class and image at the operating point; None where no image has anything there."""
    return _lowest(rung["parity"]["worst_dice"].values()) if rung["parity"] else None


def is_low(dice: float | None) -> bool:
    """Whether the gate would refuse an engine with that worst Dice."""
    return dice is not None and dice < LEAST_DICE


def median_dice(rung: Rung) -> float | None:
    """The median over the images, of the worse class, at the operating point."""
    return _lowest(rung["parity"]["dice"].values()) if rung["parity"] else None


def ordered_classes(names: Iterable[str]) -> list[str]:
    """Those of the network first, in its order."""
    found = list(names)
    return [name for name in GLAM.classes if name in found] + sorted(set(found) - set(GLAM.classes))


def _lowest(by_class: Iterable[dict[str, float | None]]) -> float | None:
    return min(known(by_threshold.get(OPERATING_POINT) for by_threshold in by_class), default=None)
