"""Soak the appliance for some minutes beside Orthanc: `make soak MINUTES=n`.

Two phases of half the time each: the real network at the rate that it allows, and a network of a handful of operators
at 20 views a second. Meanwhile processes are killed, the target goes away, the clock jumps, pages are asked for, and
files are deleted all the time. Writes `soak.json`, prints a table, and ends with 1 if a check finds a fault.
"""

import logging
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in (".", "export", "benchmarks", "tests")]  # as pytest has them

from soak import phase, report  # noqa: E402
from soak.plan import Plan  # noqa: E402
from support.tiny_bundle import write_tiny_bundle  # noqa: E402

from glam_bench import machine  # noqa: E402
from glam_bench.record import free_name, write_json  # noqa: E402

PHASES = ("network", "simulated")
FEWEST_OBJECTS = {"sc": False, "sr": False}
"""[results] of the simulated phase, for the matter is the number of views."""


def plan_of(name: str, seconds: float, seed: int, bundle: Path, engine: str, rate: float) -> Plan:
    """`bundle`: with the real network, or with the small one."""
    common: dict[str, Any] = {"name": name, "seconds": seconds, "seed": seed, "bundle": bundle}
    if name == "network":
        return Plan(**common, full=True, rate=None, senders=1, most_waiting=1, settings={"worker": {"engine": engine}})
    settings = {"worker": {"engine": "onnx"}, "results": FEWEST_OBJECTS}
    return Plan(**common, full=False, rate=rate, senders=3, most_waiting=40, settings=settings)


@click.command(help=__doc__)
@click.option("--minutes", type=click.FloatRange(min=0.5), default=10, show_default=True, help="For all phases.")
@click.option("--seed", type=int, default=1, show_default=True, help="Which process is killed when.")
@click.option("--rate", type=float, default=20, show_default=True, help="Views a second of the simulated phase.")
@click.option("--bundle", type=click.Path(path_type=Path, exists=True), default=ROOT / "demo/bundle")
@click.option("--engine", default="auto", show_default=True, help="Of the real network.")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "build/soak", help="Folder of the record.")
@click.argument("names", nargs=-1, type=click.Choice(PHASES))
def main(minutes: float, seed: int, rate: float, bundle: Path, engine: str, out: Path, names: tuple[str, ...]) -> None:
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # a page for each refused connection
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # processes and mounts end with this one
    path, facts = free_name(out, "soak"), machine.facts()
    chosen, found = names or PHASES, {}
    for name in chosen:
        with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="soak-") as folder:
            used = bundle if name == "network" else write_tiny_bundle(Path(folder) / "tiny")
            plan = plan_of(name, 60 * minutes / len(chosen), seed, used, engine, rate)
            found[name] = report.record(phase.run(plan, Path(folder) / "run"))
        click.echo(report.table(name, found[name]))
        write_json(path, {"machine": facts, "phases": found})
    click.echo(path)
    sys.exit(any(fault for each in found.values() for fault in each["faults"].values()))


if __name__ == "__main__":
    main()
