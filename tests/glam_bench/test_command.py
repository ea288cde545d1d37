"""The command: its table, its file, its exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.bundles import edit_manifest, fill
from support.commands import start_process

from glam_bench import gpu_check as command
from glam_bench import runner
from glam_bench.gpu import table
from glam_bench.gpu.bars import judge
from glam_bench.gpu.plan import GROUPS, GpuOptions
from glam_bench.record import Record
from glam_bench.runner import Measurement
from glam_deploy.errors import BackendUnavailable

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    fill(folder)
    return folder


@pytest.fixture
def canned(record: Record, monkeypatch: pytest.MonkeyPatch) -> Record:
    """Steps find in no time what `record` holds; change it to make them find something else."""

    def run_apart(step: Measurement, profile: Any, options: GpuOptions, into: Record, **_: Any) -> None:
        known = step.name in record.steps
        into.add(step.name, record.results(step.name))
        into.note(step.name, status="done" if known else "refused", error=None if known else "has no GPU")
        if not known:
            raise BackendUnavailable("has no GPU")

    monkeypatch.setattr(runner, "run_apart", run_apart)
    return record


def run(bundle: Path, out: Path, *arguments: str) -> int:
    return command.main(["--bundle", str(bundle), "--out", str(out), *arguments])


def test_a_good_run(canned: Record, bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run(bundle, tmp_path / "out") == 0
    (path,) = (tmp_path / "out").iterdir()
    found = json.loads(path.read_text())
    assert path.name == f"nvidia-h200-{found['started'][:10]}.json"
    assert found["options"]["images"] == 10_000
    assert len(found["bars"]) == 17
    assert found["ratios"]["torch fp32"]["chain"] == pytest.approx(20)
    assert found["steps"]["kernels"]["results"] == canned.results("kernels")
    said = capsys.readouterr()
    assert "MISSED" not in said.out
    assert str(path) in said.out.replace("\n", "")
    assert "done     kernels" in said.err


def test_a_bar_that_is_missed(canned: Record, bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    canned.results("kernels")["fuse"]["missed"] = [{"case": "NaN"}]
    assert run(bundle, tmp_path / "out", "--only", "kernels") == 4
    assert capsys.readouterr().out.count("MISSED") == 1
    assert run(bundle, tmp_path / "out", "--only", "soak") == 0
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_no_gpu_is_one_sentence(canned: Record, bundle: Path, tmp_path: Path, capsys: Capture) -> None:
    del canned.steps["facts"]
    assert run(bundle, tmp_path / "out") == 3
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr() == ("", "No GPU to check: has no GPU\n")


def test_without_a_gpu_for_real(bundle: Path, tmp_path: Path) -> None:
    """Where there is one, it is hidden."""
    code = "import sys; from glam_bench.gpu_check import main; sys.exit(main())"
    arguments = ("--bundle", bundle, "--out", tmp_path / "out")
    process = start_process(*arguments, code=code, env={"CUDA_VISIBLE_DEVICES": ""})
    out, err = process.communicate()
    assert (process.returncode, out) == (3, "")
    assert err.startswith("No GPU to check: ")
    assert err.count("\n") == 1


def test_wrong_usage(tmp_path: Path, capsys: Capture) -> None:
    assert run(tmp_path / "none", tmp_path) == 2
    assert "is not a bundle" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        command.main(["--only", "kernels,everything"])
    assert "everything: choose from kernels, engines, times, soak" in capsys.readouterr().err


def test_another_network_is_refused_before_anything_is_measured(
    canned: Record, bundle: Path, tmp_path: Path, capsys: Capture
) -> None:
    edit_manifest(bundle, lambda manifest: manifest["network"].update(name="GMIC", aggregation="attention", patches=6))
    assert run(bundle, tmp_path / "out") == 2
    said = capsys.readouterr()
    assert "its network is GMIC, expected GLAM" in said.err.replace("\n", " ")
    assert (said.out, (tmp_path / "out").exists()) == ("", False)


def test_tables_of_a_run_that_found_nothing(record: Record, capsys: Capture) -> None:
    for step in record.steps.values():
        step["results"] = {}
    record.add("facts", {"gpu": {"name": "NVIDIA L4", "driver": "1"}})
    table.show(record, judge(record, GROUPS))
    out = capsys.readouterr().out
    assert "NVIDIA L4" in out
    assert "not measured" in out


def test_what_is_shown_of_a_step_that_did_not_end_well(record: Record, capsys: Capture) -> None:
    """ONNX Runtime's warning was shown as the reason of a step that had only run out of time."""
    printed = "not done after 11.7 s. It had printed: one\n[W:onnxruntime] No registered plugin EP device found"
    for status, error, shown in (
        ("stopped", printed, "not done after 11.7 s. It had printed: one"),
        ("crashed", "died with signal 6. It had printed:\nlast words", "died with signal 6. It had printed:"),
        ("failed", "Traceback\n  File\nKeyError: 'nothing'", "KeyError: 'nothing'"),
        ("refused", "TensorRT is not installed.", "TensorRT is not installed."),
    ):
        record.note("x", seconds=1.0, status=status, error=error)
        table.show_step("x", record)
        assert capsys.readouterr().err.splitlines()[1].strip() == shown


def test_what_a_library_does_otherwise_is_in_the_tables(record: Record, capsys: Capture) -> None:
    words = "fp16: a batch of 1 cannot be recorded: [checkMacros.cpp::catchCudaError::250] Error 900"
    record.add("library:tensorrt", {"differs": [words]})
    record.finish(seconds=1)
    table.show(record, [])
    assert words in " ".join(capsys.readouterr().out.split())
