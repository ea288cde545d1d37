"""Candidates without a network for the gate, and verdicts made up."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from glam_deploy.bundle import Bundle
from glam_deploy.engines.admission import this_machine
from glam_deploy.engines.base import EngineIdentity, EngineOptions, OpenedEngines
from glam_deploy.engines.registry import OWNERS, Owner
from glam_deploy.json_records import to_json
from glam_deploy.networks import Stage
from support.engines import FakeEngine, fake_engines, fake_identity

IDENTITY = fake_identity("openvino", library="openvino made up", sha256={"global": "11", "local": "22", "fusion": "33"})
"""Of the candidate."""


class Candidate:
    """Takes the place of "openvino"; `wrong` says what is added to an output, `library` is its version."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str = "openvino") -> None:
        self.name = name
        self.wrong: Mapping[str, float] = {}
        self.library = IDENTITY.library
        self.engines: Mapping[Stage, FakeEngine] | None = None
        owner = Owner(module="support.gate", opener=f"open_{name}", packages=(), options=("threads",), summary=name)
        monkeypatch.setitem(OWNERS, name, owner)
        monkeypatch.setitem(globals(), f"open_{name}", self.open)

    def open(self, bundle: Bundle, options: EngineOptions) -> OpenedEngines:
        engines = self.engines or fake_engines(network=bundle.network, wrong=self.wrong)
        return OpenedEngines(engines=dict(engines), identity=self.identity)

    @property
    def identity(self) -> EngineIdentity:
        return replace(IDENTITY, name=self.name, library=self.library)


def gate(identity: EngineIdentity, **changed: object) -> dict[str, Any]:
    """A passed verdict on an engine, as the JSON of a manifest holds it; its id fits what is `changed`."""
    entry = {
        "engine": identity.name,
        "digest": identity.digest,
        "reference": "torch",
        "passed": True,
        "failures": [],
        "limits": {},
        "figures": {},
        "images": 4,
        "images_sha256": "00",
        "patches": 1,
        "when": "2026-01-01T00:00:00+00:00",
        "machine": to_json(this_machine(identity.device)),
        "latency_ms": 100.0,
    }
    entry |= changed
    if entry["passed"] is True and "figures" not in changed:
        times = entry.get("times_onnx")
        entry["figures"] = figures() | {"latency_ms": entry["latency_ms"], "beside_onnx": times and {"times": times}}
    return with_id(entry)


def with_id(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry with the id that docs/gate.md defines."""
    content = {key: value for key, value in entry.items() if key != "id"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {"id": hashlib.sha256(text.encode()).hexdigest()[:12], **content}


def figures() -> dict[str, Any]:
    """Metrics of four images with one lesion that keep the limits."""
    point = {"threshold": 0.5, "images": 4, "median": 1.0, "interval": None, "worst": 0.99}
    patches = {"patches": 4, "same": 3, "tied": 1, "agreement": 1.0, "worst_iou": 0.5, "most_moved_px": 8.0}
    return {
        "images": 4,
        "dice": {"global": {"benign": [point], "malignant": [point]}},
        "states": {"lost": 0, "new": 0, "almost empty": 0},
        "judged": 8,
        "lost_or_new": 0,
        "patches": {**patches, "interval": None},
        "flips": 0,
        "reasons": {},
    }
