"""Registry of engines: name -> `Owner`, the module that opens the engine. It is imported when the engine is opened.

An owner module has an opener, `open_engines(bundle, options) -> OpenedEngines` or a function with the same signature.
It may have a checker with the same arguments, which raises the errors that are known before files are read or models
compiled.
"""

import importlib
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path

from glam_deploy.bundle import Bundle
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.errors import BackendUnavailable, UsageError
from glam_deploy.installation import CUDA, install_command, require_linux
from glam_deploy.precision import PRECISIONS, Precision


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The module that opens an engine, with its requirements and supported options."""

    module: str
    opener: str = "open_engines"
    """Name of the function that opens the engine."""
    checker: str | None = None
    """Name of the function that checks the requirements before opening; None if `packages` is the only requirement."""
    packages: tuple[str, ...]
    """Import names of required packages."""
    one_of: tuple[str, ...] = ()
    """Import names of packages of which one is required; empty if there are none."""
    extras: tuple[str, ...] = ()
    """Extras of glam-deploy, each of which installs all these packages; empty if no extra is needed."""
    options: tuple[str, ...] = ()
    """Names of the supported fields of EngineOptions."""
    precision: Precision | None = None
    """Precision, if the engine's name determines it; None if `EngineOptions.precision` does."""
    gpu: bool = False
    """Whether it needs an NVIDIA GPU."""
    summary: str
    """Library, device and precision, for lists of engines."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Required packages that are not installed."""
        absent = tuple(p for p in self.packages if not _installed(p))
        if self.one_of and not any(map(_installed, self.one_of)):
            absent += (" or ".join(self.one_of),)
        return absent


OPENVINO: tuple[tuple[str, str, Precision | None, str], ...] = (
    ("openvino", "engines", None, "fp32"),
    ("openvino-winograd", "winograd_engines", None, "Winograd convolutions in fp32"),
    ("openvino-bf16", "engines", "bf16", "bf16"),
    ("openvino-int8", "engines", "int8", "int8"),
    ("openvino-mixed", "mixed_engines", None, "the precisions selected by the precision search"),
)
"""Engine name, suffix of opener and checker, precision as in `Owner`, and precision in the summary."""

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
        summary="ONNX Runtime, CPU, Winograd convolutions in fp32",
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
            summary=f"OpenVINO, CPU, {numbers}",
        )
        for name, function, precision, numbers in OPENVINO
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
    "onnx-cuda-fp16": Owner(
        module="glam_deploy.gpu.engines.onnxruntime_cuda",
        opener="open_half_engines",
        checker="plan_half_engines",
        packages=("onnxruntime", *CUDA),
        extras=("cuda",),
        options=("device",),
        precision="fp16",
        gpu=True,
        summary="ONNX Runtime, NVIDIA GPU, fp16",
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
"""Engine of "auto" if the bundle has no passed gate (`engines.selection`); every installation has it."""

ENGINE_NAMES = ("auto", *OWNERS)


def open_engines(name: str, bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """Open all stages of a bundle with the requested engine; there is no fallback to another one.

    Raises UsageError for an unknown name and for unsupported options, BackendUnavailable if packages are missing, and
    the errors of the owner's opener.
    """
    owner = _owner(name, options)
    opener = getattr(importlib.import_module(owner.module), owner.opener)
    opened: OpenedEngines = opener(bundle, _with_precision(owner, options))
    return opened


def check_engine(name: str, bundle: Bundle, options: EngineOptions) -> None:
    """Raises the errors of `open_engines` that are known before files are read or models compiled.

    For commands that do other work before they open an engine.
    """
    owner = _owner(name, options)
    if owner.checker:
        getattr(importlib.import_module(owner.module), owner.checker)(bundle, _with_precision(owner, options))


def require_gpu(index: int) -> None:
    """Raises BackendUnavailable if the driver has no GPU with this index. GPU packages are imported only here."""
    importlib.import_module("glam_deploy.gpu.device.gpu").Gpu(index)


def count_gpus() -> int:
    """Number of GPUs of this machine. Raises BackendUnavailable if there is none."""
    found: int = importlib.import_module("glam_deploy.gpu.device.gpu").gpu_count()
    return found


def _owner(name: str, options: EngineOptions) -> Owner:
    """The owner of an engine, after checks of name, options and packages. Raises UsageError, BackendUnavailable."""
    if name not in ENGINE_NAMES:
        raise UsageError(f"engine {name!r} is unknown; choose one of {', '.join(ENGINE_NAMES)}")
    owner = OWNERS[AUTO if name == "auto" else name]
    _require_honoured(name, owner, options)
    if owner.gpu:
        require_linux(f"engine {name!r}", "choose an engine of the CPU, such as onnx")
    if owner.missing:
        raise BackendUnavailable(
            f"engine {name!r} needs {', '.join(owner.missing)}, which this Python lacks. "
            f"{_remedy(owner)} or choose another engine."
        )
    return owner


def _with_precision(owner: Owner, options: EngineOptions) -> EngineOptions:
    return replace(options, precision=owner.precision or options.precision)


def honours(name: str, options: EngineOptions) -> bool:
    """Whether an engine supports all options that are set. `name`: a key of OWNERS."""
    return not _not_honoured(OWNERS[name], options)


def _require_honoured(name: str, owner: Owner, options: EngineOptions) -> None:
    for field in _not_honoured(owner, options):
        able = ", ".join(key for key, other in OWNERS.items() if field in other.options)
        value = getattr(options, field)
        shown = value if isinstance(value, Path) else repr(value)
        raise UsageError(
            f"engine {name!r} does not support the option {field} = {shown}. Remove it; these engines "
            f"support it: {able}."
        )


def _not_honoured(owner: Owner, options: EngineOptions) -> list[str]:
    given = [field.name for field in fields(options) if getattr(options, field.name) != field.default]
    return [name for name in given if name not in owner.options]


def _remedy(owner: Owner) -> str:
    if not owner.extras:
        return "Install glam-deploy again with all its requirements,"
    return f"Install with: {' or '.join(map(install_command, owner.extras))},"


def _installed(package: str) -> bool:
    try:
        spec = find_spec(package)
        # a folder without modules, as an uninstallation may leave it, has a specification without origin
        return spec is not None and spec.origin is not None
    except ModuleNotFoundError:  # the parent of a dotted name is missing
        return False
