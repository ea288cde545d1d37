"""Fuzz every parser for an equal share of some minutes, each in a process of its own: `make fuzz MINUTES=n`.

Prints a line for each: executions, features of coverage found beyond the seeds, and findings. A finding is an exception
that the parser may not raise, more than SLOWEST_S for one input, or more than MOST_MIB of memory; its input is kept in
`findings/TARGET`, which `test_findings.py` parses again ever after. Ends with 1 if there are any.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in (".", "export", "benchmarks", "tests")]  # as pytest has them

from fuzz.targets import TARGETS  # noqa: E402

SLOWEST_S = 10
MOST_MIB = 2048
LONGEST_BYTES = 16 << 10
_COVERAGE = re.compile(r"^#\d+\s+(?:INITED|NEW|REDUCE|DONE|pulse).*?cov: (\d+) ft: (\d+)", re.M)
_RUNS = re.compile(r"^#(\d+)\s|stat::number_of_executed_units: (\d+)", re.M)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one parser."""

    executions: int
    coverage: int
    """Edges that the last inputs reached."""
    seeds: int
    """Edges that the seeds alone reach."""
    findings: tuple[Path, ...]
    said: str
    """What libFuzzer and Python printed."""


def fuzz(name: str, seconds: int, corpus: Path) -> Outcome:
    """Fuzz a parser; inputs that reach something new stay in `corpus`."""
    folder, findings = corpus / name, HERE / "findings" / name
    folder.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds()):
        (folder / f"seed-{number}").write_bytes(seed)
    before = set(findings.iterdir())
    limits = (f"-timeout={SLOWEST_S}", f"-rss_limit_mb={MOST_MIB}", f"-max_len={LONGEST_BYTES}")
    places = (f"-artifact_prefix={findings}/", str(folder))
    command = (sys.executable, str(HERE / "one.py"), name, f"-max_total_time={seconds}", "-print_final_stats=1")
    ended = subprocess.run((*command, *limits, *places), capture_output=True, text=True, errors="replace", check=False)
    said = ended.stdout + ended.stderr
    covered = [int(edges) for edges, _ in _COVERAGE.findall(said)] or [0]
    runs = [int(one or other) for one, other in _RUNS.findall(said)] or [0]
    found = tuple(sorted(set(findings.iterdir()) - before))
    if ended.returncode and not found:
        raise click.ClickException(f"{name}: the fuzzer ended with {ended.returncode}:\n{said[-3000:]}")
    return Outcome(executions=max(runs), coverage=max(covered), seeds=covered[0], findings=found, said=said)


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.1), default=10, show_default=True, help="For all together.")
@click.option("--corpus", type=click.Path(path_type=Path), default=Path("build/fuzz"), show_default=True)
@click.argument("names", nargs=-1, type=click.Choice(sorted(TARGETS)))
def main(minutes: float, corpus: Path, names: tuple[str, ...]) -> None:
    """Fuzz the parsers NAMES, all without any."""
    chosen = names or tuple(TARGETS)
    failed = False
    click.echo(f"{'parser':<16}{'executions':>12}{'edges':>8}{'of seeds':>10}  findings")
    for name in chosen:
        outcome = fuzz(name, max(1, round(60 * minutes / len(chosen))), corpus)
        kept = ", ".join(path.name for path in outcome.findings) or "none"
        click.echo(f"{name:<16}{outcome.executions:>12,}{outcome.coverage:>8}{outcome.seeds:>10}  {kept}")
        if outcome.findings:
            failed = True
            click.echo(outcome.said[outcome.said.find(" === ") :][:1500], err=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
