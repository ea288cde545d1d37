"""What a figure was measured on."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from glam_deploy.engines.cpu import features, model

PACKAGES = ("glam-deploy", "numpy", "onnxruntime", "openvino", "opencv-python-headless", "torch")


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


def _version(package: str) -> str | None:
    """None for what is not installed, as this package itself where it runs from its tree."""
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
