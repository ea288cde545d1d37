"""The profile `gpu_check`: everything that only a machine with an NVIDIA GPU can show, checked, timed and recorded.

    python -m glam_bench.gpu_check --bundle demo/bundle        (or: make gpu-check)

Builds engines into a copy of the bundle, compares kernels with numpy and engines with PyTorch, times both, and writes
one JSON file. Exit code: 0 all bars hold, 4 one does not, 3 no GPU, 2 wrong usage, 1 the check itself failed.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from glam_bench import runner
from glam_bench.gpu import bars, table
from glam_bench.gpu.plan import GROUPS, GpuOptions, plan
from glam_bench.record import Record, free_name
from glam_bench.runner import Profile
from glam_deploy.bundle import open_bundle
from glam_deploy.cli import console
from glam_deploy.errors import BackendUnavailable, GlamError, ParityError, UsageError

PROFILE = Profile(module="glam_bench.gpu_check", options=GpuOptions, plan=plan)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    given = _parse(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="gpu_check.") as work:
            options = GpuOptions(
                bundle=given.bundle.resolve(),
                work=Path(work),
                groups=given.only,
                device=given.device,
                images=given.images,
                threads=given.threads,
                minutes=given.minutes,
                quick=given.quick,
            )
            _require_glam(options.bundle)
            return check(options, given.out)
    except GlamError as error:
        console.err.print(str(error), soft_wrap=True)
        return error.exit_code


def _require_glam(folder: Path) -> None:
    """Raises UsageError for a bundle of another network, BundleError for a damaged one."""
    network = open_bundle(folder).network
    if network.name != "GLAM":
        raise UsageError(
            f"{folder}: its network is {network.title}, expected GLAM, because the cases, baselines and limits of "
            f"gpu_check are those of GLAM. Give a bundle of GLAM, or check this one with glam-deploy verify, gate and "
            f"bench."
        )


def check(options: GpuOptions, out: Path) -> int:
    """Run the profile, judge its bars and print its tables; returns the exit code. `out`: folder of the record."""
    start, started = monotonic(), datetime.now(UTC)
    record = Record.create(
        options.work / "record.json", started=started.isoformat(timespec="seconds"), options=options.as_json(), bars=[]
    )
    try:
        with console.working("facts") as status:
            tell = lambda step: status.update(console.line(step))  # noqa: E731
            for measurement in runner.run(PROFILE, options, record, within_s=60 * options.minutes, tell=tell):
                if measurement.module == "facts":
                    record.move(free_name(out, f"{_slug(record.results('facts')['gpu']['name'])}-{started:%Y-%m-%d}"))
                else:
                    table.show_step(measurement.name, record)
    except GlamError as error:  # of the facts, the only measurement that is required
        console.err.print(f"No GPU to check: {error}", soft_wrap=True)
        return BackendUnavailable.exit_code if isinstance(error, BackendUnavailable) else 1
    judged = bars.judge(record, options.groups)
    record.finish(seconds=round(monotonic() - start, 1), bars=[asdict(b) for b in judged], ratios=bars.ratios(record))
    table.show(record, judged)
    return 0 if all(bar.held for bar in judged) else ParityError.exit_code


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m glam_bench.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", type=Path, default=Path("demo/bundle"), help="made elsewhere [demo/bundle]")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the results [the current one]")
    parser.add_argument("--only", type=_groups, default=GROUPS, help=f"some of {','.join(GROUPS)} [all]")
    parser.add_argument("--device", type=int, default=0, help="index of the GPU [0]")
    parser.add_argument("--images", type=int, default=10_000, help="of the soak [10000]")
    parser.add_argument("--threads", type=int, default=8, help="of the soak [8]")
    parser.add_argument("--minutes", type=float, default=20.0, help="for everything, at most [20]")
    parser.add_argument("--quick", action="store_true", help="few cases and runs: does everything work?")
    return parser.parse_args(arguments)


def _groups(text: str) -> tuple[str, ...]:
    groups = tuple(text.split(","))
    if unknown := set(groups) - set(GROUPS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(GROUPS)}")
    return groups


if __name__ == "__main__":
    sys.exit(main())
