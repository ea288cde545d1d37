"""The tables of `gpu_check`: kernels, engines, ratios, bars."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from glam_bench.gpu.bars import SHAPE, Bar, floor_ms, ratios
from glam_bench.gpu.plan import FLAVOURS, engines
from glam_bench.record import Record
from glam_bench.tables import show_table
from glam_deploy.cli import console

_show = partial(show_table, log_width=120)
Rows = Iterator[Sequence[str]]


def show_step(name: str, record: Record) -> None:
    """Print a line on standard error when a measurement has ended, and the reason where it failed."""
    step = record.steps[name]
    seconds = "" if step["seconds"] is None else f"{step['seconds']:.1f} s"
    console.err.print(f"{seconds:>8}  {step['status']:<7}  {name}", soft_wrap=True)
    if step["error"]:
        console.err.print(f"          {record.reason(name)}", soft_wrap=True)


def show(record: Record, bars: Sequence[Bar]) -> None:
    """Print tables of what was measured; a table without rows is left out."""
    facts = record.results("facts")
    commit = facts.get("commit") or "commit not known"
    console.out.print(f"{facts['gpu']['name']}, driver {facts['gpu']['driver']}, {commit}", soft_wrap=True)
    _show("Library, other than expected", ("flavour", ""), _library(record))
    _show(f"Kernels, {SHAPE}", ("step", "us in L2", "us not in L2", "of a copy's rate"), _kernels(record))
    _show("Against the reference", ("engine", "", "same patches", "Dice", "largest difference"), _parity(record))
    columns = ("engine", "", "global", "local", "whole", "glue", "/ floor", "host to host")
    _show("p50 in ms", columns, _times(record))
    _show(f"Times as long as the best half engine, {SHAPE}", ("", "chain", "networks alone"), _ratios(record))
    _show("Bars", ("", "", "limit", "found", ""), ((b.of, b.name, b.limit, b.found, _verdict(b)) for b in bars))
    console.out.print(f"{record.content['seconds']:.0f} s; {record.path}", soft_wrap=True)


def _library(record: Record) -> Rows:
    for flavour in FLAVOURS:
        yield from ((flavour, line) for line in record.results(f"library:{flavour}").get("differs", []))


def _kernels(record: Record) -> Rows:
    for name, row in record.results("kernel_times").get(SHAPE, {}).items():
        share = f"{100 * row['share']['copy']:.0f} %" if "copy" in row.get("share", {}) else ""
        yield name, f"{row['us']['warm']:.1f}", f"{row['us']['cold']:.1f}", share


def _parity(record: Record) -> Rows:
    for engine in engines(record):
        depths = {k: row for k, row in record.results(f"parity:{engine}").items() if k.startswith("k=")}
        for key, row in depths.items():
            dice = " / ".join("-" if value is None else f"{value:.4f}" for value in row["worst_dice"].values())
            output, largest = max(row["largest_difference"].items(), key=lambda item: float(item[1]))
            same = f"{row['same_patches']} of {len(row['cases'])}"
            yield engine, key, same, dice, f"{output} {float(largest):.1e}"


def _times(record: Record) -> Rows:
    for engine in engines(record):
        for key, row in record.results(f"chain_times:{engine}").items():
            if key.startswith("n=") and "host_to_host" in row:
                yield engine, key, *_of_shape(record, engine.partition("@")[0], key, row)


def _of_shape(record: Record, precision: str, key: str, row: Mapping[str, Any]) -> Iterator[str]:
    n, k = (int(part.partition("=")[2]) for part in key.split(","))
    whole, floor = row["resident"]["gpu"]["p50"], floor_ms(record, precision, n, k)
    yield from (f"{row['stages'][stage]['p50']:.3f}" for stage in ("global", "local"))
    yield f"{whole:.3f}"
    yield f"{100 * row['glue']['share']:.1f} %"
    yield f"{whole / floor:.2f}" if floor else ""
    yield f"{row['host_to_host']['standardized']['p50']:.2f}"


def _ratios(record: Record) -> Rows:
    for name, row in ratios(record).items():
        yield name, f"{row['chain']:.2f}", f"{row['networks']:.2f}" if "networks" in row else ""


def _verdict(bar: Bar) -> str:
    return "ok" if bar.held else "MISSED"
