"""The profile `first_light`: import, preprocessing, what `run` adds to its graphs, time and memory of a whole process.

    python -m glam_bench.first_light --bundle demo/bundle

Each figure is a ratio or a time with the machine, the versions and the number of runs beside it, printed and written to
first_light.json in the current folder, or into the file of --out.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from glam_bench import machine, runner
from glam_bench.record import Record, write_json
from glam_bench.runner import Measurement, Options, Profile
from glam_deploy.bundle import open_bundle
from glam_deploy.cli import console
from glam_deploy.cli import main as command_line

RESULTS = Path("first_light.json")
PARTS = ("import_ms", "prepare_12_megapixel_ms", "run", "whole_process")
"""Arguments of the measurement `single_view`, and keys of the results."""


def plan(options: Options, record: Record) -> Iterator[Measurement]:
    """The parts in order."""
    return (Measurement(module="single_view", argument=part, limit_s=1800, required=True) for part in PARTS)


PROFILE = Profile(module="glam_bench.first_light", options=Options, plan=plan)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        prog="python -m glam_bench.first_light",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", type=Path, default=Path("demo/bundle"), help="folder of the bundle [demo/bundle]")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of the results [first_light.json]")
    given = parser.parse_args(arguments)
    open_bundle(given.bundle)  # before anything is measured
    with tempfile.TemporaryDirectory() as folder, console.working("first_light") as status:
        options = Options(bundle=given.bundle.resolve(), work=Path(folder))
        record = Record.create(options.work / "record.json", options=options.as_json())
        measured = runner.run(PROFILE, options, record, tell=lambda step: status.update(console.line(step)))
        figures = {measurement.argument: record.results(measurement.name) for measurement in measured}
    results = {"machine": machine.facts(), "figures": figures}
    write_json(given.out, results)
    sys.stdout.write(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    command_line.run(main)
