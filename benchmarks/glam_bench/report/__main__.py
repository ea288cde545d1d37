"""Draw a bench.json again, with a gate's pictures or as the README's plot.

python -m glam_bench.report bench.json [--gate DIR]... [--out report.html] [--ladder ladder.svg]
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from glam_bench.report import write, write_ladder_svg
from glam_bench.schema import read
from glam_deploy.cli import console
from glam_deploy.errors import GlamError


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 written, 2 something given cannot be read."""
    given = _parse(arguments)
    try:
        results = read(given.results)
        write(results, given.out or given.results.with_suffix(".html"), gates=given.gate)
        if given.ladder:
            write_ladder_svg(results, given.ladder)
    except GlamError as error:
        console.err.print(str(error), soft_wrap=True)
        return error.exit_code
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m glam_bench.report", description="Draw a bench.json again.")
    parser.add_argument("results", type=Path, help="what `glam-deploy bench` wrote")
    parser.add_argument("--gate", type=Path, action="append", default=[], help="folder of a gate; may be repeated")
    parser.add_argument("--out", type=Path, help="the report [beside the results, .html]")
    parser.add_argument("--ladder", type=Path, help="also the ladder alone, as SVG")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
