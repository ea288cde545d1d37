"""The machine and the software that a figure was measured with."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from glam_deploy.engines.cpu import features, model
from glam_deploy.installation import IN_CHECKOUT, TREE

PACKAGES = ("glam-deploy", "numpy", "onnxruntime", "openvino", "opencv-python-headless", "torch")

RELEVANT = ("cuda", "cupy", "glam", "numba", "numpy", "nvidia", "onnx", "opencv", "pycuda", "tensorrt", "torch")
"""Beginnings of the names of packages that can change a figure on a GPU."""


def facts() -> dict[str, Any]:
    """Processor, cores, memory, system, versions and time: JSON-ready."""
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": model(),
        "vector_extensions": _vector_extensions(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _first_value("/proc/meminfo", "MemTotal"),
        "load_average": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def relevant_packages() -> dict[str, str]:
    """Versions of all installed packages of RELEVANT."""
    found = {d.metadata["Name"].lower(): d.version for d in distributions()}
    return {name: found[name] for name in sorted(found) if name.startswith(RELEVANT)}


def commit() -> str | None:
    """Commit of the checkout that this copy runs from, with "+" where files have changed; None without a checkout."""
    if not IN_CHECKOUT:  # a repository around an installed copy is not its own
        return None
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(TREE), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _version(package: str) -> str | None:
    """None for a package that is not installed, as glam-deploy itself where it runs from its tree."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _vector_extensions() -> list[str]:
    return sorted(f for f in features() if f.startswith(("avx", "amx", "fma")))


def _first_value(file: str, key: str) -> str | None:
    path = Path(file)
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)
