"""The parsers on their seeds, which are valid, on damaged ones, and on every input with which fuzzing found a fault."""

from pathlib import Path

import pytest
from fuzz.targets import TARGETS, run
from support.streams import changed, cut

FINDINGS = sorted(path for path in (Path(__file__).parent / "findings").glob("*/*") if path.is_file())


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_accepted(name: str) -> None:
    assert all(run(name, seed) for seed in TARGETS[name].seeds())


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_seeds_are_accepted_or_refused(name: str) -> None:
    """No other exception, for bytes that are changed and for a file that is cut."""
    for seed in TARGETS[name].seeds():
        for damaged in (*cut(seed, 20), *changed(seed, 60), *changed(seed, 20, 1, length=4)):
            run(name, damaged)


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: f"{path.parent.name}-{path.name[:20]}")
def test_earlier_findings(path: Path) -> None:
    run(path.parent.name, path.read_bytes())
