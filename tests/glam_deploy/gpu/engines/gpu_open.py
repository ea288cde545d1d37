"""Which of a bundle's TensorRT engines are opened, and what is said where none is. Run by test_on_fake_gpu.py."""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
from fake_cuda.control import FakeDriver
from support import tensorrt as support_tensorrt
from support import tensorrt_runtime as support_tensorrt_runtime
from support.bundles import edit_manifest

from glam_deploy.bundle import Bundle, EngineEntry, open_bundle
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.engines.registry import OWNERS, open_engines
from glam_deploy.errors import BackendBuildError, BackendUnavailable, BundleError, UsageError
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.engines.tensorrt import flavours, identity, store
from glam_deploy.gpu.engines.tensorrt.flavours import FLAVOURS, Flavour, Library
from glam_deploy.gpu.kernels.launch import Kernels
from glam_deploy.json_records import from_json, to_json
from glam_deploy.networks import CAM, GMIC, STAGES, NetworkSpec
from glam_deploy.precision import Precision, StageRecipes

compile_once = functools.cache(store.compile_cubin)

Installed = dict[str, Library]


Build = Callable[..., Bundle]


@pytest.fixture(autouse=True)
def installed(gpu: Gpu, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """The made-up libraries that this machine has, by flavour; a test may take one away."""
    libraries = {
        "tensorrt": support_tensorrt_runtime.library("tensorrt", gpu, driver),
        "tensorrt-rtx": support_tensorrt_runtime.library("tensorrt-rtx", gpu, driver),
    }

    def find(name: str | None) -> Flavour:
        if name not in libraries:
            raise BackendUnavailable(f"{FLAVOURS[str(name)].title} is not installed. Install with: pip")
        return FLAVOURS[name]

    monkeypatch.setattr(store, "compile_cubin", compile_once)
    monkeypatch.setattr(flavours, "find", find)
    monkeypatch.setattr(flavours, "load", lambda flavour: libraries[flavour.name])
    for precision in ("fp32", "fp16", "bf16"):
        monkeypatch.setitem(OWNERS, precision, replace(OWNERS[precision], one_of=()))
    return libraries


@pytest.fixture
def build(gpu: Gpu, installed: Installed) -> Build:
    """Gives a bundle engines of the flavour tensorrt for this GPU."""

    def make(bundle: Bundle, precision: Precision = "fp16") -> Bundle:
        runtime = installed["tensorrt"]
        installed["tensorrt"] = support_tensorrt.library()  # the half that builds
        request = store.BuildRequest(precision=precision, flavour="tensorrt")
        settled = store.plan(request, identity.machine_of(gpu))
        installed["tensorrt"] = runtime
        return store.build_engines(bundle.folder, settled, lambda *step: None).bundle

    return make


def edit_entry(bundle: Bundle, edit: Callable[[dict[str, Any]], object], number: int = 0) -> Bundle:
    def change(manifest: dict[str, Any]) -> None:
        entry = manifest["engines"][number]
        edit(entry)
        manifest["engines"][number] = with_key(entry)

    edit_manifest(bundle.folder, change)
    return open_bundle(bundle.folder)


def with_key(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry as the build of such engines would have written it."""
    return {**entry, "key": identity.inputs_of(from_json(EngineEntry, entry)).key}


def add_rtx(bundle: Bundle) -> Bundle:
    """The same engines once more, as the other flavour's."""

    def add(manifest: dict[str, Any]) -> None:
        other = {**manifest["engines"][0], "flavour": "tensorrt-rtx", "library": "1.7.1.116"}
        manifest["engines"].append(with_key(other))

    edit_manifest(bundle.folder, add)
    return open_bundle(bundle.folder)


def open_fp16(bundle: Bundle, **options: Any) -> OpenedEngines:
    return open_engines("fp16", bundle, EngineOptions(**options))


def test_what_is_opened(bundle: Bundle, build: Build, gpu: Gpu) -> None:
    built = build(bundle)
    opened = open_fp16(built)
    assert opened.engines.keys() == set(STAGES)
    assert isinstance(opened.kernels, Kernels)
    assert opened.gpu is not None
    found, (entry,) = to_json(opened.identity), built.engines
    assert found == json.loads(json.dumps(found))
    assert found == {
        "name": "fp16",
        "library": "tensorrt 11.4.0.1",
        "device": gpu.name,
        "compute_capability": gpu.compute_capability,
        "driver": gpu.driver,
        "precision": "fp16",
        "flavour": "tensorrt",
        "key": entry.key,
        "sha256": {stage: built.files[entry.stages[stage].file].sha256 for stage in STAGES},
    }


@pytest.mark.parametrize("network", [GMIC, CAM], ids=lambda network: network.name)
def test_what_is_opened_of_another_network(tmp_path: Path, build: Build, network: NetworkSpec) -> None:
    support_tensorrt.fill(tmp_path / "other", network)
    opened = open_fp16(build(open_bundle(tmp_path / "other")))
    assert opened.network is network
    assert tuple(opened.engines) == tuple(opened.identity.sha256) == network.stages


def test_precisions_are_never_exchanged(bundle: Bundle, build: Build) -> None:
    built = build(build(bundle), "fp32")
    for name in ("fp32", "fp16"):
        assert open_engines(name, built, EngineOptions()).identity.precision == StageRecipes.from_json(name)
    with pytest.raises(BackendUnavailable, match=r"has no bf16 engines\. Build them here with: .*--engine bf16"):
        open_engines("bf16", built, EngineOptions())


def runs_everywhere(library: Library) -> None:
    """The made-up GPU has 9.0, which the real TensorRT-RTX does not list."""
    vars(library.trt).pop("ComputeCapability", None)


def test_no_engines(bundle: Bundle, installed: Installed) -> None:
    runs_everywhere(installed["tensorrt-rtx"])
    command = f"glam-deploy build --bundle {bundle.folder} --engine fp16"
    with pytest.raises(BackendUnavailable) as caught:
        open_fp16(bundle)
    assert str(caught.value) == f"{bundle.folder}: has no fp16 engines. Build them here with: {command}"
    with pytest.raises(BackendUnavailable, match=r"no fp16 engines of tensorrt-rtx\..*--flavour tensorrt-rtx"):
        open_fp16(bundle, flavour="tensorrt-rtx")


MISFITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "library": (lambda e: e.update(library="10.13.3.9"), r"built with TensorRT 10\.13\.3\.9, installed is 11\.4\.0\.1"),
    "gpu": (lambda e: e["made_for"].update(gpu="NVIDIA L4"), "built for NVIDIA L4, the GPU is"),
    "capability": (lambda e: e["made_for"].update(compute_capabilities=["8.9"]), r"built for compute capability 8\.9"),
    "graph": (lambda e: e["stages"]["local"].update(graph_sha256="0" * 64), "another local graph than the bundle's"),
    "kernels": (lambda e: e.update(kernels_sha256="0" * 64), "kernels are of another release"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_engines_that_do_not_fit_are_refused_before_the_library_sees_them(
    bundle: Bundle, build: Build, installed: Installed, what: str
) -> None:
    edit, words = MISFITS[what]
    built = edit_entry(build(bundle), edit)
    installed["tensorrt"].trt.Runtime = None
    with pytest.raises(
        BackendUnavailable, match=rf"none of its fp16 engines fits this machine \(.*{words}.*\)\. Build"
    ):
        open_fp16(built)


def test_every_mismatch_is_told(bundle: Bundle, build: Build) -> None:
    built = build(bundle)
    for what in ("library", "gpu"):
        built = edit_entry(built, MISFITS[what][0])
    with pytest.raises(BackendUnavailable, match=r"TensorRT 10\.13\.3\.9.*built for NVIDIA L4"):
        open_fp16(built)


class Listed(IntEnum):
    CURRENT, SM75, SM89, SM120 = range(4)


@pytest.mark.parametrize(("flavour", "installed_too"), [(None, False), ("tensorrt-rtx", True)])
def test_building_again_is_not_advised_with_a_library_that_does_not_run_here(
    bundle: Bundle, installed: Installed, build: Build, flavour: str | None, installed_too: bool
) -> None:
    """The GPU has compute capability 9.0."""
    built = add_rtx(build(bundle))
    built = edit_entry(built, lambda entry: entry.update(flavour="tensorrt-rtx", library="1.7.1.116"))
    vars(installed["tensorrt-rtx"].trt)["ComputeCapability"] = Listed
    if not installed_too:
        del installed["tensorrt"]
    with pytest.raises(BackendUnavailable, match=r"1\.7\.1\.116 does not run on compute capability 9\.0") as caught:
        open_fp16(built, flavour=flavour)
    assert "does not run on GPUs of compute capability 9.0: it runs on 7.5, 8.9, 12.0" in str(caught.value)
    assert "--engine onnx-cuda needs no build" in str(caught.value)
    assert "Build them here" not in str(caught.value)


def test_command_names_the_library_that_runs_here(bundle: Bundle, installed: Installed, build: Build) -> None:
    built = edit_entry(build(bundle), lambda entry: entry.update(flavour="tensorrt-rtx", library="1.7.1.116"))
    vars(installed["tensorrt-rtx"].trt)["ComputeCapability"] = Listed
    with pytest.raises(BackendUnavailable, match=r"Build them here with: .*--engine fp16 --flavour tensorrt$"):
        open_fp16(built)


def test_library_of_the_engines_is_missing(bundle: Bundle, build: Build, installed: Installed) -> None:
    built = build(bundle)
    del installed["tensorrt"]
    with pytest.raises(BackendUnavailable, match="TensorRT is not installed"):
        open_fp16(built)


def test_two_flavours_that_fit_must_be_told_apart(bundle: Bundle, build: Build, installed: Installed) -> None:
    runs_everywhere(installed["tensorrt-rtx"])
    built = add_rtx(build(bundle))
    with pytest.raises(UsageError, match="engines of two flavours fit this machine: choose one with flavour="):
        open_fp16(built)
    for flavour, module in (("tensorrt", "tensorrt 11.4"), ("tensorrt-rtx", "tensorrt_rtx 1.7")):
        found = to_json(open_fp16(built, flavour=flavour).identity)
        assert found["flavour"] == flavour
        assert found["library"].startswith(module)
    del installed["tensorrt"]
    assert open_fp16(built).identity.flavour == "tensorrt-rtx"


def test_of_engines_that_fit_the_newest_is_taken(bundle: Bundle, build: Build) -> None:
    built = build(bundle)

    def add(manifest: dict[str, Any]) -> None:
        (entry,) = manifest["engines"]
        newer = {**entry, "options": {"newer": True}, "built": "2999-01-01T00:00:00+00:00"}
        manifest["engines"].insert(0, with_key(newer))

    edit_manifest(built.folder, add)
    newer, older = open_bundle(built.folder).engines
    assert open_fp16(open_bundle(built.folder)).identity.key == newer.key != older.key


@pytest.mark.parametrize("which", ["local.engine", "cubin"])
def test_changed_files_are_not_run(bundle: Bundle, build: Build, which: str) -> None:
    built = build(bundle)
    (name,) = (name for name in built.files if name.endswith(which))
    content = built.path(name).read_bytes()
    built.path(name).write_bytes(content[::-1])
    with pytest.raises(BundleError, match="was changed"):
        open_fp16(built)


def test_an_engine_that_the_library_refuses(bundle: Bundle, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build(bundle)
    monkeypatch.setattr(Bundle, "read", lambda self, name: b"rubbish")
    with pytest.raises(BackendBuildError, match=r"global engine: TensorRT 11\.4\.0\.1 cannot load it"):
        open_fp16(built)


def test_gpu_that_is_not_there(bundle: Bundle, build: Build) -> None:
    with pytest.raises(BackendUnavailable, match="there is no GPU 7: this machine has 1"):
        open_fp16(build(bundle), device=7)
