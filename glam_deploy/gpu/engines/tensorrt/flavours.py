"""The two TensorRT libraries, called flavours, imported by name. The only importer of tensorrt and tensorrt_rtx.

Their Python modules are nearly equal. For differences between them or their releases, callers test whether the
attribute exists; versions are never compared, and flags are never written as numbers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from glam_deploy.errors import BackendUnavailable, Remedy, UsageError
from glam_deploy.installation import install_command


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """One of the two libraries, installed or not."""

    name: str
    """Value of --flavour, and name of the extra of glam-deploy that installs it."""
    module: str
    """Name of the Python module."""
    title: str
    """Name in messages."""
    ahead_of_time: bool = False
    """Whether it builds for given compute capabilities, also without a GPU; otherwise it builds for this machine's GPU,
    on which it times kernels. Source: docs.nvidia.com, TensorRT-RTX, "Ahead-of-Time Compilation"; TensorRT, "How
    TensorRT Works". The module's attributes do not show it."""

    @property
    def installed(self) -> bool:
        """Whether the module can be found; it is not imported."""
        return find_spec(self.module) is not None

    @property
    def install(self) -> str:
        """The command that installs it."""
        return install_command(self.name)


FLAVOURS: Mapping[str, Flavour] = MappingProxyType(
    {
        "tensorrt": Flavour(name="tensorrt", module="tensorrt", title="TensorRT"),
        "tensorrt-rtx": Flavour(name="tensorrt-rtx", module="tensorrt_rtx", title="TensorRT-RTX", ahead_of_time=True),
    }
)

INSTEAD = (
    f"TensorRT engines run on compute capability 7.5 and later (glam-deploy build --flavour tensorrt; install it with: "
    f"{FLAVOURS['tensorrt'].install}), and --engine onnx-cuda needs no build."
)
"""Alternatives for a GPU that a library does not support, for messages."""


@dataclass(frozen=True, kw_only=True)
class Library:
    """An imported flavour."""

    flavour: Flavour
    trt: Any
    """The Python module."""

    @property
    def version(self) -> str:
        """Version with all four numbers, because engines of another build of the library cannot be loaded."""
        return str(self.trt.__version__)

    def __str__(self) -> str:
        return f"{self.flavour.title} {self.version}"

    @property
    def targets(self) -> Mapping[str, object]:
        """Compute capability, such as "8.9" -> the library's constant for it, for ahead-of-time builds.

        Empty for a library that builds only for this machine's GPU.
        """
        capabilities = getattr(self.trt, "ComputeCapability", None) if self.flavour.ahead_of_time else None
        members = capabilities.__members__ if capabilities else {}
        return {f"{name[2:-1]}.{name[-1]}": value for name, value in members.items() if name.startswith("SM")}

    def supports(self, capability: str) -> bool:
        """Whether the library can run engines on a GPU of this compute capability.

        A library with ahead-of-time builds runs on the capabilities that it lists and on those after the last one:
        TensorRT-RTX 1.7.1 reports "Supported compute capabilities: 8.0 8.6 8.9 12.0 12.1 >12.0" and rejects 9.0,
        although it builds for it.
        """
        listed = list(map(_order, self.targets))
        return not listed or _order(capability) in listed or _order(capability) > max(listed)

    def unsupported(self, capability: str) -> str:
        """Message that the library does not run on this compute capability, with the alternatives."""
        return (
            f"{self} does not run on GPUs of compute capability {capability}: it runs on {', '.join(self.targets)} and "
            f"later. {INSTEAD}"
        )

    def remedy(self, message: str) -> str:
        """Remedy for an engine of this GPU and library version that the library cannot load, from its error message."""
        if "does not support this compute capability" in message:
            return f"Building again does not help. {INSTEAD}"
        if "OutOfMemory" in message or "out of memory" in message:
            return "Free GPU memory (`nvidia-smi` shows its users), or use fewer slots."
        return f"Build it again with `glam-deploy build`. If that does not help: {INSTEAD}"


def _order(capability: str) -> tuple[int, ...]:
    """Sort key: 12.0 is later than 9.0. A text that is not a compute capability comes first."""
    return tuple(map(int, capability.split("."))) if re.fullmatch(r"\d+\.\d", capability) else ()


def find(name: str | None) -> Flavour:
    """The flavour of this name; with None, the installed one.

    Raises UsageError if the name is unknown, or if it is None and both are installed; BackendUnavailable if the flavour
    is not installed.
    """
    if name is None:
        return _only_one_installed()
    if name not in FLAVOURS:
        raise UsageError(f"flavour {name!r} is unknown; choose one of {', '.join(FLAVOURS)}")
    if not FLAVOURS[name].installed:
        raise BackendUnavailable(f"{FLAVOURS[name].title} is not installed. Install with: {FLAVOURS[name].install}")
    return FLAVOURS[name]


def _only_one_installed() -> Flavour:
    match [flavour for flavour in FLAVOURS.values() if flavour.installed]:
        case [only]:
            return only
        case []:
            commands = " or ".join(flavour.install for flavour in FLAVOURS.values())
            raise BackendUnavailable(f"neither TensorRT nor TensorRT-RTX is installed. Install with: {commands}")
        case several:
            raise UsageError(f"{' and '.join(f.title for f in several)} are installed", Remedy.FLAVOUR)


def load(flavour: Flavour) -> Library:
    """Import a flavour. Raises BackendUnavailable if its package or its native libraries are missing."""
    try:
        return Library(flavour=flavour, trt=import_module(flavour.module))
    except (ImportError, OSError) as error:  # OSError: the native libraries are missing
        raise BackendUnavailable(
            f"{flavour.title} cannot be imported ({error}). Install it again with: {flavour.install}"
        ) from error
