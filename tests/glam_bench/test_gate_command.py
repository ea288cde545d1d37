"""The step that gates an engine by the command line: what it records of a verdict, and of a command that fails."""

import sys
from pathlib import Path

import pytest
from support.tiny_bundle import write_tiny_bundle

from glam_bench.gpu.plan import GpuContext, GpuOptions
from glam_bench.measurements import gate_command
from glam_bench.record import Record
from glam_deploy.errors import BackendRunError

NAME = "gate_command:onnx-winograd"


@pytest.fixture
def context(tmp_path: Path, record: Record) -> GpuContext:
    options = GpuOptions(bundle=write_tiny_bundle(tmp_path / "tiny"), work=tmp_path)
    return GpuContext(options=options, record=record, name=NAME, argument="onnx-winograd")


def test_a_command_that_fails(context: GpuContext) -> None:
    """The command is the real one; `--device` is not for an engine on the CPU."""
    with pytest.raises(BackendRunError, match=r"gate --engine onnx-winograd ended with exit code 2: .*device"):
        gate_command.run(context)
    found = context.record.results(NAME)
    assert found["exit_code"] == 2
    assert "passed" not in found


def test_what_auto_selects_afterwards(context: GpuContext, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[object, ...]] = []

    def command(*arguments: object) -> list[str]:
        said.append(arguments)
        return [sys.executable, "-c", "print('passed')"]

    monkeypatch.setattr(gate_command, "python_command", command)
    gate_command.run(context)
    found = context.record.results(NAME)
    assert said == [
        ("-m", "glam_deploy", "gate", "--engine", "onnx-winograd", "--bundle", context.bundle, "--device", 0)
    ]
    assert (found["exit_code"], found["output"], found["auto"]) == (0, "passed\n", "onnx")
