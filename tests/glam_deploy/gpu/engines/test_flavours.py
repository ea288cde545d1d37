"""Which of the two libraries is meant, and what is said where it is not there."""

import sys
from enum import IntEnum
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from glam_deploy.errors import BackendUnavailable, UsageError
from glam_deploy.gpu.engines.tensorrt import flavours


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Change it: import names that this Python has."""
    names: set[str] = set()
    spec = ModuleSpec("any", None)
    monkeypatch.setattr(flavours, "find_spec", lambda name: spec if name in names else None)
    return names


def test_none_installed(installed: set[str]) -> None:
    with pytest.raises(BackendUnavailable, match=r"\[tensorrt\].* or .*\[tensorrt-rtx\]"):
        flavours.find(None)


@pytest.mark.parametrize(("module", "name"), [("tensorrt", "tensorrt"), ("tensorrt_rtx", "tensorrt-rtx")])
def test_the_one_that_is_installed(installed: set[str], module: str, name: str) -> None:
    installed.add(module)
    assert flavours.find(None).name == name
    assert flavours.find(name).name == name


def test_both_installed_must_be_named(installed: set[str]) -> None:
    installed.update({"tensorrt", "tensorrt_rtx"})
    with pytest.raises(UsageError, match="TensorRT and TensorRT-RTX are installed: choose one with flavour="):
        flavours.find(None)
    assert flavours.find("tensorrt-rtx").title == "TensorRT-RTX"


def test_named_but_not_installed(installed: set[str]) -> None:
    installed.add("tensorrt")
    with pytest.raises(BackendUnavailable, match=r"TensorRT-RTX is not installed\. .*\[tensorrt-rtx\]"):
        flavours.find("tensorrt-rtx")


def test_unknown_name() -> None:
    with pytest.raises(UsageError, match="'trt' is unknown; choose one of tensorrt, tensorrt-rtx"):
        flavours.find("trt")


@pytest.mark.parametrize("error", [ImportError("libnvinfer.so.11: cannot open"), OSError("libnvinfer.so.11")])
def test_bindings_without_their_libraries(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(name: str) -> ModuleType:
        raise error

    monkeypatch.setattr(flavours, "import_module", fail)
    with pytest.raises(BackendUnavailable, match=r"TensorRT cannot be imported \(libnvinfer\.so\.11.*Install it again"):
        flavours.load(flavours.FLAVOURS["tensorrt"])


def test_targets_of_the_real_tensorrt_rtx() -> None:
    library = flavours.load(flavours.FLAVOURS["tensorrt-rtx"])
    assert {"7.5", "8.0", "8.6", "8.9", "12.0"} <= library.targets.keys()
    assert library.targets["8.9"] == library.trt.ComputeCapability.SM89
    assert str(library) == f"TensorRT-RTX {library.version}"


def test_library_that_builds_for_the_gpu_at_hand_has_no_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ModuleType("tensorrt")
    made.__dict__["__version__"] = "11.4.0.106"
    monkeypatch.setitem(sys.modules, "tensorrt", made)
    library = flavours.load(flavours.FLAVOURS["tensorrt"])
    assert (library.version, library.targets) == ("11.4.0.106", {})


def test_what_a_module_has_does_not_make_a_library_build_ahead_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later TensorRT may have the enum; it builds for the GPU at hand, and times kernels there."""
    made = ModuleType("tensorrt")
    made.__dict__.update(__version__="12.0.0.1", ComputeCapability=IntEnum("ComputeCapability", {"SM89": 1}))
    monkeypatch.setitem(sys.modules, "tensorrt", made)
    library = flavours.load(flavours.FLAVOURS["tensorrt"])
    assert library.targets == {}
    assert library.supports("9.0")


RTX_REFUSES = (
    "IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine cannot run on this GPU, which has "
    "compute capability 9.0. Supported compute capabilities: None. TensorRT-RTX does not support this compute "
    "capability, so the engine cannot be rebuilt for it. In throwUnlessComputeCapSupported at "
    "/_src/runtime/dispatch/runtime.cpp:84)"
)
"""TensorRT-RTX 1.7.1.116 on an H200."""


def test_building_again_is_advised_only_where_it_can_help() -> None:
    library = flavours.load(flavours.FLAVOURS["tensorrt-rtx"])
    assert library.remedy(RTX_REFUSES).startswith("Building again does not help. TensorRT engines run on")
    assert library.remedy("Error Code 2: OutOfMemory").startswith("Free GPU memory")
    assert library.remedy("magicTag differs").startswith("Build it again with `glam-deploy build`.")
