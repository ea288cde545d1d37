"""Errors by which Python, the system's loader and the libraries of engines say that there is too little memory."""

from glam_deploy.errors import BackendUnavailable, GlamError

_SIGNS = (
    "std::bad_alloc",
    "bad allocation",
    "Failed to allocate",
    "Cannot allocate memory",
    "failed to map segment from shared object",
    "can't start new thread",
)
"""In texts of C++ on Linux and on Windows, ONNX Runtime and OpenVINO, the C library, its loader, and Python."""
_FORBIDDEN = "Operation not permitted"
"""In the loader's text where a disk is mounted noexec."""


def too_little_memory(error: BaseException) -> BackendUnavailable | None:
    """The error to raise for an exception that says that there is too little memory; None for others.

    The graph or file that was being read then may be sound.
    """
    text = str(error)
    is_refused = any(sign in text for sign in _SIGNS) and _FORBIDDEN not in text
    if isinstance(error, GlamError) or not (is_refused or isinstance(error, MemoryError)):
        return None
    reason = next((line for line in reversed(text.splitlines()) if line.strip()), type(error).__name__)
    return BackendUnavailable(
        f"this machine has too little memory, or this user may use too little of it ({reason.strip()}): end other "
        "programs, or raise the limits of memory and processes of this user, service or container."
    )
