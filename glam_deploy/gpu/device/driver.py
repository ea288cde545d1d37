"""NVIDIA's Python packages and driver: imported or reported as missing; the status of every driver call is checked."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from glam_deploy.errors import BackendRunError, BackendUnavailable
from glam_deploy.installation import install_command

LEAST_CUDA = 13000
"""Minimum result of `cuDriverGetVersion`: the packages are for CUDA 13, whose code needs a driver for CUDA 13."""
LEAST_DRIVER = 580
"""First branch of NVIDIA's driver that supports CUDA 13: CUDA Toolkit 13.0 release notes, "Minimum Required Driver
Version"; docs.nvidia.com, TensorRT 11.4, "Prerequisites"."""
UPDATE = (
    f"Install NVIDIA's driver {LEAST_DRIVER} or later and restart the machine; a container uses the driver of its "
    f"host. CPU engines need no driver."
)
LOST = (
    "This process cannot use the GPU any more: restart it. If the error occurs again, search the output of `dmesg` for "
    "an Xid message."
)
OTHER_GPU = "The kernels were compiled for another GPU architecture: build for this GPU with `glam-deploy build`."
CAPTURE = "This call is not allowed while a CUDA graph is recorded."
REMEDIES = {
    "CUDA_ERROR_NO_DEVICE": "There is no NVIDIA GPU, or CUDA_VISIBLE_DEVICES or the container hides it.",
    "CUDA_ERROR_STUB_LIBRARY": "libcuda.so.1 is the CUDA toolkit's stub: remove its folder from LD_LIBRARY_PATH.",
    "CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER": UPDATE,
    "CUDA_ERROR_SYSTEM_NOT_READY": "Start the service nvidia-fabricmanager, which GPUs with NVSwitch need.",
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE": (
        f"libcuda.so.1 is from CUDA's compatibility package, which this GPU does not support with an older driver. "
        f"{UPDATE}"
    ),
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": (
        "The versions of libcuda.so.1 and of the kernel driver differ: restart the machine."
    ),
    "CUDA_ERROR_DEVICE_UNAVAILABLE": "Another process uses this GPU exclusively (`nvidia-smi` shows which).",
    "CUDA_ERROR_OUT_OF_MEMORY": "Free GPU memory (`nvidia-smi` shows its users), or use fewer slots.",
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
"""Name of a CUDA error -> remedy. Source: CUDA Driver API reference, "CUresult"."""
OF_LIBRARIES = {
    "34": REMEDIES["CUDA_ERROR_STUB_LIBRARY"],
    "35": UPDATE,
    "36": UPDATE,
    "100": REMEDIES["CUDA_ERROR_NO_DEVICE"],
    "802": REMEDIES["CUDA_ERROR_SYSTEM_NOT_READY"],
    "803": REMEDIES["CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"],
    "804": REMEDIES["CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE"],
}
"""Number of a CUDA runtime error -> remedy, for messages of libraries that have only the number: "CUDA initialization
failure with error: 35" is cudaErrorInsufficientDriver. Source: CUDA Runtime API reference, "cudaError_t"."""
DRIVER = (
    "libcuda.so.1, NVIDIA's driver, is missing. Install it; a container must be started with access to the GPUs "
    "(docker run --gpus all)."
)


def install_remedy() -> str:
    """Sentence with the command that installs NVIDIA's Python packages."""
    return f"Install with: {install_command('tensorrt-rtx')} (or the extra tensorrt or cuda instead)."


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
    """Call a function of the CUDA driver API and check its status; returns its result without the status.

    For the status named `unless`, None is returned instead of raising. Raises BackendRunError, and BackendUnavailable
    if the package, the driver or this function of it is missing.
    """
    try:
        status, *values = getattr(bindings(), name)(*arguments)
    except RuntimeError as error:  # the bindings load the driver library and look up the function in the call
        raise BackendUnavailable(_missing_message(name, error)) from error
    if status:  # CUDA_SUCCESS is 0
        if status.name == unless:
            return None
        raise BackendRunError(explain(name, status))
    return values[0] if len(values) == 1 else values


def explain(name: str, status: Any) -> str:
    """Message for a failed call: the function, name and number of the CUDA error, remedy."""
    remedy = REMEDIES.get(status.name, "The driver's log has details (`dmesg`, `nvidia-smi -q`).")
    return f"{name} failed with {status.name} ({int(status)}). {_with_version(remedy)}"


def explain_library(message: str) -> str:
    """Append a remedy to a library's message, if the message has the number of a CUDA error."""
    code = re.search(r"CUDA initialization failure with error: (\d+)", message)
    remedy = OF_LIBRARIES.get(code[1]) if code else None
    return f"{message.rstrip('.')}. {_with_version(remedy)}" if remedy else message


def require_version() -> None:
    """Raises BackendUnavailable if the driver is too old for CUDA 13."""
    supported = call("cuDriverGetVersion")
    if supported < LEAST_CUDA:
        raise BackendUnavailable(
            f"NVIDIA's driver {version()} is too old: it supports CUDA {supported // 1000}."
            f"{supported % 1000 // 10}, and CUDA {LEAST_CUDA // 1000} is needed. {UPDATE}"
        )


def version() -> str:
    """Version of the driver, such as "580.95.05", from NVML or else the kernel module; "unknown" without both."""
    return _nvml_version() or _module_version() or "unknown"


def _nvml_version() -> str:
    """Driver version from NVML; empty on any error, because some containers lack this separate library."""
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


def _with_version(remedy: str) -> str:
    """Prepend the installed driver version to a remedy that asks for another version."""
    return f"This is driver {version()}. {remedy}" if UPDATE in remedy else remedy


def _missing_message(name: str, error: RuntimeError) -> str:
    if type(error).__name__ == "DynamicLibNotFoundError":
        return DRIVER
    return (
        f"NVIDIA's driver on this machine has no function {name} ({error}). Its version is {version()}, expected "
        f"{LEAST_DRIVER} or later: install a newer driver."
    )
