"""The bars of `gpu_check`: limits, what was measured, and whether each limit was kept."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from glam_bench.gpu.plan import engines
from glam_bench.record import Record

SHAPE = "n=1,k=1"
KERNELS = ("place", "standardize", "propose", "crop", "fuse", "examine", "head")
OVER_FLOOR = 1.5
GLUE_SHARE = 0.1
RESIDENT_MS = 4.0
"""From an image on the GPU to its results there."""
RAW_MS = 8.0
"""From the raw pixels of a 3328 x 2560 view in pageable memory to its result."""
RAW_OVER_RESIDENT = 1.6
RAW_PER_S = 200.0
"""Such views per second with 8 threads, on a machine with 16 cores."""
SELECTION_US = 60.0
RETURNED_EARLY = 0.9
"""Share of calls; the host may be interrupted now and then."""
MEBIBYTE = 1024**2
HOST_GROWTH = 32
"""MiB over a whole soak; the allocators of Python and of the C library keep some freed memory."""
DEVICE_GROWTH = 2
"""MiB over a whole soak; the driver hands out memory in pages of this size."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One limit and what was measured. Times are those of one image with one patch."""

    of: str
    """The kernels, or an engine."""
    name: str
    limit: str
    found: str
    held: bool
    """False also where it could not be measured."""


def judge(record: Record, groups: Sequence[str]) -> list[Bar]:
    """The bars of the groups that were asked for. Those of an engine are about the first half engine that ran."""
    judges = {"kernels": _kernels, "engines": _agreement, "times": _times, "soak": _soak}
    return [bar for group, bars in judges.items() if group in groups for bar in bars(record)]


def half_engine(record: Record, step: str, key: str) -> str:
    """The first half-precision engine whose step has a result of that name; "no half engine" where there is none."""
    halves = (engine for engine in engines(record) if not engine.startswith("fp32"))
    return next((e for e in halves if key in record.results(f"{step}:{e}")), "no half engine")


def floor_ms(record: Record, precision: str, n: int, k: int) -> float | None:
    """Arithmetic of the convolutions at the measured rate of matrix products; None where either is not known."""
    ceilings = record.results("ceilings")
    flop, rate = ceilings.get("flop"), ceilings.get("matrix_flop_per_s", {}).get(precision)
    return n * (flop["global"] + k * flop["local"]) / rate * 1e3 if flop and rate else None


def ratios(record: Record) -> dict[str, dict[str, float]]:
    """How many times as long as the best half engine's whole chain each baseline takes, K = 1: other -> what -> ratio.

    Baselines are PyTorch (whole chain, and its networks alone, which flatters it) and ONNX Runtime.
    """
    best = half_engine(record, "chain_times", SHAPE)
    times = {name: _p50s(row[SHAPE]) for name, row in record.results("baselines").items() if SHAPE in row}
    for engine in engines(record):
        if engine != best and (p50 := _resident_p50(record, engine)):
            times[engine] = {"chain": p50}
    own = _resident_p50(record, best)
    return {name: {what: ms / own for what, ms in row.items()} for name, row in times.items()} if own else {}


def _resident_p50(record: Record, engine: str) -> float | None:
    """Milliseconds from an image on the GPU to its results there, K = 1; None where that was not measured."""
    row = record.results(f"chain_times:{engine}").get(SHAPE, {})
    p50: float | None = row.get("resident", {}).get("gpu", {}).get("p50")
    return p50


def _p50s(row: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {what: spread["p50"] for what, spread in row.items()}


def _kernels(record: Record) -> Iterator[Bar]:
    found = {name: record.results("kernels").get(name) for name in KERNELS}
    missing = [name for name, row in found.items() if row is None]
    rows = [row for row in found.values() if row]
    missed = sum(len(row["missed"]) for row in rows)
    said = f"{missed} of {sum(row['checks'] for row in rows)}" + (f"; not run: {', '.join(missing)}" if missing else "")
    held = not missing and missed == 0
    yield Bar(of="kernels", name="launches that differ from numpy", limit="0", found=said, held=held)
    if rooms := [room for room in record.results("gpu_tests").values() if room]:
        failed = sum(len(room["failed"]) for room in rooms)
        wrong = f"{failed} of {failed + sum(room['passed'] for room in rooms)}"
        yield Bar(of="kernels", name="tests of the GPU that fail", limit="0", found=wrong, held=failed == 0)
    row = record.results("kernel_times").get(SHAPE, {}).get("propose and crop", {})
    yield _at_most("kernels", "propose and crop, nothing in L2, us", row.get("us", {}).get("cold"), SELECTION_US)


def _agreement(record: Record) -> Iterator[Bar]:
    """The verdict of the gate's limits on each K."""
    engine = half_engine(record, "parity", "k=1")
    depths = {key: row for key, row in record.results(f"parity:{engine}").items() if key.startswith("k=")}
    failures = [f"{key}: {failure}" for key, row in depths.items() for failure in row["verdict"]["failures"]]
    found = "; ".join(failures) or f"passed, {', '.join(depths)}" if depths else "not measured"
    passed = bool(depths) and all(row["verdict"]["passed"] for row in depths.values())
    yield Bar(of=engine, name="agreement with the reference", limit="the gate's", found=found, held=passed)


def _times(record: Record) -> Iterator[Bar]:
    engine = half_engine(record, "chain_times", SHAPE)
    row = record.results(f"chain_times:{engine}").get(SHAPE, {})
    floor, p50 = floor_ms(record, engine.partition("@")[0], 1, 1), _resident_p50(record, engine)
    yield _at_most(engine, "p50 over the arithmetic floor", p50 / floor if p50 and floor else None, OVER_FLOOR)
    yield _at_most(engine, "share of all but the two networks", row.get("glue", {}).get("share"), GLUE_SHARE)
    host = row.get("host_to_host", {})
    raw = host.get("raw", {}).get("p50")
    yield _at_most(engine, "from an image on the GPU to its results there, p50, ms", p50, RESIDENT_MS)
    yield _at_most(engine, "from a raw view on the host to its result, p50, ms", raw, RAW_MS)
    yield _at_most(engine, "the same over the chain on the GPU", raw / p50 if raw and p50 else None, RAW_OVER_RESIDENT)
    yield _at_least(engine, "raw views a second, 8 threads", host.get("raw_images_per_s_8_threads"), RAW_PER_S)
    watched = row.get("watched", {})
    for what in ("allocations", "waits", "memory_change_bytes"):
        yield _at_most(engine, f"{what.replace('_', ' ')} in {watched.get('runs', 0)} runs", watched.get(what), 0)
    early = watched["calls_returned_early"] / watched["runs"] if watched else None
    yield _at_least(engine, "share of calls that return before the GPU is done", early, RETURNED_EARLY)


def _soak(record: Record) -> Iterator[Bar]:
    step = next((name for name in record.steps if name.startswith("soak:") and record.results(name)), "soak:no engine")
    row, engine = record.results(step), step.partition(":")[2]
    yield _at_least(engine, "images of the soak", row.get("done"), row.get("asked", 1))
    yield _at_most(engine, "wrong answers", row.get("wrong"), 0)
    for side, limit in (("host", HOST_GROWTH), ("device", DEVICE_GROWTH)):
        grown = row.get(f"{side}_growth_bytes")
        yield _at_most(engine, f"growth of {side} memory, MiB", grown if grown is None else grown / MEBIBYTE, limit)


def _at_most(of: str, name: str, found: float | None, limit: float) -> Bar:
    held = found is not None and found <= limit
    return Bar(of=of, name=name, limit=f"<= {limit:g}", found=_text(found), held=held)


def _at_least(of: str, name: str, found: float | None, limit: float) -> Bar:
    held = found is not None and found >= limit
    return Bar(of=of, name=name, limit=f">= {limit:g}", found=_text(found), held=held)


def _text(found: float | None) -> str:
    return "not measured" if found is None else f"{found:.5g}"
