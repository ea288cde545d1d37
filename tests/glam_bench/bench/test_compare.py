"""Two benches held against each other: what noise hides and what it does not."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from glam_bench import schema
from glam_bench.ladder.compare import compare, differences, only_in_one, rows
from glam_deploy.errors import UsageError

SAMPLE = Path(__file__).with_name("sample.json")


@pytest.fixture
def before() -> Any:
    return schema.read(SAMPLE)


@pytest.fixture
def after(before: Any) -> Any:
    return copy.deepcopy(before)


def slowed(results: Any, factor: float, noise: float) -> str:
    """Another time and noise for the first rung that ran; its key."""
    rung = next(rung for rung in results["ladder"] if rung["latency_ms"])
    rung["latency_ms"]["p50"] *= factor
    rung["latency_ms"]["noise"] = noise
    return str(rung["key"])


@pytest.mark.parametrize(
    ("factor", "noise", "verdict"),
    [(1.0, 0.02, "same"), (1.09, 0.05, "same"), (1.11, 0.05, "slower"), (0.92, 0.05, "same"), (0.9, 0.05, "faster")],
)
def test_a_ratio_counts_beyond_both_noises(before: Any, after: Any, factor: float, noise: float, verdict: str) -> None:
    key = slowed(before, 1, noise)
    slowed(after, factor, noise)
    row = next(row for row in rows(before, after) if row.key == key)
    assert row.ratio == pytest.approx(factor)
    assert row.verdict == verdict


def test_a_run_equals_itself(before: Any) -> None:
    assert {row.verdict for row in rows(before, before)} == {"same"}
    assert not any(text for text in only_in_one(before, before))


def test_what_makes_two_runs_no_twins_is_said(before: Any, after: Any, capsys: pytest.CaptureFixture[str]) -> None:
    after["machine"]["processor"] = "another"
    after["settings"]["patches"] = 6
    said = list(differences(before, after))
    assert any("machines differ" in text for text in said)
    assert any("patches differ" in text for text in said)


def written(results: Any, path: Path) -> Path:
    path.write_text(json.dumps(results))
    return path


def test_a_quick_run_gets_a_warning_and_no_verdict(
    after: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slowed(after, 3, 0.02)
    for rung in after["ladder"]:
        if rung["latency_ms"]:
            rung["latency_ms"]["windows"] = [[rung["latency_ms"]["p50"]]]
    compare(SAMPLE, written(after, tmp_path / "quick.json"))
    out, err = capsys.readouterr()
    assert f"warning: {tmp_path / 'quick.json'} is not a measurement: fewer than 3 windows" in err
    assert str(SAMPLE) not in err
    assert "slower" not in out
    assert "3.000" in out


@pytest.mark.parametrize(("key", "value"), [("images", ["L-CC"]), ("exam", "named by the user")])
def test_different_images_get_a_warning(
    after: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, value: Any
) -> None:
    after["settings"][key] = value
    compare(SAMPLE, written(after, tmp_path / "other.json"))
    err = capsys.readouterr().err
    assert "warning: the two runs used different images: L-CC, R-CC, L-MLO, R-MLO" in err
    assert "not a measurement" not in err


def test_two_measurements_of_the_same_images_get_no_warning(capsys: pytest.CaptureFixture[str]) -> None:
    compare(SAMPLE, SAMPLE)
    assert not capsys.readouterr().err


def test_a_rung_that_ran_once(before: Any, after: Any) -> None:
    rung = next(rung for rung in after["ladder"] if rung["latency_ms"])
    rung["latency_ms"] = None
    assert list(only_in_one(before, after)) == [f"{rung['name']}: ran in the first alone."]
    assert rung["key"] not in {row.key for row in rows(before, after)}


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot be read as JSON"), (b"[]", "schema None"), (b'{"schema": 99}', "schema 99, expected 1")],
)
def test_files_that_are_no_bench(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "b.json").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        compare(SAMPLE, tmp_path / "b.json")


def test_a_file_with_a_missing_or_wrong_part_names_it(tmp_path: Path) -> None:
    content = json.loads(SAMPLE.read_text())
    del content["noise"]
    content["ladder"][0]["name"] = 3
    path = tmp_path / "b.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="noise missing or unknown"):
        schema.read(path)
    content["noise"] = {"relative": 0.02, "how": "so"}
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"ladder.*0\.name is int, expected"):
        schema.read(path)
