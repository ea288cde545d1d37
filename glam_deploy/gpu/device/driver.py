"""NVIDIA's Python packages and its driver: found or named as missing, and every call checked."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from glam_deploy.errors import BackendRunError, BackendUnavailable
from glam_deploy.installation import install_command

LEAST_CUDA = 13000
"""As `cuDriverGetVersion` counts: the packages are of CUDA 13, whose code does not run on a driver of CUDA 12."""
LEAST_DRIVER = 580
"""First branch of NVIDIA's driver that serves CUDA 13: CUDA Toolkit 13.0 release notes, "Minimum Required Driver
Version"; docs.nvidia.com, TensorRT 11.4, "Prerequisites"."""
UPDATE = (
    f"Install NVIDIA's driver {LEAST_DRIVER} or later and restart the machine; a container has the driver of its host. "
    f"The engines of the CPU need none."
)
LOST = "The GPU's state is lost to this process: restart it. If it comes again, look at `dmesg` for an Xid message."
OTHER_GPU = "The kernels were compiled for another kind of GPU: build for this one with `glam-deploy build`."
CAPTURE = "A CUDA graph was being recorded, and this cannot be part of one."
REMEDIES = {
    "CUDA_ERROR_NO_DEVICE": "There is no NVIDIA GPU, or CUDA_VISIBLE_DEVICES or the container hides it.",
    "CUDA_ERROR_STUB_LIBRARY": "libcuda.so.1 is the CUDA toolkit's stub: take its folder out of LD_LIBRARY_PATH.",
    "CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER": UPDATE,
    "CUDA_ERROR_SYSTEM_NOT_READY": "Start the service nvidia-fabricmanager, which GPUs with NVSwitch wait for.",
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE": (
        f"libcuda.so.1 is of CUDA's compatibility package, which this GPU cannot use with an older driver. {UPDATE}"
    ),
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "libcuda.so.1 is not of the kernel driver's version: restart the machine.",
    "CUDA_ERROR_DEVICE_UNAVAILABLE": "Another process has this GPU for itself (`nvidia-smi` shows which).",
    "CUDA_ERROR_OUT_OF_MEMORY": "Free GPU memory (`nvidia-smi` shows who holds it), or use fewer slots.",
    "CUDA_ERROR_NO_BINARY_FOR_GPU": OTHER_GPU,
    "CUDA_ERROR_UNSUPPORTED_PTX_VERSION": UPDATE,
    "CUDA_ERROR_INVALID_IMAGE": "The compiled kernels are damaged: build them again with `glam-deploy build`.",
    "CUDA_ERROR_NOT_FOUND": "The kernels are of another release: build them again with `glam-deploy build`.",
    "CUDA_ERROR_ILLEGAL_ADDRESS": LOST,
    "CUDA_ERROR_LAUNCH_TIMEOUT": LOST,
    "CUDA_ERROR_ASSERT": LOST,
    "CUDA_ERROR_HARDWARE_STACK_ERROR": LOST,
    "CUDA_ERROR_ILLEGAL_INSTRUCTION": LOST,
    "CUDA_ERROR_MISALIGNED_ADDRESS": LOST,
    "CUDA_ERROR_INVALID_ADDRESS_SPACE": LOST,
    "CUDA_ERROR_INVALID_PC": LOST,
    "CUDA_ERROR_LAUNCH_FAILED": LOST,
    "CUDA_ERROR_ECC_UNCORRECTABLE": LOST,
    "CUDA_ERROR_CONTEXT_IS_DESTROYED": LOST,
    "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED": CAPTURE,
    "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED": CAPTURE,
    "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT": CAPTURE,
    "CUDA_ERROR_STREAM_CAPTURE_ISOLATION": CAPTURE,
    "CUDA_ERROR_CAPTURED_EVENT": CAPTURE,
}
"""What to do, by the name of CUDA's error. Source: the driver API's reference, "CUresult"."""
OF_LIBRARIES = {
    "34": REMEDIES["CUDA_ERROR_STUB_LIBRARY"],
    "35": UPDATE,
    "36": UPDATE,
    "100": REMEDIES["CUDA_ERROR_NO_DEVICE"],
    "802": REMEDIES["CUDA_ERROR_SYSTEM_NOT_READY"],
    "803": REMEDIES["CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"],
    "804": REMEDIES["CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE"],
}
"""The same by the number of the runtime API's error, which is all that a library tells: "CUDA initialization failure
with error: 35" is cudaErrorInsufficientDriver. Source: the runtime API's reference, "cudaError_t"."""
DRIVER = "libcuda.so.1, NVIDIA's driver, is missing. Install it; a container gets it when started with its GPUs."


def install_remedy() -> str:
    """A sentence for whoever lacks NVIDIA's Python packages."""
    return f"Install with: {install_command('tensorrt-rtx')} (or the extra tensorrt or cuda in its place)."


def cuda_core() -> Any:
    """The package cuda.core. Raises BackendUnavailable."""
    try:
        from cuda import core
    except ModuleNotFoundError as error:
        raise BackendUnavailable(f"the Python package cuda-core is missing ({error}). {install_remedy()}") from error
    return core


@cache
def bindings() -> Any:
    """The module cuda.bindings.driver. Raises BackendUnavailable."""
    try:
        from cuda.bindings import driver
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"the Python package cuda-bindings is missing ({error}). {install_remedy()}"
        ) from error
    return driver


def call(name: str, *arguments: object, unless: str | None = None) -> Any:
    """What a function of the driver returns, its status taken off.

    `unless` names a status that is an answer and no failure: it gives None. Raises BackendRunError, and
    BackendUnavailable where the package, the driver or this function of it is missing.
    """
    try:
        status, *values = getattr(bindings(), name)(*arguments)
    except RuntimeError as error:  # the bindings load the driver at the first call, and look up each function
        raise BackendUnavailable(_lacking(name, error)) from error
    if status:  # CUDA_SUCCESS is 0
        if status.name == unless:
            return None
        raise BackendRunError(explain(name, status))
    return values[0] if len(values) == 1 else values


def explain(name: str, status: Any) -> str:
    """A failed call in words: the function, CUDA's code and its name, what to do."""
    remedy = REMEDIES.get(status.name, "The driver's log says more (`dmesg`, `nvidia-smi -q`).")
    return f"{name} failed with {status.name} ({int(status)}). {_named(remedy)}"


def explain_library(words: str) -> str:
    """What a library says, and what to do where that is the number of a CUDA error."""
    code = re.search(r"CUDA initialization failure with error: (\d+)", words)
    remedy = OF_LIBRARIES.get(code[1]) if code else None
    return f"{words.rstrip('.')}. {_named(remedy)}" if remedy else words


def require_version() -> None:
    """Raises BackendUnavailable where the driver is too old for CUDA 13, by its version."""
    serves = call("cuDriverGetVersion")
    if serves < LEAST_CUDA:
        raise BackendUnavailable(
            f"NVIDIA's driver {version()} is too old: it serves CUDA {serves // 1000}.{serves % 1000 // 10}, and "
            f"CUDA {LEAST_CUDA // 1000} is needed. {UPDATE}"
        )


def version() -> str:
    """Of the driver, such as "580.95.05": from NVML, else from the kernel module; "unknown" where neither tells."""
    return _nvml_version() or _module_version() or "unknown"


def _nvml_version() -> str:
    """NVML is a library of its own, with many errors of its own, which some containers lack."""
    try:
        from cuda.bindings import nvml

        nvml.init_v2()
        try:
            return str(nvml.system_get_driver_version())
        finally:
            nvml.shutdown()
    except Exception:
        return ""


MODULE = Path("/proc/driver/nvidia/version")


def _module_version() -> str:
    try:
        found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", MODULE.read_text("utf-8"))
    except OSError:
        return ""
    return found[0] if found else ""


def _named(remedy: str) -> str:
    """With the version that is there, where another is the remedy."""
    return f"This is driver {version()}. {remedy}" if UPDATE in remedy else remedy


def _lacking(name: str, error: RuntimeError) -> str:
    if type(error).__name__ == "DynamicLibNotFoundError":
        return DRIVER
    return (
        f"NVIDIA's driver on this machine has no {name} ({error}). It is version {version()}, and {LEAST_DRIVER} or "
        f"later is needed: install a newer driver."
    )
