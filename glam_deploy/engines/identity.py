"""What an opened engine is: the fields by which a gate knows it again, and what a result's provenance says of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from glam_deploy.json_records import json_sha256
from glam_deploy.networks import Stage
from glam_deploy.precision import Form, StageRecipes


@dataclass(frozen=True, kw_only=True)
class EngineIdentity:
    """An engine as it was opened. In a result's provenance it is the JSON object "engine", keys named as the fields."""

    name: str
    """Its name in `engines.registry`, such as "openvino-bf16"."""
    library: str
    """Name and version of the library that computes."""
    device: str
    """"cpu", or the name of the GPU."""
    precision: StageRecipes
    sha256: Mapping[Stage, str]
    """Stage -> SHA-256 of the graph, engine file or weights that it runs; empty where they come from no bundle."""
    flavour: str | None = None
    """Of TensorRT engines: "tensorrt" or "tensorrt-rtx"."""
    key: str | None = None
    """Of TensorRT engines: the bundle's `EngineEntry.key`."""
    compute_capability: str | None = None
    """Of the GPU, such as "8.9"."""
    driver: str | None = None
    """Version of the GPU's driver."""

    @property
    def digest(self) -> str:
        """SHA-256 over name, library, precision, flavour and hashes: what a gate's verdict is bound to.

        Another graph, engine file or version of a library is another engine. The device is none of it: engines may
        run on every GPU of a kind, and verdicts name their machine.
        """
        return json_sha256(
            {
                "name": self.name,
                "library": self.library,
                "precision": str(self.precision),
                "flavour": self.flavour,
                "sha256": dict(self.sha256),
            }
        )

    def form(self, stage: Stage) -> Form:
        """How the convolutions of a stage are computed. The engines *-winograd tell it by their name, not the recipe:
        only the local graph comes in Winograd's form."""
        named = stage == "local" and self.name.endswith("-winograd")
        return "winograd" if named else self.precision[stage].form
