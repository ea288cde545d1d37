"""What engines were made from and for, as the manifest keeps it, and whether that fits this machine.

An engine file is code for one library build and one kind of GPU. It is held against the machine before any of it is
handed to the library, whose own check comes too late: a plan file is an executable artefact.
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
from glam_deploy.networks import STAGES, Stage
from glam_deploy.precision import Precision


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The facts of a GPU that decide which engines it runs; all None where there is none."""

    gpu: str | None = None
    """Name, as the driver tells it."""
    compute_capability: str | None = None
    """Such as "8.9"."""
    driver: str | None = None
    lacks: str = ""
    """Where there is no GPU, what is missing."""
    current: Callable[[], AbstractContextManager[None]] = nullcontext
    """Makes the GPU the current one of this thread inside a block: a builder takes that, whatever it is told."""


def machine_of(gpu: Gpu) -> Machine:
    """The facts of an opened GPU."""
    return Machine(gpu=gpu.name, compute_capability=gpu.compute_capability, driver=gpu.driver, current=gpu.current)


def this_machine(device: int | None = None) -> Machine:
    """The GPU of that index, or the first; without facts where there is none that can be used.

    Raises BackendUnavailable where one is named and is not there.
    """
    try:
        return machine_of(Gpu(device or 0))
    except BackendUnavailable as error:
        if device is not None:
            raise
        return Machine(lacks=str(error))


def made_for(library: Library, machine: Machine, asked: Sequence[str]) -> MadeFor:
    """What engines will be built for: the GPU at hand, or what is `asked` for.

    A library that builds ahead of time takes all that it can where there is no GPU and nothing is asked; Turing only
    when named, as the library itself has it. Raises BackendUnavailable and UsageError for what it cannot build, and for
    what it would build and not run.
    """
    if library.flavour.ahead_of_time:
        return MadeFor(compute_capabilities=_targets(library, machine, asked), gpu=None, driver=None)
    if machine.compute_capability is None:
        raise BackendUnavailable(
            f"{library.flavour.title} builds engines on the GPU that runs them, and there is none here: "
            f"{machine.lacks} TensorRT-RTX builds without a GPU: --flavour tensorrt-rtx."
        )
    if set(asked) - {machine.compute_capability}:
        raise UsageError(
            f"{library.flavour.title} builds for the GPU at hand alone, of compute capability "
            f"{machine.compute_capability}: leave --compute-capability out, or build on the other machine."
        )
    return MadeFor(compute_capabilities=(machine.compute_capability,), gpu=machine.gpu, driver=machine.driver)


def _targets(library: Library, machine: Machine, asked: Sequence[str]) -> tuple[str, ...]:
    here = [machine.compute_capability] if machine.compute_capability else []
    wanted = list(asked) or here or [c for c in library.targets if not c.startswith("7.")]
    if unrunnable := [c for c in here if c in wanted and not library.supports(c)]:
        raise BackendUnavailable(library.unsupported(unrunnable[0]))
    if strange := sorted(set(wanted) - set(library.targets) - set(here)):
        raise UsageError(
            f"{library} cannot be told to build for compute capability {', '.join(strange)}; it lists "
            f"{', '.join(library.targets)}, and takes a later one only as that of the GPU at hand. {flavours.INSTEAD}"
        )
    if len(set(wanted)) > 1 and set(wanted) - set(library.targets):
        raise UsageError(
            f"{library} builds for {', '.join(here)}, which it does not list, only when asked for it alone"
        )
    return tuple(sorted(set(wanted), key=lambda capability: [int(part) for part in capability.split(".")]))


@dataclass(frozen=True, kw_only=True)
class BuildInputs:
    """All that determines engines: equal inputs make engines that stand for each other."""

    precision: Precision
    flavour: str
    library: str
    """Version."""
    made_for: MadeFor
    options: Mapping[str, object]
    """Of the builder, JSON-ready."""
    graphs: Mapping[Stage, str]
    """Stage -> SHA-256 of its graph."""
    kernels_sha256: str

    @property
    def key(self) -> str:
        """SHA-256. The driver is left out: it is worth knowing, but engines outlive its updates."""
        content = to_json(self)
        del content["made_for"]["driver"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def build_inputs(
    bundle: Bundle, library: Library, precision: Precision, *, made_for: MadeFor, options: Mapping[str, object]
) -> BuildInputs:
    """What engines of a bundle's graphs in `precision` are made from and for."""
    return BuildInputs(
        precision=precision,
        flavour=library.flavour.name,
        library=library.version,
        made_for=made_for,
        options=options,
        graphs={stage: bundle.files[graph_file(stage, precision)].sha256 for stage in STAGES},
        kernels_sha256=source_sha256(bundle.network),
    )


def entries(bundle: Bundle, precision: Precision, flavour: str | None = None) -> list[EngineEntry]:
    """The bundle's engines of a precision, and of one flavour where it is named."""
    return [e for e in bundle.engines if e.precision == precision and flavour in (None, e.flavour)]


def mismatches(bundle: Bundle, entry: EngineEntry, *, library: Library, machine: Machine) -> list[str]:
    """Why an entry cannot be used on this machine with this library of its flavour; empty where it can.

    TensorRT: the same library build, compute capability and GPU name. TensorRT-RTX: the same library build, and the
    compute capability among those it was built for; nothing is taken as compatible that was not named to the builder.
    Both: the bundle's own graphs, and kernels of this release's source.
    """
    return [*_library_mismatches(entry, library, machine), *_machine_mismatches(entry, machine), *_stale(bundle, entry)]


def _library_mismatches(entry: EngineEntry, library: Library, machine: Machine) -> Iterator[str]:
    if entry.library != library.version:
        yield f"made with {library.flavour.title} {entry.library}, installed is {library.version}"
    if machine.compute_capability and not library.supports(machine.compute_capability):
        yield f"{library} does not run on compute capability {machine.compute_capability}"


def _machine_mismatches(entry: EngineEntry, machine: Machine) -> Iterator[str]:
    made_for = entry.made_for
    if machine.compute_capability not in made_for.compute_capabilities:
        wanted = ", ".join(made_for.compute_capabilities)
        yield f"made for compute capability {wanted}, the GPU has {machine.compute_capability}"
    if made_for.gpu not in (None, machine.gpu):
        yield f"made for {made_for.gpu}, the GPU is {machine.gpu}"


def _stale(bundle: Bundle, entry: EngineEntry) -> Iterator[str]:
    for stage, made in entry.stages.items():
        graph = bundle.files.get(made.graph)
        if graph is None or graph.sha256 != made.graph_sha256:
            yield f"made from another {stage} graph than the bundle's"
    if entry.kernels_sha256 != source_sha256(bundle.network):
        yield "its kernels are of another release of glam-deploy"
