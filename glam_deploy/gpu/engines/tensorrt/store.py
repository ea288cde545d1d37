"""Building TensorRT engines into a bundle. Engines with the same key are built only once, and stored atomically.

    engines/<flavour>-<precision>-<first 12 digits of the key>/
      {global,local,fusion}.engine    one file per stage of the network
      local.layers.txt                the library's layer report, if it confirms too little of the precision
      kernels.sm_89.cubin             the CUDA kernels, for each compute capability
      timing.cache                    the builder's timing cache, if it has one

New files are written to a temporary folder of the bundle, moved to their folder, and then added to the manifest.
"""

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from glam_deploy.bundle import (
    ENGINES_FOLDER,
    UNFINISHED,
    Bundle,
    EngineEntry,
    KernelEntry,
    MadeFor,
    StageEntry,
    graph_file,
    locked,
    open_bundle,
    replace_engines,
)
from glam_deploy.errors import BundleError, UsageError, unwritable
from glam_deploy.gpu.device.kernel import compile_cubin
from glam_deploy.gpu.engines.tensorrt import builder, flavours, identity
from glam_deploy.gpu.engines.tensorrt.callbacks import Progress
from glam_deploy.gpu.engines.tensorrt.flavours import Library
from glam_deploy.gpu.engines.tensorrt.identity import BuildInputs, Machine
from glam_deploy.gpu.engines.tensorrt.layers import percent
from glam_deploy.gpu.kernels.source import source
from glam_deploy.installation import quoted
from glam_deploy.networks import Stage
from glam_deploy.precision import PRECISIONS, Precision

Report = Callable[[str, str, float], None]
"""Called with the step, the current phase of it, and the number of completed steps (the
stages, then the kernels); also from other threads."""

TIMING_CACHE = "timing.cache"

BF16_SINCE = 8.0
"""Minimum compute capability for BF16."""


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """Which engines to build."""

    precision: Precision
    flavour: str | None = None
    """None means the installed one."""
    compute_capabilities: tuple[str, ...] = ()
    """Targets such as "8.9"; empty means this machine's GPU or, without a GPU, all ahead-of-time targets."""


@dataclass(frozen=True, kw_only=True)
class BuildOutcome:
    """The bundle with the requested engines."""

    bundle: Bundle
    entry: EngineEntry
    new: bool
    """False if the bundle already had engines with the same key."""
    warnings: tuple[str, ...] = ()
    """Warnings of the library, each with its stage."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A build request with its library and targets on this machine."""

    library: Library
    precision: Precision
    made_for: MadeFor
    machine: Machine = field(default_factory=Machine)


def plan(request: BuildRequest, machine: Machine) -> Plan:
    """Choose library and targets. Raises UsageError, BackendUnavailable if this machine cannot build the engines."""
    library = flavours.load(flavours.find(request.flavour))
    made_for = identity.made_for(library, machine, request.compute_capabilities)
    _require_type(request.precision, made_for.compute_capabilities)
    return Plan(library=library, precision=request.precision, made_for=made_for, machine=machine)


def require_kernels(settled: Plan) -> None:
    """Raises BackendUnavailable if this machine cannot compile CUDA kernels; called before the long build."""
    compile_cubin("", architecture=_architecture(settled.made_for.compute_capabilities[0]), name="nothing.cu")


def _architecture(compute_capability: str) -> str:
    return f"sm_{compute_capability.replace('.', '')}"


def _require_type(precision: Precision, compute_capabilities: Iterable[str]) -> None:
    if precision == "bf16" and (older := [c for c in compute_capabilities if float(c) < BF16_SINCE]):
        raise UsageError(
            f"GPUs of compute capability {', '.join(older)} have no BF16, expected {BF16_SINCE} or later; build "
            f"--engine fp16 for them."
        )


def build_engines(folder: Path, settled: Plan, report: Report) -> BuildOutcome:
    """Build engines and store them in the bundle at `folder`, unless it has undamaged engines with the same key.

    Engines of the same flavour and precision for the same GPU are replaced. Raises UsageError if there is no bundle, or
    it lacks the graphs or cannot be written; BundleError if it is damaged or was replaced during the build; and the
    errors of `builder.build_stage` and `compile_cubin`. After an error or Ctrl-C the bundle is unchanged.
    """
    with _locked_bundle(folder, report) as bundle:
        _require_graphs(bundle, settled.precision)
        inputs = identity.build_inputs(
            bundle,
            settled.library,
            settled.precision,
            made_for=settled.made_for,
            options=builder.options(settled.library),
        )
        key = inputs.key
        if existing := next((e for e in bundle.engines if e.key == key and _is_undamaged(bundle, e)), None):
            return BuildOutcome(bundle=bundle, entry=existing, new=False)
        _draft(bundle, "").mkdir(parents=True)
        name = f"{ENGINES_FOLDER}/{inputs.flavour}-{inputs.precision}-{key[:12]}"
        stages, warnings = _build_stages(bundle, settled, name, report)
        kernels = _build_kernels(bundle, settled, name, report)
        cache = f"{name}/{TIMING_CACHE}" if _draft(bundle, TIMING_CACHE).exists() else None
        entry = _entry(inputs, stages=stages, kernels=kernels, timing_cache=cache)
        return BuildOutcome(bundle=_install(bundle, name, entry), entry=entry, new=True, warnings=warnings)


def _require_graphs(bundle: Bundle, precision: Precision) -> None:
    for stage in bundle.network.stages:
        if graph_file(stage, precision) not in bundle.files:
            existing = {p for p in PRECISIONS[1:] if graph_file("global", p) in bundle.files}
            wanted = " ".join(f"--precision {p}" for p in sorted(existing | {precision}))
            raise UsageError(
                f"{bundle.folder} has no {graph_file(stage, precision)}, from which {precision} engines are built. "
                f"Export the checkpoint again: glam-deploy export --weights ckpt.pt {wanted} "
                f"--out {quoted(bundle.folder)}"
            )


# building the files


def _build_stages(
    bundle: Bundle, settled: Plan, name: str, report: Report
) -> tuple[dict[Stage, StageEntry], tuple[str, ...]]:
    stages: dict[Stage, StageEntry] = {}
    warnings: list[str] = []
    cache = _known_timings(bundle, settled)
    for number, stage in enumerate(bundle.network.stages):
        graph = graph_file(stage, settled.precision)
        request = builder.StageRequest(
            stage=stage,
            graph=bundle.read(graph),
            contract=bundle.network.contract(stage, composed=False),
            precision=settled.precision,
            compute_capabilities=settled.made_for.compute_capabilities,
            timing_cache=cache,
            current=settled.machine.current,
        )
        built = builder.build_stage(settled.library, request, _within(report, stage, number))
        _draft(bundle, f"{stage}.engine").write_bytes(built.engine)
        cache = built.timing_cache
        warnings += [f"{stage}: {warning}" for warning in built.warnings]
        layers = f"{stage}.layers.txt" if built.verdict.unconfirmed is not None else None
        if layers:
            _draft(bundle, layers).write_text(built.verdict.unconfirmed or "", "utf-8")
            warnings.append(_unconfirmed(stage, settled, built.share, bundle.folder / name / layers))
        stages[stage] = StageEntry(
            file=f"{name}/{stage}.engine",
            graph=graph,
            graph_sha256=bundle.files[graph].sha256,
            confirmed_share=built.share,
            report=f"{name}/{layers}" if layers else None,
        )
    if cache:
        _draft(bundle, TIMING_CACHE).write_bytes(cache)
    return stages, tuple(warnings)


def _unconfirmed(stage: Stage, settled: Plan, share: float | None, report: Path) -> str:
    return (
        f"{stage}: the layer report of {settled.library} confirms {settled.precision} for only {percent(share or 0)} "
        f"of the multiply-adds of its convolutions, and contradicts too few to reject the engine; in the parsed "
        f"network all of them are {settled.precision}. The engine is stored; check its results with the gate. The "
        f"report is in {report}."
    )


def _within(report: Report, stage: Stage, number: int) -> Progress:
    return lambda phase, done: report(f"{stage} engine", phase, number + done)


def _known_timings(bundle: Bundle, settled: Plan) -> bytes | None:
    """Timing cache of the newest engines of the same library and GPU model, of any precision; None without one."""
    wanted = settled.library.flavour.name, settled.library.version, replace(settled.made_for, driver=None)
    for entry in reversed(bundle.engines):
        if entry.timing_cache and (entry.flavour, entry.library, replace(entry.made_for, driver=None)) == wanted:
            with suppress(BundleError):  # a damaged cache only makes the build slower
                return bundle.read(entry.timing_cache)
    return None


def _build_kernels(bundle: Bundle, settled: Plan, name: str, report: Report) -> dict[str, KernelEntry]:
    capabilities = settled.made_for.compute_capabilities
    kernels = {}
    for number, capability in enumerate(capabilities):
        architecture = _architecture(capability)
        report("CUDA kernels", architecture, len(bundle.network.stages) + number / len(capabilities))
        file = f"kernels.{architecture}.cubin"
        _draft(bundle, file).write_bytes(
            compile_cubin(source(bundle.network), architecture=architecture, name="glam_deploy.cu")
        )
        kernels[architecture] = KernelEntry(file=f"{name}/{file}")
    return kernels


def _entry(
    inputs: BuildInputs,
    *,
    stages: Mapping[Stage, StageEntry],
    kernels: Mapping[str, KernelEntry],
    timing_cache: str | None,
) -> EngineEntry:
    return EngineEntry(
        precision=inputs.precision,
        flavour=inputs.flavour,
        library=inputs.library,
        made_for=inputs.made_for,
        options=inputs.options,
        kernels_sha256=inputs.kernels_sha256,
        key=inputs.key,
        built=datetime.now(UTC).isoformat(timespec="seconds"),
        stages=stages,
        kernels=kernels,
        timing_cache=timing_cache,
    )


def _draft(bundle: Bundle, name: str) -> Path:
    return bundle.folder / UNFINISHED / "new" / name


# storing the files in the bundle


@contextmanager
def _locked_bundle(folder: Path, report: Report) -> Iterator[Bundle]:
    """Context with the bundle, locked for other builds; files of unfinished builds are removed before and after."""
    open_bundle(folder)  # raises before anything is written
    try:
        with locked(folder, lambda: report("waiting for another build of this bundle to end", "", 0)):
            bundle = open_bundle(folder)
            _clear(bundle)
            try:
                yield bundle
            finally:
                with suppress(BundleError, UsageError):  # the bundle was removed: the error of the build is raised
                    _clear(open_bundle(folder))
    except OSError as error:
        raise UsageError(
            f"{folder}: engines cannot be written {unwritable(error)}, or copy the bundle to a writable folder."
        ) from error


_BUILD_FOLDER = re.compile(r".+-[0-9a-f]{12}")


def _clear(bundle: Bundle) -> None:
    """Remove temporary files and engine folders that the manifest does not list, which a killed build has left."""
    shutil.rmtree(bundle.folder / UNFINISHED, ignore_errors=True)
    place = bundle.folder / ENGINES_FOLDER
    named = {Path(name).parent for name in bundle.files}
    for path in place.iterdir() if place.is_dir() else ():
        if _BUILD_FOLDER.fullmatch(path.name) and path.relative_to(bundle.folder) not in named:
            shutil.rmtree(path)
    if place.is_dir() and not any(place.iterdir()):
        place.rmdir()


def _install(bundle: Bundle, name: str, entry: EngineEntry) -> Bundle:
    """Move the built files to their folder, then add them to the manifest. Raises BundleError."""
    if open_bundle(bundle.folder).id != bundle.id:
        raise BundleError(f"{bundle.folder} was replaced while its engines were built. Build them again.")
    drafts = _draft(bundle, "")
    for path in (bundle.folder / ENGINES_FOLDER, drafts, *drafts.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)  # a service under another account runs them
    retired = [e for e in bundle.engines if _is_replaced_by(e, entry)]
    if (bundle.folder / name).exists():  # the same engines, damaged
        (bundle.folder / name).rename(bundle.folder / UNFINISHED / "old")
    drafts.rename(bundle.folder / name)
    return replace_engines(
        bundle,
        [*(e for e in bundle.engines if e not in retired), entry],
        added=entry.files,
        removed=[file for e in retired for file in e.files],
    )


def _is_replaced_by(old: EngineEntry, new: EngineEntry) -> bool:
    same_gpus = replace(old.made_for, driver=None) == replace(new.made_for, driver=None)
    return same_gpus and (old.flavour, old.precision) == (new.flavour, new.precision)


def _is_undamaged(bundle: Bundle, entry: EngineEntry) -> bool:
    try:
        for name in entry.files:
            bundle.check_file(name)
    except BundleError:
        return False
    return True
