"""The tables, on a terminal of 80 columns."""

from pathlib import Path

import pytest
from rich.console import Console

from glam_bench import schema
from glam_bench.ladder import table
from glam_deploy.cli import console

SAMPLE = Path(__file__).with_name("sample.json")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is printed of the sample."""
    monkeypatch.setattr(console, "out", Console(highlight=False, markup=False, emoji=False, width=80))
    table.show(schema.read(SAMPLE))
    return [line.strip() for line in capsys.readouterr().out.splitlines()]


def test_every_rung_has_one_line_with_its_figures(lines: list[str]) -> None:
    assert max(map(len, lines)) <= 80
    int8 = next(line.split() for line in lines if line.startswith("OpenVINO int8"))
    assert int8 == ["OpenVINO", "int8", "2225*", "2843", "2.26x", "0.9300", "3/4", "3900", "1000", "FAIL"]
    assert "OpenVINO int8: gate 0123456789ab failed; Dice of the fused benign map at 0.5:" in lines


def test_a_dice_just_below_one_is_not_shown_as_one(lines: list[str]) -> None:
    """0.99999 in the sample."""
    assert "0.9999" in next(line for line in lines if line.startswith("ONNX Runtime"))


def test_what_did_not_run_is_told_with_the_reason(lines: list[str]) -> None:
    assert any(line.startswith("TensorRT fp16: not here. engine 'fp16' needs cuda.core") for line in lines)
    assert any(line.startswith("! openvino-int8 is unstable") for line in lines)


def test_the_headline_is_an_engine_that_may_run(lines: list[str]) -> None:
    assert "The fastest engine that may give results: ONNX Runtime, 4921 ms." in lines
    assert "Faster, but its gate failed: OpenVINO int8, 2225 ms." in lines
