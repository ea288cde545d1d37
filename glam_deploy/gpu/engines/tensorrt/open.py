"""Opens the bundle's TensorRT engines of one precision on this machine's GPU."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from glam_deploy.bundle import Bundle, EngineEntry, build_command
from glam_deploy.engines.base import EngineIdentity, EngineOptions
from glam_deploy.errors import BackendUnavailable, Remedy, UsageError
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.engines.base import GpuEngines, gpu_engines
from glam_deploy.gpu.engines.tensorrt import flavours, identity
from glam_deploy.gpu.engines.tensorrt.engine import TensorRtEngine
from glam_deploy.gpu.engines.tensorrt.flavours import FLAVOURS, Library
from glam_deploy.gpu.engines.tensorrt.identity import Machine
from glam_deploy.precision import Recipe, StageRecipes


def open_engines(bundle: Bundle, options: EngineOptions) -> GpuEngines:
    """Open the bundle's engines of `options.precision` and, if it is given, of `options.flavour`.

    Raises BackendUnavailable if the GPU or a library is missing, or if the bundle has no engines for them; the message
    has each mismatch, found before the library reads an engine file, and the command that builds engines. Raises
    UsageError if engines of both flavours fit, BundleError if a file was changed, BackendBuildError if the library
    cannot load an engine.
    """
    gpu = Gpu(options.device or 0)
    entry, library = _choose(bundle, options, identity.machine_of(gpu))
    engines = {
        stage: TensorRtEngine(library, bundle.read(entry.stages[stage].file), stage, network=bundle.network, gpu=gpu)
        for stage in bundle.network.stages
    }
    cubin = bundle.read(entry.kernels[gpu.architecture].file)
    return gpu_engines(bundle, engines, _identity(bundle, entry, library), gpu=gpu, cubin=cubin)


def _choose(bundle: Bundle, options: EngineOptions, machine: Machine) -> tuple[EngineEntry, Library]:
    """The newest matching engines. Raises UsageError if engines of two flavours match, BackendUnavailable if none."""
    fitting: list[tuple[EngineEntry, Library]] = []
    reasons: list[str] = []
    for entry in identity.entries(bundle, options.precision, options.flavour):
        try:
            library = flavours.load(flavours.find(entry.flavour))
        except BackendUnavailable as error:
            reasons.append(str(error))
            continue
        misfits = identity.mismatches(bundle, entry, library=library, machine=machine)
        if misfits:
            reasons.append(f"{library.flavour.title} engines: {', '.join(misfits)}")
        else:
            fitting.append((entry, library))
    if len({entry.flavour for entry, _ in fitting}) > 1:
        raise UsageError(
            f"{bundle.folder}: {options.precision} engines of two flavours fit this machine",
            Remedy.FLAVOUR,
        )
    if not fitting:
        raise BackendUnavailable(_none_fits(bundle, options, reasons, machine))
    return max(fitting, key=lambda pair: pair[0].built)


def _none_fits(bundle: Bundle, options: EngineOptions, reasons: Sequence[str], machine: Machine) -> str:
    """Message with the mismatches of every entry and the remedy."""
    kind = f"{options.precision} engines" + (f" of {options.flavour}" if options.flavour else "")
    fault = f"none of its {kind} fits this machine ({'; '.join(reasons)})" if reasons else f"has no {kind}"
    return f"{bundle.folder}: {fault}. {_remedy(bundle, options, machine)}"


def _remedy(bundle: Bundle, options: EngineOptions, machine: Machine) -> str:
    """Build command with a library that runs on this GPU; the alternatives if no installed library does."""
    capability = machine.compute_capability or ""
    libraries = list(_installed([options.flavour] if options.flavour else FLAVOURS))
    running = [library for library in libraries if library.supports(capability)]
    if libraries and not running:
        return libraries[0].unsupported(capability)
    flavour = running[0].flavour.name if len(running) < len(libraries) else options.flavour
    command = build_command(bundle.folder, options.precision, flavour, device=options.device)
    return f"Build them here with: {command}"


def _installed(names: Iterable[str]) -> Iterator[Library]:
    for name in names:
        with suppress(BackendUnavailable):
            yield flavours.load(flavours.find(name))


def _identity(bundle: Bundle, entry: EngineEntry, library: Library) -> EngineIdentity:
    return EngineIdentity(
        name=entry.precision,
        library=f"{library.flavour.module} {library.version}",
        device="cpu",
        precision=StageRecipes(recipes=Recipe(weights=entry.precision)),
        flavour=entry.flavour,
        key=entry.key,
        sha256={stage: bundle.files[entry.stages[stage].file].sha256 for stage in bundle.network.stages},
    )
