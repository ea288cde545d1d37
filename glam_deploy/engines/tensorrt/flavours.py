"""The two TensorRT libraries, imported by name. The only importer of tensorrt and tensorrt_rtx.

Their Python modules are nearly the same. Where they or their releases differ, callers look for the attribute that they
are about to use; no version is ever compared and no flag is written as a number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from glam_deploy.errors import BackendUnavailable, UsageError


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """One of the libraries, whether or not it is installed."""

    name: str
    """What --flavour says; also the extra of glam-deploy that installs it."""
    module: str
    title: str

    @property
    def installed(self) -> bool:
        """Whether this Python has it; it is not imported for that."""
        return find_spec(self.module) is not None

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f'pip install "glam-deploy[{self.name}]"'


FLAVOURS: Mapping[str, Flavour] = MappingProxyType(
    {
        "tensorrt": Flavour(name="tensorrt", module="tensorrt", title="TensorRT"),
        "tensorrt-rtx": Flavour(name="tensorrt-rtx", module="tensorrt_rtx", title="TensorRT-RTX"),
    }
)


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
    def targets(self) -> Mapping[str, Any]:
        """Compute capabilities, such as "8.9", that it can be told to build for ahead of time, and its names for them.

        Empty for a library that builds for the GPU at hand alone.
        """
        capabilities = getattr(self.trt, "ComputeCapability", None)
        members = capabilities.__members__ if capabilities else {}
        return {f"{name[2:-1]}.{name[-1]}": value for name, value in members.items() if name.startswith("SM")}


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
