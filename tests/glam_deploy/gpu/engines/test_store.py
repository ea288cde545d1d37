"""Engines in a bundle: built once, known again, never half there. The library is made up and costs nothing."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import tensorrt as support_tensorrt
from support.bundles import edit_manifest, snapshot, write_manifest
from support.store import A10, L4, build

from glam_deploy.bundle import (
    ENGINES_FOLDER,
    MANIFEST,
    Bundle,
    open_bundle,
)
from glam_deploy.errors import BundleError, UsageError
from glam_deploy.gpu.engines.tensorrt import builder, identity, store
from glam_deploy.gpu.engines.tensorrt.flavours import Library
from glam_deploy.gpu.engines.tensorrt.identity import Machine
from glam_deploy.json_records import to_json
from glam_deploy.networks import CAM, GLAM_CONCATENATION, GMIC, NetworkSpec

pytestmark = pytest.mark.usefixtures("quick_kernels")


# what lies there


def test_files_and_what_the_manifest_says_of_them(bundle: Bundle) -> None:
    outcome = build(bundle)
    outcome.bundle.check()
    (folder,) = (bundle.folder / ENGINES_FOLDER).iterdir()
    assert folder.name == f"tensorrt-fp16-{outcome.entry.key[:12]}"
    place = f"{ENGINES_FOLDER}/{folder.name}"
    entry = json.loads((bundle.folder / MANIFEST).read_bytes())["engines"][0]
    assert entry == to_json(outcome.entry)
    assert {stage: made["file"] for stage, made in entry["stages"].items()} == {
        stage: f"{place}/{stage}.engine" for stage in ("global", "local", "fusion")
    }
    assert entry["kernels"] == {"sm_89": {"file": f"{place}/kernels.sm_89.cubin"}}
    assert entry["timing_cache"] == f"{place}/timing.cache"
    assert {path.name for path in folder.iterdir()} == {
        *("global.engine", "local.engine", "fusion.engine", "kernels.sm_89.cubin", "timing.cache")
    }
    assert [entry["stages"][s]["confirmed_share"] for s in ("global", "local", "fusion")] == [1.0, 1.0, None]
    assert entry["made_for"] == {"compute_capabilities": ["8.9"], "gpu": "NVIDIA L4", "driver": "580.95.05"}


@pytest.mark.parametrize("network", [GMIC, CAM], ids=lambda network: network.name)
def test_engines_of_another_network_are_those_of_its_stages(tmp_path: Path, network: NetworkSpec) -> None:
    support_tensorrt.fill(tmp_path / "other", network)
    told: list[tuple[str, float]] = []
    outcome = build(open_bundle(tmp_path / "other"), report=lambda step, detail, done: told.append((step, done)))
    outcome.bundle.check()
    assert tuple(outcome.entry.stages) == network.stages
    steps = [*(f"{stage} engine" for stage in network.stages), "CUDA kernels"]
    assert list(dict.fromkeys(step for step, _ in told)) == steps
    assert told[-1][1] == len(network.stages)
    assert not build(outcome.bundle).new


@pytest.mark.parametrize(("tells", "share", "told"), [("nothing", None, "0.0%"), ("weights", 0.9, "90.0%")])
def test_report_that_confirms_too_little_lies_beside_the_engine(
    bundle: Bundle, tells: str, share: float | None, told: str
) -> None:
    outcome = build(bundle, support_tensorrt.library(10, tells=tells))
    outcome.bundle.check()
    stages = outcome.entry.stages
    assert stages["local"].confirmed_share == pytest.approx(share)
    assert stages["fusion"].report is None
    name = stages["local"].report
    assert name
    assert name == str(Path(stages["local"].file).with_name("local.layers.txt"))
    assert outcome.bundle.read(name).startswith(b"Layers:\nName: ")
    (warning,) = (words for words in outcome.warnings if words.startswith("local: "))
    assert f"confirms fp16 for only {told} of the multiply-adds" in warning
    assert warning.endswith(f"The report is in {bundle.folder / name}.")
    assert not build(bundle, support_tensorrt.library(10, tells=tells)).new
    build(bundle, support_tensorrt.library(11)).bundle.check()
    assert not (bundle.folder / name).exists()


def test_everything_else_of_the_bundle_is_as_before(bundle: Bundle) -> None:
    before = snapshot(bundle.folder)
    outcome = build(bundle)
    after = snapshot(bundle.folder)
    assert {n: c for n, c in after.items() if not n.startswith(ENGINES_FOLDER) and n != MANIFEST} == {
        n: c for n, c in before.items() if n != MANIFEST
    }
    manifest = outcome.bundle.manifest
    files = {n: e for n, e in manifest.files.items() if not n.startswith(ENGINES_FOLDER)}
    assert replace(manifest, engines=(), files=files) == bundle.manifest
    assert outcome.bundle.id != bundle.id


def test_readable_for_others(bundle: Bundle) -> None:
    mask = os.umask(0o077)
    try:
        build(bundle)
    finally:
        os.umask(mask)
    (folder,) = (bundle.folder / ENGINES_FOLDER).iterdir()
    assert folder.stat().st_mode & 0o777 == 0o755
    assert folder.parent.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in (*folder.iterdir(), bundle.folder / MANIFEST)} == {0o644}


def test_graphs_are_those_of_the_precision(bundle: Bundle) -> None:
    for precision, flavoured in (("fp32", ""), ("fp16", ".fp16")):
        stages = build(bundle, precision=precision).entry.stages  # type: ignore[arg-type]
        for stage in ("global", "local"):
            assert stages[stage].graph == f"graphs/{stage}{flavoured}.onnx"
        assert stages["fusion"].graph == "graphs/fusion.onnx"


def test_precision_that_the_bundle_lacks(bundle: Bundle) -> None:
    wanted = r"no graphs/global\.bf16\.onnx.*export --weights ckpt\.pt --precision bf16 --precision fp16 --out"
    with pytest.raises(UsageError, match=wanted):
        build(bundle, precision="bf16")
    assert not (bundle.folder / ENGINES_FOLDER).exists()


def test_steps_are_told(bundle: Bundle) -> None:
    told: list[tuple[str, float]] = []
    build(bundle, report=lambda step, detail, done: told.append((step, done)))
    assert list(dict.fromkeys(step for step, _ in told)) == [
        *("global engine", "local engine", "fusion engine", "CUDA kernels")
    ]
    assert [done for _, done in told] == sorted(done for _, done in told)
    assert told[0][1] == 0
    assert told[-1][1] == len(("global", "local", "fusion"))


# a second build


class Counting:
    """Counts what is built."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stages: list[str] = []
        real = builder.build_stage

        def counted(library: Library, request: builder.StageRequest, progress: Any) -> builder.BuiltStage:
            self.stages.append(request.stage)
            return real(library, request, progress)

        monkeypatch.setattr(builder, "build_stage", counted)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    return Counting(monkeypatch)


def test_second_build_does_nothing(bundle: Bundle, counting: Counting) -> None:
    first = build(bundle)
    before = snapshot(bundle.folder)
    second = build(bundle)
    assert (first.new, second.new) == (True, False)
    assert second.entry == first.entry
    assert snapshot(bundle.folder) == before
    assert counting.stages == ["global", "local", "fusion"]


def test_other_precisions_and_gpus_stand_side_by_side(bundle: Bundle, counting: Counting) -> None:
    build(bundle)
    build(bundle, precision="fp32")
    last = build(bundle, machine=A10)
    assert len(last.bundle.engines) == 3
    last.bundle.check()
    assert not any(build(bundle, machine=machine).new for machine in (L4, A10))
    assert len(counting.stages) == 9


def new_release(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Library:
    return support_tensorrt.library(10)


def new_options(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setattr(builder, "options", lambda library: {"tf32": "else"})
    return support_tensorrt.library()


def new_kernels(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setattr(identity, "source_sha256", lambda network: "00")
    return support_tensorrt.library()


def new_graph(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Library:
    changed = support_tensorrt.graph("local", "fp16", convolutions=[])
    (bundle.folder / "graphs/local.fp16.onnx").write_bytes(changed)
    manifest = json.loads((bundle.folder / MANIFEST).read_bytes())
    write_manifest(bundle.folder, {key: value for key, value in manifest.items() if key != "schema_version"})
    return support_tensorrt.library()


@pytest.mark.parametrize("change", [new_release, new_options, new_kernels, new_graph])
def test_any_change_builds_again_and_takes_the_place(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, change: Callable[[Bundle, pytest.MonkeyPatch], Library]
) -> None:
    first = build(bundle)
    library = change(bundle, monkeypatch)
    second = build(bundle, library)
    assert second.new
    assert [e.key for e in second.bundle.engines] == [second.entry.key] != [first.entry.key]
    second.bundle.check()
    assert len(list((bundle.folder / ENGINES_FOLDER).iterdir())) == 1


@pytest.mark.parametrize("damage", [lambda c: c[:-1] + b"\0", lambda c: c + b"\0", lambda c: None])
def test_damaged_engine_is_refused_and_built_anew(bundle: Bundle, damage: Callable[[bytes], bytes | None]) -> None:
    outcome = build(bundle)
    name = outcome.entry.stages["local"].file
    path = bundle.folder / name
    good = path.read_bytes()
    path.unlink()
    if bad := damage(good):
        path.write_bytes(bad)
    found = open_bundle(bundle.folder)  # nothing else is hindered by it
    remedy = f"build these engines again: glam-deploy build --bundle {bundle.folder} --engine fp16 --flavour tensorrt"
    for use in (found.check, lambda: found.read(name)):
        with pytest.raises(BundleError, match=rf"local\.engine (was changed: SHA-256|cannot be read).*{remedy}$"):
            use()
    again = build(bundle)
    assert again.new
    assert len(again.bundle.engines) == 1
    assert path.read_bytes() == good
    again.bundle.check()


def test_remedy_for_engines_of_any_gpu_names_their_targets(bundle: Bundle) -> None:
    made_for = {"compute_capabilities": ["8.6", "8.9"], "gpu": None, "driver": None}
    name = build(bundle).entry.stages["local"].file
    edit_manifest(bundle.folder, lambda m: m["engines"][0].update(flavour="tensorrt-rtx", made_for=made_for))
    (bundle.folder / name).unlink()
    with pytest.raises(BundleError, match=r"-rtx --compute-capability 8\.6 --compute-capability 8\.9$"):
        open_bundle(bundle.folder).read(name)


def test_damaged_engines_hinder_no_others(bundle: Bundle) -> None:
    entry = build(bundle).entry
    for name in entry.files:
        (bundle.folder / name).write_bytes(b"")
    other = build(bundle, precision="fp32")
    assert other.bundle.read(other.entry.stages["local"].file)
    assert timings(other) == b"+++"


# timing cache


def timings(outcome: store.BuildOutcome) -> bytes:
    assert outcome.entry.timing_cache
    return outcome.bundle.read(outcome.entry.timing_cache)


def test_timings_go_on_with_the_same_library_on_the_same_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(bundle)
    assert timings(first) == b"+++"
    assert timings(build(bundle, precision="fp32")) == b"++++++"
    assert timings(build(bundle, machine=A10)) == b"+++"
    assert timings(build(bundle, support_tensorrt.library(10))) == b"+++"
    monkeypatch.setattr(identity, "source_sha256", lambda network: "00")
    assert timings(build(bundle, machine=Machine(gpu="NVIDIA A10", compute_capability="8.6", driver="600"))) == (
        b"++++++"
    )


def test_timings_that_the_library_does_not_take_are_left(bundle: Bundle) -> None:
    request = builder.StageRequest(
        stage="local",
        graph=bundle.read("graphs/local.onnx"),
        contract=GLAM_CONCATENATION.contract("local"),
        precision="fp32",
        timing_cache=b"foreign",
    )
    built = builder.build_stage(support_tensorrt.library(), request, lambda phase, done: None)
    assert built.timing_cache == b"+"


# a manifest that was made by hand


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda e: e.pop("key"), r"engines\[0\]\.key is missing"),
        (lambda e: e["stages"]["local"].pop("file"), r"engines\[0\]\.stages\.local\.file is missing"),
        (lambda e: e["stages"].pop("fusion"), r"engines\[0\]\.stages\.fusion is missing"),
        (lambda e: e["stages"]["local"].update(file="gone"), "the manifest does not list gone"),
        (lambda e: e["made_for"].update(gpu=7), r"engines\[0\]\.made_for\.gpu is a whole number"),
        (
            lambda e: e["made_for"].update(compute_capabilities="8.9"),
            r"compute_capabilities is a string, expected an array",
        ),
        (lambda e: e.update(kernels=[]), r"engines\[0\]\.kernels is an array"),
    ],
)
def test_faults_are_seen_when_the_bundle_is_opened(
    bundle: Bundle, edit: Callable[[dict[str, Any]], object], fault: str
) -> None:
    build(bundle)
    edit_manifest(bundle.folder, lambda manifest: edit(manifest["engines"][0]))
    with pytest.raises(BundleError, match=fault):
        open_bundle(bundle.folder)
