"""What a reader of the figures must know."""

from collections.abc import Iterator, Sequence

from glam_bench.bench.rungs import PUBLISHED
from glam_bench.bench.schema import Load, Rung
from glam_bench.bench.windows import COUNTED

BUSY = 0.5
"""Load before the bench began from which on the machine was not quiet."""
STOLEN = 0.02
"""Share of processor time lost to other virtual machines from which on figures are doubtful."""


def notices(ladder: Sequence[Rung], load: Load, *, slowed: tuple[int | None, int | None]) -> Iterator[str]:
    """In sentences. `slowed`: `watch.throttled` before and after."""
    before, after = slowed
    if before is not None and after is not None and after > before:
        yield f"Cores were slowed down for their heat {after - before} times."
    if load["before"] > BUSY:
        yield (
            f"The machine was not quiet: load {load['before']:.1f} before the bench began. Ratios in one run are what "
            f"to trust; measure again with nothing else running."
        )
    if load["stolen"] and load["stolen"] > STOLEN:
        yield f"{100 * load['stolen']:.0f} % of processor time went to other virtual machines."
    for rung in ladder:
        if rung["latency_ms"] and not rung["latency_ms"]["stable"] and len(rung["latency_ms"]["windows"]) >= COUNTED:
            yield f"{rung['name']} is unstable: medians of its last three windows differ by more than 10 %."
    if any(rung["latency_ms"] and len(rung["latency_ms"]["windows"]) < COUNTED for rung in ladder):
        yield f"Fewer than {COUNTED} windows were run: the times show that everything works and measure nothing."
    if any(rung["key"] == PUBLISHED and rung["unavailable"] for rung in ladder):
        yield "The published way did not run, so that nothing is compared with it."
