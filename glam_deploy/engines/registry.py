"""Engine names and who owns them. An owner is imported only when its engine is asked for.

An owner is a module with `open_engines(bundle, options) -> OpenedEngines`.
"""

import importlib
from dataclasses import dataclass
from importlib.util import find_spec

from glam_deploy.bundle import Bundle
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.errors import BackendUnavailable, UsageError


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A module that opens engines, and what it needs."""

    module: str
    packages: tuple[str, ...]
    """Import names that must be installed."""
    extra: str
    """The extra of glam-deploy that installs them; empty for the plain install."""
    summary: str

    @property
    def missing(self) -> tuple[str, ...]:
        """Packages that this machine lacks."""
        return tuple(p for p in self.packages if find_spec(p) is None)


OWNERS = {
    "onnx": Owner(
        module="glam_deploy.engines.onnxruntime",
        packages=("onnxruntime",),
        extra="",
        summary="ONNX Runtime, CPU, fp32",
    ),
    "openvino": Owner(
        module="glam_deploy.engines.openvino",
        packages=("openvino",),
        extra="openvino",
        summary="OpenVINO, CPU, fp32",
    ),
    "torch": Owner(
        module="glam_export.torch_engine",
        packages=("torch", "safetensors"),
        extra="export",
        summary="the PyTorch reference, CPU, fp32",
    ),
}

AUTO = "onnx"
"""What "auto" means: the engine that every install has. It never depends on what happens to be installed."""

ENGINE_NAMES = ("auto", *OWNERS)


def open_engines(name: str, bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """Open a bundle's three graphs with the engine asked for, never with another.

    Raises UsageError for an unknown name, BackendUnavailable where packages are missing, and what the owner raises.
    """
    if name not in ENGINE_NAMES:
        raise UsageError(f"engine {name!r} is unknown; choose one of {', '.join(ENGINE_NAMES)}")
    owner = OWNERS[AUTO if name == "auto" else name]
    if owner.missing:
        extra = f"[{owner.extra}]" if owner.extra else ""
        raise BackendUnavailable(
            f"engine {name!r} needs {', '.join(owner.missing)}, which this Python lacks. "
            f'Install with: pip install "glam-deploy{extra}", or choose another --engine.'
        )
    opened: OpenedEngines = importlib.import_module(owner.module).open_engines(bundle, options)
    return opened
