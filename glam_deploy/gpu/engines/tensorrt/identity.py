"""Inputs and targets of TensorRT engines, as recorded in the manifest, and their comparison with this machine.

An engine file contains code for one library build and one GPU model. It is compared with the machine before the library
reads the file; the library's own check is too late, because an engine file can execute code when it is loaded.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from glam_deploy.bundle import Bundle, EngineEntry, MadeFor, graph_file
from glam_deploy.errors import BackendUnavailable, UsageError
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.engines.tensorrt import flavours
from glam_deploy.gpu.engines.tensorrt.flavours import Library
from glam_deploy.gpu.kernels.source import source_sha256
from glam_deploy.json_records import to_json
from glam_deploy.networks import Stage
from glam_deploy.precision import Precision


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Properties of the GPU that determine which engines it can run; None without a GPU."""

    gpu: str | None = None
    """Name from the driver."""
    compute_capability: str | None = None
    """Such as "8.9"."""
    driver: str | None = None
    lacks: str = ""
    """Message about what is missing if there is no usable GPU; else empty."""
    current: Callable[[], AbstractContextManager[None]] = nullcontext
    """Context manager that makes the GPU current in this thread, because a builder always uses the current GPU."""


def machine_of(gpu: Gpu) -> Machine:
    """Properties of an opened GPU."""
    return Machine(gpu=gpu.name, compute_capability=gpu.compute_capability, driver=gpu.driver, current=gpu.current)


def this_machine(device: int | None = None) -> Machine:
    """Properties of the GPU with this index, or of the first GPU; a `Machine` without GPU if none can be used.

    Raises BackendUnavailable if `device` is given and that GPU cannot be used.
    """
    try:
        return machine_of(Gpu(device or 0))
    except BackendUnavailable as error:
        if device is not None:
            raise
        return Machine(lacks=str(error))


def made_for(library: Library, machine: Machine, asked: Sequence[str]) -> MadeFor:
    """Targets of a build: the compute capabilities `asked`, by default that of this machine's GPU.

    Without a GPU and without `asked`, a library with ahead-of-time builds uses all its targets except Turing, which the
    library also builds only on request. Raises BackendUnavailable and UsageError for targets for which the library
    cannot build, and for a GPU for which it can build but on which it cannot run.
    """
    if library.flavour.ahead_of_time:
        return MadeFor(compute_capabilities=_targets(library, machine, asked), gpu=None, driver=None)
    if machine.compute_capability is None:
        raise BackendUnavailable(
            f"{library.flavour.title} builds engines only on the GPU that runs them, and this machine has none: "
            f"{machine.lacks} TensorRT-RTX can build without a GPU: --flavour tensorrt-rtx."
        )
    if set(asked) - {machine.compute_capability}:
        raise UsageError(
            f"{library.flavour.title} builds only for this machine's GPU, of compute capability "
            f"{machine.compute_capability}: remove --compute-capability, or build on the other machine."
        )
    return MadeFor(compute_capabilities=(machine.compute_capability,), gpu=machine.gpu, driver=machine.driver)


def _targets(library: Library, machine: Machine, asked: Sequence[str]) -> tuple[str, ...]:
    here = [machine.compute_capability] if machine.compute_capability else []
    wanted = list(asked) or here or [c for c in library.targets if not c.startswith("7.")]
    if unrunnable := [c for c in here if c in wanted and not library.supports(c)]:
        raise BackendUnavailable(library.unsupported(unrunnable[0]))
    if unknown := sorted(set(wanted) - set(library.targets) - set(here)):
        raise UsageError(
            f"{library} cannot build for compute capability {', '.join(unknown)}, expected one of "
            f"{', '.join(library.targets)}, or a later one if this machine's GPU has it. {flavours.INSTEAD}"
        )
    if len(set(wanted)) > 1 and set(wanted) - set(library.targets):
        raise UsageError(
            f"{library} does not list compute capability {', '.join(here)} and builds for it only without other "
            f"targets: give --compute-capability {', '.join(here)} alone"
        )
    return tuple(sorted(set(wanted), key=lambda capability: [int(part) for part in capability.split(".")]))


@dataclass(frozen=True, kw_only=True)
class BuildInputs:
    """All inputs of a build; engines built from equal inputs are interchangeable."""

    precision: Precision
    flavour: str
    library: str
    """Version of the library."""
    made_for: MadeFor
    options: Mapping[str, object]
    """Options of the builder, as JSON values."""
    graphs: Mapping[Stage, str]
    """Stage -> SHA-256 of its graph."""
    kernels_sha256: str

    @property
    def key(self) -> str:
        """SHA-256 of the inputs without the driver version, because engines stay valid after driver updates."""
        content = to_json(self)
        del content["made_for"]["driver"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def build_inputs(
    bundle: Bundle, library: Library, precision: Precision, *, made_for: MadeFor, options: Mapping[str, object]
) -> BuildInputs:
    """Inputs of a build of a bundle's graphs in `precision`."""
    return BuildInputs(
        precision=precision,
        flavour=library.flavour.name,
        library=library.version,
        made_for=made_for,
        options=options,
        graphs={stage: bundle.files[graph_file(stage, precision)].sha256 for stage in bundle.network.stages},
        kernels_sha256=source_sha256(bundle.network),
    )


def inputs_of(entry: EngineEntry) -> BuildInputs:
    """Inputs of the build that made the engines, as their entry says."""
    return BuildInputs(
        precision=entry.precision,
        flavour=entry.flavour,
        library=entry.library,
        made_for=entry.made_for,
        options=entry.options,
        graphs={stage: made.graph_sha256 for stage, made in entry.stages.items()},
        kernels_sha256=entry.kernels_sha256,
    )


def entries(bundle: Bundle, precision: Precision, flavour: str | None = None) -> list[EngineEntry]:
    """The bundle's engines of a precision and, if `flavour` is given, of this flavour."""
    return [e for e in bundle.engines if e.precision == precision and flavour in (None, e.flavour)]


def mismatches(bundle: Bundle, entry: EngineEntry, *, library: Library, machine: Machine) -> list[str]:
    """Reasons why engines cannot be used on this machine with this library; empty if they can.

    TensorRT engines need the same library build, compute capability and GPU name. TensorRT-RTX engines need the same
    library build, and the GPU's compute capability must be one of the targets of the build; no other capability is
    treated as compatible. Both must be built from the bundle's graphs and from the kernel source of this release, and
    have the key of what their entry says.
    """
    found = [
        *_library_mismatches(entry, library, machine),
        *_machine_mismatches(entry, machine),
        *_stale(bundle, entry),
    ]
    return found or [*_altered(entry)]


def _library_mismatches(entry: EngineEntry, library: Library, machine: Machine) -> Iterator[str]:
    if entry.library != library.version:
        yield f"built with {library.flavour.title} {entry.library}, installed is {library.version}"
    if machine.compute_capability and not library.supports(machine.compute_capability):
        yield f"{library} does not run on compute capability {machine.compute_capability}"


def _machine_mismatches(entry: EngineEntry, machine: Machine) -> Iterator[str]:
    made_for = entry.made_for
    if machine.compute_capability not in made_for.compute_capabilities:
        wanted = ", ".join(made_for.compute_capabilities)
        yield f"built for compute capability {wanted}, the GPU has {machine.compute_capability}"
    if made_for.gpu not in (None, machine.gpu):
        yield f"built for {made_for.gpu}, the GPU is {machine.gpu}"


def _altered(entry: EngineEntry) -> Iterator[str]:
    """An entry that was changed by hand so that it fits this machine has not the key of its content."""
    if entry.key != (expected := inputs_of(entry).key):
        yield f"its entry in the manifest was changed: its key is {entry.key[:12]}, that of its content {expected[:12]}"


def _stale(bundle: Bundle, entry: EngineEntry) -> Iterator[str]:
    for stage, made in entry.stages.items():
        graph = bundle.files.get(made.graph)
        if graph is None or graph.sha256 != made.graph_sha256:
            yield f"built from another {stage} graph than the bundle's"
    if entry.kernels_sha256 != source_sha256(bundle.network):
        yield "its kernels are of another release of glam-deploy"
