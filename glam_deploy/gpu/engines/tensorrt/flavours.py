"""The two TensorRT libraries, imported by name. The only importer of tensorrt and tensorrt_rtx.

Their Python modules are nearly the same. Where they or their releases differ, callers look for the attribute that they
are about to use; no version is ever compared and no flag is written as a number.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from glam_deploy.errors import BackendUnavailable, UsageError
from glam_deploy.installation import install_command


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """One of the libraries, whether or not it is installed."""

    name: str
    """What --flavour says; also the extra of glam-deploy that installs it."""
    module: str
    title: str
    ahead_of_time: bool = False
    """It builds for compute capabilities that it is told, also without a GPU; else for the GPU at hand, where it times
    kernels. Documented of each library, and no matter of what its module has: docs.nvidia.com, TensorRT-RTX,
    "Ahead-of-Time Compilation"; TensorRT, "How TensorRT Works"."""

    @property
    def installed(self) -> bool:
        """Whether this Python has it; it is not imported for that."""
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
    f"Engines of TensorRT run on compute capability 7.5 and later (glam-deploy build --flavour tensorrt; install it "
    f"with: {FLAVOURS['tensorrt'].install}), and --engine onnx-cuda needs no build."
)
"""What runs on a GPU that a library does not support."""


@dataclass(frozen=True, kw_only=True)
class Library:
    """A flavour, imported."""

    flavour: Flavour
    trt: Any
    """The module."""

    @property
    def version(self) -> str:
        """All four numbers: engines of another build of the library are not loaded."""
        return str(self.trt.__version__)

    def __str__(self) -> str:
        return f"{self.flavour.title} {self.version}"

    @property
    def targets(self) -> Mapping[str, object]:
        """Compute capabilities, such as "8.9", that it can be told to build for ahead of time, and its names for them.

        Empty for a library that builds for the GPU at hand alone.
        """
        capabilities = getattr(self.trt, "ComputeCapability", None) if self.flavour.ahead_of_time else None
        members = capabilities.__members__ if capabilities else {}
        return {f"{name[2:-1]}.{name[-1]}": value for name, value in members.items() if name.startswith("SM")}

    def supports(self, capability: str) -> bool:
        """Whether engines can run on a GPU of this compute capability, as far as the library says.

        One that builds ahead of time runs those that it lists, and later ones than the last: TensorRT-RTX 1.7.1 says
        "Supported compute capabilities: 8.0 8.6 8.9 12.0 12.1 >12.0" and refuses 9.0, though it builds for it.
        """
        listed = list(map(_order, self.targets))
        return not listed or _order(capability) in listed or _order(capability) > max(listed)

    def unsupported(self, capability: str) -> str:
        """Why no engine of it runs on a GPU of this compute capability, which building again does not change, and what
        does run there."""
        return (
            f"{self} does not run on GPUs of compute capability {capability}: it runs on {', '.join(self.targets)} and "
            f"later. {INSTEAD}"
        )

    def remedy(self, words: str) -> str:
        """What to do where the library does not load an engine that was made for this GPU and this version of it."""
        if "does not support this compute capability" in words:
            return f"Building again does not help. {INSTEAD}"
        if "OutOfMemory" in words or "out of memory" in words:
            return "Free GPU memory (`nvidia-smi` shows who holds it), or use fewer slots."
        return f"Build it again with `glam-deploy build`. Where that does not help: {INSTEAD}"


def _order(capability: str) -> tuple[int, ...]:
    """For comparison: 12.0 is later than 9.0. What is no compute capability comes first."""
    return tuple(map(int, capability.split("."))) if re.fullmatch(r"\d+\.\d", capability) else ()


def find(name: str | None) -> Flavour:
    """The flavour asked for, or with None the one that is installed.

    Raises UsageError where the name is unknown or both are installed and none is named, BackendUnavailable where what
    is asked for is not installed.
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
            ways = " or ".join(flavour.install for flavour in FLAVOURS.values())
            raise BackendUnavailable(f"neither TensorRT nor TensorRT-RTX is installed. Install with: {ways}")
        case several:
            raise UsageError(f"{' and '.join(f.title for f in several)} are installed: choose one with --flavour")


def load(flavour: Flavour) -> Library:
    """Import a flavour. Raises BackendUnavailable where its package or its native libraries are missing."""
    try:
        return Library(flavour=flavour, trt=import_module(flavour.module))
    except (ImportError, OSError) as error:  # OSError: the bindings are there, the libraries they load are not
        raise BackendUnavailable(
            f"{flavour.title} cannot be imported ({error}). Install it again with: {flavour.install}"
        ) from error
