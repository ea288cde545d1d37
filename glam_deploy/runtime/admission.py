"""Which engines may give results: the reference itself, and those that the bundle has a passed gate for.

What is held to it is the engine as it was opened: name, library, precision and the hash of what each stage runs.
Another graph, engine file or version of a library is another engine, and needs a gate of its own.
"""

import hashlib
import json
import os
import platform
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glam_deploy.bundle import Bundle
from glam_deploy.errors import BundleError

REFERENCES = ("onnx", "torch")
"""Engines that are the reference: held by the export's parity table and by `verify`, in FP32."""

REFERENCE, UNGATED = "reference", "ungated"
"""What stands in a result's provenance in the place of a gate's id."""

_IDENTITY = ("name", "library", "precision", "flavour", "sha256")

AFTER_FAILURE = (
    "The same gate would fail again: choose another --engine (onnx needs no gate), export the checkpoint in another "
    "precision,"
)
"""What to do about a failed gate; a sentence goes on after it."""

Gate = Mapping[str, Any]
"""An item of manifest["gates"]."""


def digest(value: object) -> str:
    """SHA-256 of a JSON-ready value, keys in order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def engine_digest(provenance: Mapping[str, Any]) -> str:
    """What a gate is bound to: the SHA-256 over an opened engine's name, library, precision, flavour and hashes.

    `provenance`: that of `engines.base.OpenedEngines`.
    """
    return digest({key: provenance.get(key) for key in _IDENTITY})


def newest_gate(bundle: Bundle, provenance: Mapping[str, Any]) -> Gate | None:
    """The verdict that counts for an engine; None where it was never held against the reference."""
    wanted = engine_digest(provenance)
    return next((gate for gate in reversed(bundle.gates) if gate["digest"] == wanted), None)


def admit(bundle: Bundle, engine: str, provenance: Mapping[str, Any], *, ungated: bool) -> str:
    """The id of the passed gate of an opened engine, or REFERENCE or UNGATED.

    Raises BundleError where the gate is missing or failed, unless `ungated`.
    """
    if provenance.get("name") in REFERENCES and provenance.get("precision") == "fp32":
        return REFERENCE
    gate = newest_gate(bundle, provenance)
    if gate and gate["passed"]:
        return str(gate["id"])
    if ungated:
        return UNGATED
    raise BundleError(
        f"{bundle.folder}: engine {engine!r} {_why_not(bundle, engine, gate)}. "
        f"{AFTER_FAILURE if gate else _first_gate(bundle, engine, provenance)} or take it all the same with --ungated "
        f"(in Python: ungated=True)."
    )


def gate_command(folder: Path, engine: str, flavour: str | None = None) -> str:
    """The command that makes a verdict, to be pasted."""
    words = ["glam-deploy", "gate", "--bundle", str(folder), "--engine", engine]
    return shlex.join([*words, *(["--flavour", flavour] if flavour else [])])


def _first_gate(bundle: Bundle, engine: str, provenance: Mapping[str, Any]) -> str:
    command = gate_command(bundle.folder, engine, provenance.get("flavour"))
    return f"Nobody knows that it finds the same lesions. Hold it against the reference: {command};"


def this_machine(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What latencies of an engine depend on: a gate's "machine"."""
    return {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "device": str(provenance.get("device"))}


def _why_not(bundle: Bundle, engine: str, gate: Gate | None) -> str:
    if gate:
        return f"failed its gate {gate['id']} ({'; '.join(gate['failures'])})"
    if any(other["engine"] == engine for other in bundle.gates):
        return "has no gate as it is now: its graphs, its files or its library are others than those of the gate"
    return "has no gate"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
