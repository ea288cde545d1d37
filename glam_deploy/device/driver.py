"""NVIDIA's Python packages and its driver: found or named as missing, and every call checked."""

from functools import cache
from typing import Any

from glam_deploy.errors import BackendRunError, BackendUnavailable

LOST = "The GPU's state is lost to this process: restart it. If it comes again, look at `dmesg` for an Xid message."
OTHER_GPU = "The kernels were compiled for another kind of GPU: build for this one with `glam-deploy build`."
CAPTURE = "A CUDA graph was being recorded, and this cannot be part of one."
REMEDIES = {
    "CUDA_ERROR_NO_DEVICE": "There is no NVIDIA GPU, or CUDA_VISIBLE_DEVICES or the container hides it.",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "libcuda.so.1 is not of the kernel driver's version: restart the machine.",
    "CUDA_ERROR_DEVICE_UNAVAILABLE": "Another process has this GPU for itself (`nvidia-smi` shows which).",
    "CUDA_ERROR_OUT_OF_MEMORY": "Free GPU memory (`nvidia-smi` shows who holds it), or use fewer slots.",
    "CUDA_ERROR_NO_BINARY_FOR_GPU": OTHER_GPU,
    "CUDA_ERROR_UNSUPPORTED_PTX_VERSION": OTHER_GPU,
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
INSTALL = 'Install with: pip install "glam-deploy[tensorrt-rtx]" (or [tensorrt], [cuda]).'
DRIVER = "libcuda.so.1, NVIDIA's driver, is missing. Install it; a container gets it when started with its GPUs."


def cuda_core() -> Any:
    """The package cuda.core. Raises BackendUnavailable."""
    try:
        from cuda import core
    except ModuleNotFoundError as error:
        raise BackendUnavailable(f"the Python package cuda-core is missing ({error}). {INSTALL}") from error
    return core


@cache
def bindings() -> Any:
    """The module cuda.bindings.driver. Raises BackendUnavailable."""
    try:
        from cuda.bindings import driver
    except ModuleNotFoundError as error:
        raise BackendUnavailable(f"the Python package cuda-bindings is missing ({error}). {INSTALL}") from error
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
    return f"{name} failed with {status.name} ({int(status)}). {remedy}"


def _lacking(name: str, error: RuntimeError) -> str:
    if type(error).__name__ == "DynamicLibNotFoundError":
        return DRIVER
    return f"NVIDIA's driver on this machine has no {name} ({error}): install a newer driver."
