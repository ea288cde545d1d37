"""Candidates without a network for the gate, and verdicts made up."""

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
    """A passed verdict on an engine, as the JSON of a manifest holds it."""
    entry = {
        "id": "0123456789ab",
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
    return entry | changed
