"""Admission of engines: results come from the reference engines and from engines with a passed gate in the bundle.

A gate is valid for one `EngineIdentity.digest`: name, library, precision and the hashes of the files of all stages.
An engine with another graph, engine file or library version needs a new gate.
"""

import shlex
from pathlib import Path

from glam_deploy.bundle import Bundle, GateEntry, GateMachine
from glam_deploy.bundle.gate_rule import contradiction
from glam_deploy.engines import cpu
from glam_deploy.engines.base import EngineIdentity
from glam_deploy.errors import BundleError, Remedy
from glam_deploy.precision import FP32, StageRecipes

REFERENCES = ("onnx", "torch")
"""Engines that are the reference in FP32; the export's parity table and `verify` compare them with PyTorch."""

REFERENCE, UNGATED = "reference", "ungated"
"""Values in a result's provenance instead of the id of a gate."""

AFTER_FAILURE = (
    "The same gate would fail again: choose another engine (onnx needs no gate), export the checkpoint in another "
    "precision,"
)
"""Remedy for a failed gate, in messages; the caller appends the end of the sentence."""


def is_reference(identity: EngineIdentity) -> bool:
    """Whether an opened engine is the reference, which needs no gate."""
    return identity.name in REFERENCES and identity.precision == StageRecipes(recipes=FP32)


def newest_gate(bundle: Bundle, identity: EngineIdentity) -> GateEntry | None:
    """The newest gate of an engine; None if the engine was never compared with the reference."""
    wanted = identity.digest
    return next((gate for gate in reversed(bundle.gates) if gate.digest == wanted), None)


def admit(bundle: Bundle, engine: str, identity: EngineIdentity, *, ungated: bool) -> str:
    """Returns the id of the passed gate of an opened engine, or REFERENCE or UNGATED.

    Raises BundleError if the gate is missing, failed or contradicts itself, unless `ungated`.
    """
    if is_reference(identity):
        return REFERENCE
    gate = newest_gate(bundle, identity)
    if gate and gate.passed and not contradiction(gate):
        return gate.id
    if ungated:
        return UNGATED
    remedy = AFTER_FAILURE
    if not gate or gate.passed:
        command = gate_command(bundle.folder, engine, identity.flavour)
        remedy = f"It is not validated against the reference. Run: {command};"
    raise BundleError(
        f"{bundle.folder}: engine {engine!r} {_rejection(bundle, engine, gate)}. {remedy} or use it without a gate",
        Remedy.UNGATED,
    )


def gate_command(folder: Path, engine: str, flavour: str | None = None) -> str:
    """Shell command that runs the gate of an engine, quoted for the shell."""
    command = ["glam-deploy", "gate", "--bundle", str(folder), "--engine", engine]
    return shlex.join([*command, *(["--flavour", flavour] if flavour else [])])


def this_machine(device: str) -> GateMachine:
    """The current machine, for latencies of an engine on `device`: "cpu" or the name of a GPU."""
    return GateMachine(processor=cpu.model(), cores=cpu.allowed_cores(), device=device)


def _rejection(bundle: Bundle, engine: str, gate: GateEntry | None) -> str:
    """Reason why an engine is not admitted: its gate failed, is outdated or does not exist."""
    if gate and gate.passed:
        return f"has a gate {gate.id} that contradicts itself ({contradiction(gate)})"
    if gate:
        return f"failed its gate {gate.id} ({'; '.join(gate.failures)})"
    if any(other.engine == engine for other in bundle.gates):
        return "has an outdated gate: its graphs, engine files or library have changed since that gate"
    return "has no gate"
