"""What engines are made for, what their key depends on, and which machine they are kept from."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support import tensorrt as support_tensorrt
from support.commands import ROOT
from support.store import L4

from glam_deploy.bundle import Bundle, EngineEntry, MadeFor
from glam_deploy.errors import BackendUnavailable, UsageError
from glam_deploy.gpu.engines.tensorrt import flavours, identity, store
from glam_deploy.gpu.engines.tensorrt.flavours import Library
from glam_deploy.gpu.engines.tensorrt.identity import BuildInputs, Machine
from glam_deploy.json_records import from_json

H200 = Machine(gpu="NVIDIA H200", compute_capability="9.0", driver="580.95.05")
NO_GPU = Machine(lacks="libcuda.so.1, NVIDIA's driver, is missing.")


@pytest.fixture
def rtx() -> Library:
    return flavours.load(flavours.FLAVOURS["tensorrt-rtx"])


@pytest.fixture
def trt() -> Library:
    return support_tensorrt.library()


# what engines are made for


def test_tensorrt_builds_for_the_gpu_at_hand(trt: Library) -> None:
    made_for = MadeFor(compute_capabilities=("8.9",), gpu="NVIDIA L4", driver="580.95.05")
    assert identity.made_for(trt, L4, []) == made_for
    assert identity.made_for(trt, L4, ["8.9"]) == made_for
    with pytest.raises(UsageError, match=r"of compute capability 8\.9: remove --compute-capability"):
        identity.made_for(trt, L4, ["8.6"])


def test_tensorrt_needs_a_gpu(trt: Library) -> None:
    with pytest.raises(BackendUnavailable, match=r"this machine has none: libcuda\.so\.1.* --flavour tensorrt-rtx"):
        identity.made_for(trt, NO_GPU, [])


def test_tensorrt_rtx_builds_for_the_gpu_at_hand_or_all_but_turing(rtx: Library) -> None:
    def capabilities(machine: Machine, *asked: str) -> list[str]:
        made_for = identity.made_for(rtx, machine, asked)
        assert (made_for.gpu, made_for.driver) == (None, None)
        return list(made_for.compute_capabilities)

    assert capabilities(L4) == ["8.9"]
    assert capabilities(NO_GPU)[:4] == ["8.0", "8.6", "8.9", "12.0"]
    assert capabilities(L4, "12.0", "7.5", "8.6", "8.6") == ["7.5", "8.6", "12.0"]
    assert capabilities(NO_GPU, "7.5") == ["7.5"]


@pytest.mark.parametrize("capability", ["5.2", "7.0", "8.7", "9.0", "10.0", "10.3", "11.0"])
def test_gpu_that_tensorrt_rtx_does_not_run_on_is_refused_before_building(rtx: Library, capability: str) -> None:
    """1.7.1 builds for 9.0, and does not load what it has built (H200, driver 580.159)."""
    machine = Machine(gpu="some GPU", compute_capability=capability, driver="580.95.05")
    words = rf"TensorRT-RTX 1\.\S+ does not run on GPUs of compute capability {capability}: it runs on 7\.5, 8\.0, .*"
    for asked in ([], [capability], ["8.9", capability]):
        with pytest.raises(BackendUnavailable, match=words) as caught:
            identity.made_for(rtx, machine, asked)
        assert "glam-deploy build --flavour tensorrt; install" in str(caught.value)
        assert "--engine onnx-cuda" in str(caught.value)
    assert identity.made_for(rtx, machine, ["8.9"]).compute_capabilities == ("8.9",)  # for another machine


def test_gpu_later_than_all_that_tensorrt_rtx_lists_is_asked_for_where_it_is_at_hand(rtx: Library) -> None:
    """The library itself says ">12.0" of the GPUs that it supports."""
    later = Machine(gpu="a later GPU", compute_capability="13.0", driver="600")
    assert identity.made_for(rtx, later, []).compute_capabilities == ("13.0",)
    assert identity.made_for(rtx, later, ["13.0"]).compute_capabilities == ("13.0",)
    with pytest.raises(UsageError, match=r"does not list compute capability 13\.0 and builds for it only without"):
        identity.made_for(rtx, later, ["8.9", "13.0"])
    for machine in (NO_GPU, L4):
        for capability in ("9.0", "13.0"):
            words = (
                rf"compute capability {capability}, expected one of 7\.5, 8\.0, 8\.6, 8\.9, 12\.0.*--engine onnx-cuda"
            )
            with pytest.raises(UsageError, match=words):
                identity.made_for(rtx, machine, [capability])


@pytest.mark.parametrize("asked", ["89", "sm_89", "eight", "", "8.9.1"])
def test_what_is_no_compute_capability(rtx: Library, asked: str) -> None:
    with pytest.raises(UsageError, match="cannot build for"):
        identity.made_for(rtx, L4, [asked])


# the key


@pytest.fixture
def inputs(bundle: Bundle, trt: Library) -> BuildInputs:
    return identity.build_inputs(bundle, trt, "fp16", made_for=identity.made_for(trt, L4, []), options={"tf32": False})


def test_inputs_name_all_graphs_of_the_precision(inputs: BuildInputs, bundle: Bundle) -> None:
    wanted = {"global": "graphs/global.fp16.onnx", "local": "graphs/local.fp16.onnx", "fusion": "graphs/fusion.onnx"}
    assert inputs.graphs == {stage: bundle.files[name].sha256 for stage, name in wanted.items()}
    assert (inputs.flavour, inputs.library, inputs.precision) == ("tensorrt", "11.4.0.1", "fp16")


@pytest.mark.parametrize(
    "change",
    [
        lambda i: replace(i, precision="fp32"),
        lambda i: replace(i, flavour="tensorrt-rtx"),
        lambda i: replace(i, library="11.4.0.2"),
        lambda i: replace(i, made_for=replace(i.made_for, gpu="NVIDIA L40")),
        lambda i: replace(i, made_for=replace(i.made_for, compute_capabilities=("8.9", "9.0"))),
        lambda i: replace(i, options={"tf32": True}),
        lambda i: replace(i, graphs={**i.graphs, "local": "00"}),
        lambda i: replace(i, kernels_sha256="00"),
    ],
)
def test_everything_that_makes_other_engines_makes_another_key(
    inputs: BuildInputs, change: Callable[[BuildInputs], BuildInputs]
) -> None:
    assert change(inputs).key != inputs.key


def test_driver_and_order_make_no_other_key(inputs: BuildInputs) -> None:
    made_for = replace(inputs.made_for, driver="999.0")
    graphs = dict(reversed(inputs.graphs.items()))
    assert replace(inputs, made_for=made_for, graphs=graphs).key == inputs.key


# does it fit


@pytest.fixture
def built(bundle: Bundle, trt: Library, quick_kernels: None) -> store.BuildOutcome:
    settled = store.Plan(library=trt, precision="fp16", made_for=identity.made_for(trt, L4, []), machine=L4)
    return store.build_engines(bundle.folder, settled, lambda step, detail, done: None)


def reasons(built: store.BuildOutcome, machine: Machine, library: Library, **changes: Any) -> list[str]:
    entry = replace(built.entry, **changes)
    entry = replace(entry, key=identity.inputs_of(entry).key)
    return identity.mismatches(built.bundle, entry, library=library, machine=machine)


def test_what_was_just_built_fits(built: store.BuildOutcome, trt: Library) -> None:
    assert reasons(built, L4, trt) == []
    assert identity.entries(built.bundle, "fp16") == identity.entries(built.bundle, "fp16", "tensorrt") == [built.entry]
    assert identity.entries(built.bundle, "fp16", "tensorrt-rtx") == identity.entries(built.bundle, "fp32") == []


def test_other_machines(built: store.BuildOutcome, trt: Library) -> None:
    other_name = Machine(gpu="NVIDIA RTX 4090", compute_capability="8.9", driver="580.95.05")
    assert reasons(built, other_name, trt) == ["built for NVIDIA L4, the GPU is NVIDIA RTX 4090"]
    assert reasons(built, H200, trt) == [
        "built for compute capability 8.9, the GPU has 9.0",
        "built for NVIDIA L4, the GPU is NVIDIA H200",
    ]
    assert reasons(built, Machine(gpu=L4.gpu, compute_capability="8.9", driver="999.0"), trt) == []


def test_other_library(built: store.BuildOutcome) -> None:
    assert reasons(built, L4, support_tensorrt.library(10)) == ["built with TensorRT 11.4.0.1, installed is 10.4.0.1"]


def test_gpu_that_the_library_does_not_run_on(built: store.BuildOutcome, rtx: Library) -> None:
    """Such engines were built by earlier releases."""
    targets = MadeFor(compute_capabilities=("9.0",), gpu=None, driver=None)
    entry = replace(built.entry, made_for=targets, library=rtx.version)
    found = identity.mismatches(built.bundle, entry, library=rtx, machine=H200)
    assert found == [f"{rtx} does not run on compute capability 9.0"]


def test_several_targets_and_any_gpu_of_them(built: store.BuildOutcome, trt: Library) -> None:
    targets = MadeFor(compute_capabilities=("8.6", "8.9", "12.0"), gpu=None, driver=None)
    assert reasons(built, L4, trt, made_for=targets) == []
    assert reasons(built, H200, trt, made_for=targets) == [
        "built for compute capability 8.6, 8.9, 12.0, the GPU has 9.0"
    ]
    # of one family, and yet not named to the builder
    near = Machine(gpu="NVIDIA GB10", compute_capability="12.1", driver="580.95.05")
    assert reasons(built, near, trt, made_for=targets) == [
        "built for compute capability 8.6, 8.9, 12.0, the GPU has 12.1"
    ]


def test_other_graph_and_other_kernels(
    built: store.BuildOutcome, trt: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = replace(built.entry.stages["local"], graph_sha256="00")
    for other in (local, replace(local, graph="graphs/gone.onnx")):
        stages = {**built.entry.stages, "local": other}
        assert reasons(built, L4, trt, stages=stages) == ["built from another local graph than the bundle's"]
    monkeypatch.setattr(identity, "source_sha256", lambda network: "00")
    assert reasons(built, L4, trt) == ["its kernels are of another release of glam-deploy"]


def test_the_key_of_an_earlier_release_follows_from_its_entry() -> None:
    """Written by that release."""
    recorded = json.loads((ROOT / "tests/glam_deploy/manifest_schema_1.json").read_bytes())["engines"]
    for entry in recorded:
        assert identity.inputs_of(from_json(EngineEntry, entry)).key == entry["key"]


def test_an_entry_that_was_made_to_fit_is_told(built: store.BuildOutcome, trt: Library) -> None:
    """Engines for another GPU, whose entry someone has edited."""
    other = replace(built.entry, made_for=replace(built.entry.made_for, gpu=H200.gpu, compute_capabilities=("9.0",)))
    (reason,) = identity.mismatches(built.bundle, other, library=trt, machine=H200)
    assert reason.startswith(f"its entry in the manifest was changed: its key is {built.entry.key[:12]}, that of its ")


def test_machine_without_driver_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(index: int) -> None:
        raise BackendUnavailable(f"no GPU {index}")

    monkeypatch.setattr(identity, "Gpu", fail)
    assert identity.this_machine() == Machine(lacks="no GPU 0")
    with pytest.raises(BackendUnavailable, match="no GPU 1"):
        identity.this_machine(1)
