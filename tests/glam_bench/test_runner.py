"""Steps in processes of their own: one that fails, dies or hangs leaves a note and reaches no other."""

import json
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glam_bench import runner, worker
from glam_bench.bench import plan as bench_plan
from glam_bench.first_light import plan as first_light_plan
from glam_bench.gpu.plan import GpuOptions, plan
from glam_bench.gpu_check import PROFILE
from glam_bench.ladder.settings import QUICK, Settings
from glam_bench.record import Record
from glam_bench.runner import Measurement, Options, Profile, run_apart, run_here
from glam_bench.worker import RequestFailed, WorkerEnded
from glam_deploy.errors import BackendUnavailable, GlamError

FAKE = """
import faulthandler, os, sys, time, types
from glam_deploy.errors import BackendUnavailable, BackendRunError
from glam_bench.child import main

def good(context): context.add(said=context.argument, odd=float("nan"))
def refuses(context): raise BackendUnavailable("libcuda.so.1 is missing")
def faulty(context): raise BackendRunError("cuLaunchKernel failed")
def buggy(context): context.add(before=1); {}["nothing"]
def dies(context): context.add(before=1); print("last words", flush=True); os.abort()
def leaves(context): os._exit(7)
def hangs(context): time.sleep(60)

for name, run in list(globals().items()):
    if isinstance(run, types.FunctionType) and name != "main":
        sys.modules["glam_bench.measurements." + name] = types.SimpleNamespace(run=run)
main()
"""


@pytest.fixture
def options(tmp_path: Path) -> GpuOptions:
    return GpuOptions(bundle=tmp_path / "bundle", work=tmp_path)


@pytest.fixture
def record(options: GpuOptions) -> Record:
    return Record.create(options.work / "record.json", options=options.as_json())


def ran(name: str, options: GpuOptions, record: Record, monkeypatch: pytest.MonkeyPatch, **step: Any) -> dict[str, Any]:
    """What the record on disk says of one of FAKE's steps."""
    monkeypatch.setattr(worker, "CHILD", (sys.executable, "-c", FAKE))
    which = Measurement(module=name, argument=step.get("argument", ""))
    with suppress(GlamError):
        run_apart(which, PROFILE, options, record, limit_s=step.get("limit_s", 60))
    return Record.open(record.path).steps[which.name]


def test_a_step_writes_into_the_record(options: GpuOptions, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ran("good", options, record, monkeypatch, argument="fp16@tensorrt")
    assert (found["status"], found["error"]) == ("done", None)
    assert found["results"] == {"said": "fp16@tensorrt", "odd": "nan"}
    assert found["seconds"] > 0


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("refuses", "refused", "libcuda.so.1 is missing"),
        ("faulty", "failed", "BackendRunError: cuLaunchKernel failed"),
        ("buggy", "failed", "KeyError: 'nothing'"),
        ("dies", "crashed", "died with signal 6. It had printed: last words"),
        ("leaves", "crashed", "died with exit code 7."),
    ],
)
def test_how_a_step_ends_is_noted_and_what_it_had_found_is_kept(
    name: str, status: str, words: str, options: GpuOptions, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.add("earlier", {"x": 1})
    found = ran(name, options, record, monkeypatch)
    assert found["status"] == status
    assert words in found["error"]
    assert found["results"] == ({"before": 1} if name in {"buggy", "dies"} else {})
    assert Record.open(record.path).results("earlier") == {"x": 1}


def test_a_step_that_hangs_is_stopped(options: GpuOptions, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SHORTEST_S", 0)
    found = ran("hangs", options, record, monkeypatch, limit_s=0.5)
    assert found["status"] == "stopped"
    assert "not done after 0.5 s" in found["error"]


def test_a_step_without_time_is_not_begun(options: GpuOptions, record: Record) -> None:
    run_apart(Measurement(module="kernels"), PROFILE, options, record, limit_s=1)
    assert Record.open(record.path).steps["kernels"]["status"] == "no time left"


def test_no_step_knows_a_name_that_is_none(options: GpuOptions, record: Record) -> None:
    with pytest.raises(ModuleNotFoundError):
        run_here(Measurement(module="nonsense"), options, record)
    assert "No module named 'glam_bench.measurements.nonsense'" in record.steps["nonsense"]["error"]


def only(measurement: Measurement) -> Profile[GpuOptions]:
    """A profile of one measurement, and another that is not required."""
    others = Measurement(module="good"), Measurement(module="buggy")
    return Profile(
        module="glam_bench.gpu_check", options=GpuOptions, plan=lambda options, record: iter([*others, measurement])
    )


@pytest.mark.parametrize(
    ("name", "error", "code"),
    [("refuses", BackendUnavailable, 3), ("faulty", RequestFailed, 4), ("dies", WorkerEnded, 1)],
)
def test_the_error_of_a_required_measurement_ends_the_run_with_its_exit_code(
    name: str,
    error: type[GlamError],
    code: int,
    options: GpuOptions,
    record: Record,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "CHILD", (sys.executable, "-c", FAKE))
    begun: list[str] = []
    with pytest.raises(error) as raised:
        begun += [m.name for m in runner.run(only(Measurement(module=name, required=True)), options, record)]
    assert raised.value.exit_code == code
    assert {step: row["status"] for step, row in record.steps.items()}["buggy"] == "failed"
    assert [m.name for m in runner.run(only(Measurement(module=name)), options, record)] == ["good", "buggy", name]


def test_the_options_of_each_profile_reach_its_processes() -> None:
    """Through JSON, with paths, tuples and records in them."""
    for options in (
        GpuOptions(bundle=Path("b"), work=Path("w"), groups=("times",), minutes=1.5),
        Settings(bundle=Path("b"), engines=("onnx",), patches=2, images=(Path("a.dcm"),), threads=1, pace=QUICK),
        Options(bundle=Path("b")),
    ):
        assert type(options).of(json.loads(json.dumps(options.as_json()))) == options


def test_every_plan_names_modules_that_are_there(options: GpuOptions, record: Record) -> None:
    settings = Settings(bundle=Path("b"), engines=("onnx",), patches=1, images=())
    folder = Path(runner.__file__).parent / "measurements"
    bench, first = bench_plan(settings, record), first_light_plan(Options(bundle=Path("b")), record)
    found = {measurement.module for measurement in [*bench, *first, *plan(options, record)]}
    assert found <= {path.stem for path in folder.glob("*.py")}
    assert {"ladder", "peaks", "files", "single_view", "facts"} <= found


def names(options: GpuOptions, record: Record) -> list[str]:
    return [step.name for step in plan(options, record)]


def test_what_the_bars_are_about_comes_before_other_engines(options: GpuOptions, record: Record) -> None:
    """With engines of one flavour built, and graphs of two precisions."""
    record.add("facts", {"bundle": {"precisions": ["fp32", "fp16"]}})
    for precision in ("fp16", "fp32"):
        record.add(f"build:{precision}@tensorrt-rtx", {"library": "TensorRT-RTX 1.7.1.116"})
    found = names(options, record)
    before = ["facts", "library:tensorrt", "library:tensorrt-rtx", "ceilings", "kernels", "kernel_times", "gpu_tests"]
    half, full = ([f"build:{p}@{f}" for f in ("tensorrt", "tensorrt-rtx")] for p in ("fp16", "fp32"))
    first, *others = "fp16@tensorrt-rtx", "fp16@onnx-cuda-fp16", "fp16@torch"
    about = [f"parity:{first}", f"chain_times:{first}", f"soak:{first}", "baselines"]
    rest = [f"{step}:{engine}" for engine in others for step in ("parity", "chain_times")]
    rest.insert(2, "gate_command:onnx-cuda-fp16")
    last = [f"{step}:fp32@{lib}" for lib in ("tensorrt-rtx", "onnx-cuda") for step in ("parity", "chain_times")]
    assert found == [*before, *half, "reference", *about, *rest, *full, *last]
    folder = Path(runner.__file__).parent / "measurements"
    assert {name.partition(":")[0] for name in found} <= {path.stem for path in folder.glob("*.py")}


def test_the_soak_is_of_an_engine_that_nothing_has_failed_with(options: GpuOptions, record: Record) -> None:
    record.add("facts", {"bundle": {"precisions": ["fp32", "fp16"]}})
    record.add("build:fp16@tensorrt-rtx", {"library": "TensorRT-RTX 1.7.1.116"})
    record.note("parity:fp16@tensorrt-rtx", status="refused")
    record.note("parity:fp16@onnx-cuda-fp16", status="done")
    record.note("chain_times:fp16@onnx-cuda-fp16", status="stopped")
    assert [name for name in names(options, record) if name.startswith("soak")] == ["soak:fp16@onnx-cuda-fp16"]


def test_a_soak_that_is_refused_is_tried_with_the_next_engine(options: GpuOptions, record: Record) -> None:
    record.add("facts", {"bundle": {"precisions": ["fp32", "fp16"]}})
    begun: list[str] = []
    for step in plan(replace(options, groups=("soak",)), record):
        begun.append(step.name)
        record.note(step.name, status="done" if step.name == "soak:fp32@onnx-cuda" else "refused")
    assert begun[-3:] == ["soak:fp16@onnx-cuda-fp16", "soak:fp16@torch", "soak:fp32@onnx-cuda"]


def test_a_library_that_is_not_installed_is_asked_once(options: GpuOptions, record: Record) -> None:
    record.add("facts", {"bundle": {"precisions": ["fp32", "fp16"]}})
    record.note("library:tensorrt", status="refused")
    record.note("library:tensorrt-rtx", status="failed")
    builds = [name for name in names(options, record) if name.startswith("build")]
    assert builds == ["build:fp16@tensorrt-rtx", "build:fp32@tensorrt-rtx"]


def test_each_precision_has_a_time_limit_of_its_own(options: GpuOptions, record: Record) -> None:
    """Row 12 of the review: 180 s were for all; full TensorRT times kernels on the GPU for each."""
    record.add("facts", {"bundle": {"precisions": ["fp32", "fp16", "bf16"]}})
    limits = {step.argument: step.limit_s for step in plan(options, record) if step.module == "build"}
    assert len(limits) == 6
    assert {limit for name, limit in limits.items() if name.endswith("@tensorrt")} == {300}


LIBRARIES = ["facts", "library:tensorrt", "library:tensorrt-rtx"]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (("kernels",), ["facts", "ceilings", "kernels", "kernel_times", "gpu_tests"]),
        (("engines",), [*LIBRARIES, "ceilings", "reference"]),
        (("times",), [*LIBRARIES, "ceilings", "baselines"]),
    ],
)
def test_groups(groups: tuple[str, ...], expected: list[str], tmp_path: Path, record: Record) -> None:
    options = GpuOptions(bundle=tmp_path, work=tmp_path, groups=groups)
    assert names(options, record) == expected
    assert GpuOptions.of(options.as_json()) == options
