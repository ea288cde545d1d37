"""Selection of an engine on this machine: the one asked for, or for "auto" the fastest with a passed gate."""

from dataclasses import dataclass, replace

from glam_deploy.bundle import Bundle, GateEntry
from glam_deploy.engines.admission import this_machine
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.engines.cpu import BF16, features
from glam_deploy.engines.registry import AUTO, OWNERS, Owner, check_engine, honours, open_engines, require_gpu
from glam_deploy.errors import BackendError, BackendUnavailable, BundleError, UsageError


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An engine that "auto" took."""

    engine: str
    opened: OpenedEngines
    reason: str
    """One line: which and why."""


def choose(bundle: Bundle, options: EngineOptions) -> Choice:
    """The engine of least latency among those with a passed gate that run here; `registry.AUTO` where there is none.

    What is compared are the times that each gate measured of the engine and of "onnx" on the same images in turns, on a
    machine of the same processor, cores and device: times of two gates were taken under conditions of their own.
    Verdicts of fewer than four images, and of earlier releases, lack that; they come last, by their latency. An engine
    that is no faster than "onnx", that cannot be opened, that cannot honour the options, or is another one by now is
    passed over, and the reason says so. One that compiles nothing needs no `options.cache` and is not passed over for
    it.
    """
    passed_over = []
    for gate in _fastest_first(bundle):
        found = _open(bundle, gate, options)
        if isinstance(found, str):
            passed_over.append(f"{gate.engine} {found}")
            continue
        why = f"auto took {gate.engine}: {gate.latency_ms:.0f} ms an image, {_beside(gate)}"
        return Choice(engine=gate.engine, opened=found, reason=_line(why, passed_over))
    why = f"auto took {AUTO}: no engine has a passed gate with times of such a machine"
    opened = open_engines("auto", bundle, _for(AUTO, options))
    return Choice(engine=AUTO, opened=opened, reason=_line(why, passed_over))


def _fastest_first(bundle: Bundle) -> list[GateEntry]:
    newest = {gate.digest: gate for gate in bundle.gates}
    passed = [gate for gate in bundle.gates if gate.passed and newest[gate.digest].passed]
    return sorted(
        passed, key=lambda gate: (True, gate.latency_ms) if gate.times_onnx is None else (False, gate.times_onnx)
    )


def _beside(gate: GateEntry) -> str:
    fastest = "the fastest with a passed gate here"
    return f"{gate.times_onnx:.2f} times the time of {AUTO} beside it, {fastest}" if gate.times_onnx else fastest


def _open(bundle: Bundle, gate: GateEntry, options: EngineOptions) -> OpenedEngines | str:
    """The engine of a gate, or why it is not to be had."""
    if lacks := _lacks(gate, options):
        return lacks
    try:
        opened = open_engines(gate.engine, bundle, _for(gate.engine, options))
    except (BackendError, BundleError, UsageError) as error:  # UsageError: it must be told which flavour
        return f"cannot be opened ({str(error).partition('. ')[0]})"
    if opened.identity.digest != gate.digest:
        return "is another one than its gate was for"
    return opened if gate.machine == this_machine(opened.identity.device) else "was timed on another device"


def _lacks(gate: GateEntry, options: EngineOptions) -> str:
    """What can be told without opening it."""
    if gate.engine not in OWNERS:
        return "is unknown to this release"
    if not honours(gate.engine, _for(gate.engine, options)):
        return "cannot honour the options"
    if gate.machine != this_machine(gate.machine.device):
        return "was timed on another kind of machine"
    slower = gate.engine != AUTO and gate.times_onnx is not None and gate.times_onnx >= 1
    return f"took {gate.times_onnx:.2f} times as long as {AUTO} beside it" if slower else ""


def _for(engine: str, options: EngineOptions) -> EngineOptions:
    return options if "cache" in OWNERS[engine].options else replace(options, cache=None)


def _line(why: str, passed_over: list[str]) -> str:
    return why + (f"; passed over: {', '.join(passed_over)}" if passed_over else "")


def open_asked(name: str, bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """As `registry.open_engines`; BackendUnavailable also says what could run here."""
    try:
        return open_engines(name, bundle, options)
    except BackendUnavailable as error:
        raise BackendUnavailable(f"{error} {could_run()}") from error


def check_asked(name: str, bundle: Bundle, options: EngineOptions) -> None:
    """As `registry.check_engine`, and that there is a GPU where one is needed; says what could run here."""
    try:
        check_engine(name, bundle, options)
        if name in OWNERS and OWNERS[name].gpu:
            require_gpu(options.device or 0)
    except BackendUnavailable as error:
        raise BackendUnavailable(f"{error} {could_run()}") from error


def could_run() -> str:
    """A sentence for whoever lacks something."""
    return f"These could run here, where the bundle has them: {', '.join(runnable())}."


def runnable() -> list[str]:
    """Names of the registry whose packages and hardware are here; the bundle may still lack them."""
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
