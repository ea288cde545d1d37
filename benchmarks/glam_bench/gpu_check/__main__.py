"""The command line."""

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from glam_bench.gpu_check import bars, steps, table
from glam_bench.gpu_check.context import GROUPS, Options
from glam_bench.gpu_check.record import Record, free_name
from glam_bench.gpu_check.steps import Step
from glam_deploy.bundle import open_bundle
from glam_deploy.cli import console
from glam_deploy.errors import BackendUnavailable, GlamError, ParityError

RESULTS = Path()
FACTS = Step(home="facts", limit_s=60)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 all bars hold, 4 one does not, 3 no GPU, 2 wrong usage, 1 the check itself failed."""
    given = _parse(arguments)
    if given.step:
        name, path, limit = given.step
        return steps.run_here(name, Record.open(Path(path)), float(limit))
    try:
        with tempfile.TemporaryDirectory(prefix="gpu_check.") as work:
            options = _options(given, Path(work))
            open_bundle(options.bundle)
            return check(options, given.out)
    except GlamError as error:
        console.err.print(str(error), soft_wrap=True)
        return error.exit_code


def check(options: Options, out: Path) -> int:
    """Every step, then the table."""
    start = monotonic()
    started = datetime.now(UTC)
    record = Record.create(
        options.work / "record.json", started=started.isoformat(timespec="seconds"), options=options.as_json()
    )
    steps.run_apart(FACTS, options, record, seconds_left=60 * options.minutes)
    facts = record.steps[FACTS.name]
    if facts["status"] != "done":
        console.err.print(f"No GPU to check: {facts['error']}", soft_wrap=True)
        return BackendUnavailable.exit_code if facts["status"] == "refused" else 1
    record.move(free_name(out, f"{_slug(record.results('facts')['gpu']['name'])}-{started:%Y-%m-%d}"))
    for step in steps.plan(options, record):
        _run(step, options, record, start)
    judged = bars.judge(record, options.groups)
    record.finish(seconds=round(monotonic() - start, 1), bars=[asdict(b) for b in judged], ratios=bars.ratios(record))
    table.show(record, judged)
    return 0 if all(bar.held for bar in judged) else ParityError.exit_code


def _run(step: Step, options: Options, record: Record, start: float) -> None:
    with console.working(step.name):
        steps.run_apart(step, options, record, seconds_left=60 * options.minutes - (monotonic() - start))
    table.show_step(step.name, record.steps[step.name])


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _options(given: argparse.Namespace, work: Path) -> Options:
    return Options(
        bundle=given.bundle.resolve(),
        work=work,
        groups=given.only,
        device=given.device,
        images=given.images,
        threads=given.threads,
        minutes=given.minutes,
        quick=given.quick,
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m glam_bench.gpu_check", description=steps.__doc__)
    parser.add_argument("--bundle", type=Path, default=Path("demo/bundle"), help="made elsewhere [demo/bundle]")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results [the current one]")
    parser.add_argument("--only", type=_groups, default=GROUPS, help=f"some of {','.join(GROUPS)} [all]")
    parser.add_argument("--device", type=int, default=0, help="index of the GPU [0]")
    parser.add_argument("--images", type=int, default=10_000, help="of the soak [10000]")
    parser.add_argument("--threads", type=int, default=8, help="of the soak [8]")
    parser.add_argument("--minutes", type=float, default=20.0, help="for everything, at most [20]")
    parser.add_argument("--quick", action="store_true", help="few cases and runs: does everything work?")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _groups(text: str) -> tuple[str, ...]:
    groups = tuple(text.split(","))
    if unknown := set(groups) - set(GROUPS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(GROUPS)}")
    return groups


if __name__ == "__main__":
    sys.exit(main())
