"""Which engines may give results: the reference itself, and those that the bundle has a passed gate for.

What is held to it is the engine as it was opened: name, library, precision and the hash of what each stage runs.
Another graph, engine file or version of a library is another engine, and needs a gate of its own.
"""

import os
import shlex
from pathlib import Path

from glam_deploy.bundle import Bundle, GateEntry, GateMachine
from glam_deploy.engines import cpu
from glam_deploy.engines.base import EngineIdentity
from glam_deploy.errors import BundleError
from glam_deploy.precision import FP32, StageRecipes

REFERENCES = ("onnx", "torch")
"""Engines that are the reference: held by the export's parity table and by `verify`, in FP32."""

REFERENCE, UNGATED = "reference", "ungated"
"""What stands in a result's provenance in the place of a gate's id."""

AFTER_FAILURE = (
    "The same gate would fail again: choose another --engine (onnx needs no gate), export the checkpoint in another "
    "precision,"
)
"""What to do about a failed gate; a sentence goes on after it."""


def is_reference(identity: EngineIdentity) -> bool:
    """Whether an opened engine needs no gate."""
    return identity.name in REFERENCES and identity.precision == StageRecipes(recipes=FP32)


def newest_gate(bundle: Bundle, identity: EngineIdentity) -> GateEntry | None:
    """The verdict that counts for an engine; None where it was never compared with the reference."""
    wanted = identity.digest
    return next((gate for gate in reversed(bundle.gates) if gate.digest == wanted), None)


def admit(bundle: Bundle, engine: str, identity: EngineIdentity, *, ungated: bool) -> str:
    """The id of the passed gate of an opened engine, or REFERENCE or UNGATED.

    Raises BundleError where the gate is missing or failed, unless `ungated`.
    """
    if is_reference(identity):
        return REFERENCE
    gate = newest_gate(bundle, identity)
    if gate and gate.passed:
        return gate.id
    if ungated:
        return UNGATED
    remedy = AFTER_FAILURE if gate else _first_gate(bundle, engine, identity.flavour)
    raise BundleError(
        f"{bundle.folder}: engine {engine!r} {_why_not(bundle, engine, gate)}. {remedy} or take it all the same with "
        f"--ungated (in Python: ungated=True)."
    )


def gate_command(folder: Path, engine: str, flavour: str | None = None) -> str:
    """The command that makes a verdict, to be pasted."""
    words = ["glam-deploy", "gate", "--bundle", str(folder), "--engine", engine]
    return shlex.join([*words, *(["--flavour", flavour] if flavour else [])])


def _first_gate(bundle: Bundle, engine: str, flavour: str | None) -> str:
    command = gate_command(bundle.folder, engine, flavour)
    return f"It is not validated against the reference. Run: {command};"


def this_machine(device: str) -> GateMachine:
    """What latencies of an engine on `device` depend on, here."""
    return GateMachine(processor=cpu.model(), cores=len(os.sched_getaffinity(0)), device=device)


def _why_not(bundle: Bundle, engine: str, gate: GateEntry | None) -> str:
    if gate:
        return f"failed its gate {gate.id} ({'; '.join(gate.failures)})"
    if any(other.engine == engine for other in bundle.gates):
        return "has no gate as it is now: its graphs, its files or its library are others than those of the gate"
    return "has no gate"
