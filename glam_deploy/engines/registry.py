"""Engine names and who owns them. An owner is imported only when its engine is asked for.

An owner is a module with `open_engines(bundle, options) -> OpenedEngines`, or another function of that form, and maybe
another with the same arguments that finds out, before anything is read or compiled, whether the opener could do it.
"""

import importlib
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec

from glam_deploy.bundle import Bundle
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.errors import BackendUnavailable, UsageError
from glam_deploy.installation import CUDA, install_command
from glam_deploy.precision import PRECISIONS, Precision


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A module that opens engines, what it needs and what it can be told."""

    module: str
    opener: str = "open_engines"
    checker: str | None = None
    """Raises what can be known before anything is read or compiled; None where that is nothing but `packages`."""
    packages: tuple[str, ...]
    """Import names that must be installed."""
    one_of: tuple[str, ...] = ()
    """Import names of which any one must be installed; empty where there is no choice."""
    extras: tuple[str, ...] = ()
    """The extras of glam-deploy of which each installs all that; empty where the plain install has it."""
    options: tuple[str, ...] = ()
    """The fields of EngineOptions that it honours."""
    precision: Precision | None = None
    """What it computes in, where the engine's name says so; None where options do."""
    gpu: bool = False
    """It needs an NVIDIA GPU."""
    summary: str

    @property
    def missing(self) -> tuple[str, ...]:
        """Packages that this machine lacks."""
        absent = tuple(p for p in self.packages if not _installed(p))
        if self.one_of and not any(map(_installed, self.one_of)):
            absent += (" or ".join(self.one_of),)
        return absent


OPENVINO: tuple[tuple[str, str, Precision | None, str], ...] = (
    ("openvino", "engines", None, "fp32"),
    ("openvino-winograd", "winograd_engines", None, "Winograd's form of fp32"),
    ("openvino-bf16", "engines", "bf16", "bf16"),
    ("openvino-int8", "engines", "int8", "8 bits"),
    ("openvino-mixed", "mixed_engines", None, "what the precision search chose"),
)

OWNERS: dict[str, Owner] = {
    "onnx": Owner(
        module="glam_deploy.engines.onnxruntime",
        packages=("onnxruntime",),
        options=("threads", "precision"),
        summary="ONNX Runtime, CPU, fp32",
    ),
    "onnx-winograd": Owner(
        module="glam_deploy.engines.onnxruntime",
        opener="open_winograd_engines",
        checker="plan_winograd_engines",
        packages=("onnxruntime",),
        options=("threads",),
        summary="ONNX Runtime, CPU, Winograd's form of fp32",
    ),
    **{
        name: Owner(
            module="glam_deploy.engines.openvino",
            opener=f"open_{function}",
            checker=f"plan_{function}",
            packages=("openvino",),
            extras=("openvino",),
            options=("threads", "streams", "cache"),
            precision=precision,
            summary=f"OpenVINO, CPU, {words}",
        )
        for name, function, precision, words in OPENVINO
    },
    "torch": Owner(
        module="glam_export.torch_engine",
        checker="require_checkpoint",
        packages=("torch", "safetensors"),
        extras=("export",),
        options=("threads",),
        summary="the PyTorch reference, CPU, fp32",
    ),
    "onnx-cuda": Owner(
        module="glam_deploy.gpu.engines.onnxruntime_cuda",
        packages=("onnxruntime", *CUDA),
        extras=("cuda",),
        options=("device", "precision"),
        gpu=True,
        summary="ONNX Runtime, NVIDIA GPU, fp32",
    ),
    **{
        precision: Owner(
            module="glam_deploy.gpu.engines.tensorrt.open",
            packages=CUDA,
            one_of=("tensorrt", "tensorrt_rtx"),
            extras=("tensorrt", "tensorrt-rtx"),
            options=("device", "flavour"),
            precision=precision,
            gpu=True,
            summary="the bundle's TensorRT engines, NVIDIA GPU",
        )
        for precision in PRECISIONS
    },
}

AUTO = "onnx"
"""What "auto" means where no gate says more (`engines.selection`): the engine that every install has."""

ENGINE_NAMES = ("auto", *OWNERS)


def open_engines(name: str, bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """Open a bundle's three graphs with the engine asked for, never with another.

    Raises UsageError for an unknown name and for options that the engine cannot honour, BackendUnavailable where
    packages are missing, and what the owner raises.
    """
    owner = _owner(name, options)
    opener = getattr(importlib.import_module(owner.module), owner.opener)
    opened: OpenedEngines = opener(bundle, _told(owner, options))
    return opened


def check_engine(name: str, bundle: Bundle, options: EngineOptions) -> None:
    """Raises as `open_engines`, as far as that is known before anything is read or compiled.

    For commands that have work to do before they open an engine.
    """
    owner = _owner(name, options)
    if owner.checker:
        getattr(importlib.import_module(owner.module), owner.checker)(bundle, _told(owner, options))


def require_gpu(index: int) -> None:
    """Raises BackendUnavailable where the driver has no GPU of this index. Imports nothing of the GPU before."""
    importlib.import_module("glam_deploy.gpu.device.gpu").Gpu(index)


def _owner(name: str, options: EngineOptions) -> Owner:
    """Raises UsageError and BackendUnavailable as `open_engines` does by itself."""
    if name not in ENGINE_NAMES:
        raise UsageError(f"engine {name!r} is unknown; choose one of {', '.join(ENGINE_NAMES)}")
    owner = OWNERS[AUTO if name == "auto" else name]
    _require_honoured(name, owner, options)
    if owner.missing:
        raise BackendUnavailable(
            f"engine {name!r} needs {', '.join(owner.missing)}, which this Python lacks. "
            f"{_remedy(owner)} or choose another --engine."
        )
    return owner


def _told(owner: Owner, options: EngineOptions) -> EngineOptions:
    return replace(options, precision=owner.precision or options.precision)


def honours(name: str, options: EngineOptions) -> bool:
    """Whether an engine can be told all of these options. `name`: a key of OWNERS."""
    return not _not_honoured(OWNERS[name], options)


def _require_honoured(name: str, owner: Owner, options: EngineOptions) -> None:
    for field in _not_honoured(owner, options):
        able = ", ".join(key for key, other in OWNERS.items() if field in other.options)
        raise UsageError(
            f"engine {name!r} cannot be told {field} = {getattr(options, field)!r}; leave it out. It is for the "
            f"engines {able}."
        )


def _not_honoured(owner: Owner, options: EngineOptions) -> list[str]:
    given = [field.name for field in fields(options) if getattr(options, field.name) != field.default]
    return [name for name in given if name not in owner.options]


def _remedy(owner: Owner) -> str:
    if not owner.extras:
        return "Install glam-deploy again, with all that it requires,"
    return f"Install with: {' or '.join(map(install_command, owner.extras))},"


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of a dotted name, the parent is missing
        return False
