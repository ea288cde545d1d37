"""Selection of the engine: the requested one, or for "auto" the fastest one with a passed gate on this machine."""

from dataclasses import dataclass, replace

from glam_deploy.bundle import Bundle, GateEntry
from glam_deploy.bundle.gate_rule import contradiction
from glam_deploy.engines.admission import this_machine
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.engines.cpu import BF16, features
from glam_deploy.engines.registry import AUTO, OWNERS, Owner, check_engine, honours, open_engines, require_gpu
from glam_deploy.errors import BackendError, BackendUnavailable, BundleError, UsageError


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The engine that "auto" has selected."""

    engine: str
    opened: OpenedEngines
    reason: str
    """One line with the engine and the reason for its selection."""


def choose(bundle: Bundle, options: EngineOptions) -> Choice:
    """Open the fastest engine that has a passed gate and runs on this machine; `registry.AUTO` if there is none.

    Engines are compared by `GateEntry.times_onnx`: the engine's time divided by that of "onnx" on the same images,
    measured alternately, because the latencies of two gates were measured under different conditions. Gates without it
    (fewer than four images, earlier releases) come last, in ascending order of latency. An engine is skipped, and the
    reason says why, if it is not faster than "onnx", cannot be opened, does not support the options, has changed since
    its gate, or was timed on a machine with another processor, number of cores or device. `options.cache` is ignored
    for engines that do not compile models.
    """
    skipped = []
    for gate in _fastest_first(bundle):
        found = _open(bundle, gate, options)
        if isinstance(found, str):
            skipped.append(f"{gate.engine} {found}")
            continue
        reason = f"auto selected {gate.engine}: {gate.latency_ms:.0f} ms per image, {_comparison(gate)}"
        return Choice(engine=gate.engine, opened=found, reason=_with_skipped(reason, skipped))
    reason = f"auto selected {AUTO}: no engine has a passed gate that was timed on a machine like this"
    opened = open_engines("auto", bundle, without_unused_cache(AUTO, options))
    return Choice(engine=AUTO, opened=opened, reason=_with_skipped(reason, skipped))


def _fastest_first(bundle: Bundle) -> list[GateEntry]:
    newest = {gate.digest: gate for gate in bundle.gates}
    passed = [gate for gate in bundle.gates if gate.passed and newest[gate.digest].passed]
    return sorted(
        passed, key=lambda gate: (True, gate.latency_ms) if gate.times_onnx is None else (False, gate.times_onnx)
    )


def _comparison(gate: GateEntry) -> str:
    fastest = "the fastest engine with a passed gate on this machine"
    return f"{gate.times_onnx:.2f} times the time of {AUTO}, {fastest}" if gate.times_onnx else fastest


def _open(bundle: Bundle, gate: GateEntry, options: EngineOptions) -> OpenedEngines | str:
    """Open the engine of a gate; returns the reason as text if it cannot be used."""
    if reason := _mismatch(gate, options):
        return reason
    try:
        opened = open_engines(gate.engine, bundle, without_unused_cache(gate.engine, options))
    except (BackendError, BundleError, UsageError) as error:  # UsageError: the flavour must be given
        return f"cannot be opened ({str(error).partition('. ')[0]})"
    if opened.identity.digest != gate.digest:
        return "has changed since its gate"
    return opened if gate.machine == this_machine(opened.identity.device) else "was timed on another device"


def _mismatch(gate: GateEntry, options: EngineOptions) -> str:
    """Reason, known before opening, why the engine of a gate cannot be used; empty if there is none."""
    if gate.engine not in OWNERS:
        return "is unknown to this release"
    if reason := contradiction(gate):
        return f"has a gate that contradicts itself ({reason})"
    if not honours(gate.engine, without_unused_cache(gate.engine, options)):
        return "does not support the options"
    if gate.machine != this_machine(gate.machine.device):
        return "was timed on another kind of machine"
    slower = gate.engine != AUTO and gate.times_onnx is not None and gate.times_onnx >= 1
    return f"took {gate.times_onnx:.2f} times the time of {AUTO}" if slower else ""


def without_unused_cache(engine: str, options: EngineOptions) -> EngineOptions:
    """The options without `cache` for an engine that compiles no models, which would reject it."""
    return options if "cache" in OWNERS[engine].options else replace(options, cache=None)


def _with_skipped(reason: str, skipped: list[str]) -> str:
    return reason + (f"; skipped: {', '.join(skipped)}" if skipped else "")


def open_asked(name: str, bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """As `registry.open_engines`; the message of BackendUnavailable also lists the engines that can run here."""
    try:
        return open_engines(name, bundle, options)
    except BackendUnavailable as error:
        raise BackendUnavailable(f"{error} {could_run()}") from error


def check_asked(name: str, bundle: Bundle, options: EngineOptions) -> None:
    """As `registry.check_engine`, with a check for a GPU; BackendUnavailable also lists the engines that can run."""
    try:
        check_engine(name, bundle, options)
        if name in OWNERS and OWNERS[name].gpu:
            require_gpu(options.device or 0)
    except BackendUnavailable as error:
        raise BackendUnavailable(f"{error} {could_run()}") from error


def could_run() -> str:
    """Sentence with the engines that this machine can run, for messages about missing requirements."""
    names = ", ".join(runnable()) or "none, because packages are missing"
    return f"Engines that can run on this machine, if the bundle has them: {names}."


def runnable() -> list[str]:
    """Names of the engines whose packages and hardware this machine has; the bundle may still lack their files."""
    gpu = _has_gpu()
    return [name for name, owner in OWNERS.items() if not owner.missing and (gpu if owner.gpu else _fits_cpu(owner))]


def _fits_cpu(owner: Owner) -> bool:
    return owner.precision != "bf16" or bool(features() & {*BF16})


def _has_gpu() -> bool:
    try:
        require_gpu(0)
    except BackendUnavailable:
        return False
    return True
