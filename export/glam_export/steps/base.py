"""A step of an export, and the draft of a bundle that steps pass on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from glam_deploy.agreement.golden import Engines
from glam_deploy.bundle import Manifest
from glam_deploy.networks import NetworkSpec
from glam_deploy.records import Float32, NetworkInput
from glam_export.checkpoint import Checkpoint

Report = Callable[[str], None]
"""Takes one line about the work that begins now."""


@dataclass(frozen=True, kw_only=True)
class GoldenRun:
    """The reference, and the network input of the golden case on which it was run."""

    reference: Engines
    network_input: NetworkInput


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A bundle in the making."""

    folder: Path
    """Folder of the bundle's files; it gets its final name after the last step."""
    checkpoint: Checkpoint
    manifest: Manifest
    """As far as known; a step that adds a fact to the bundle replaces it."""
    images: Sequence[Float32] = ()
    """Calibration images, float32 [2944, 1920], standardized; empty without graphs in 8 bits."""
    golden: GoldenRun | None = None
    """None before the golden case was run."""


class Step(ABC):
    """One step, made from the options of an export before anything runs. Steps are frozen dataclasses."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What the step does, in one line."""

    def check(self, network: NetworkSpec) -> None:  # noqa: B027  (most steps suit every network)
        """Raises UsageError if the step cannot be done for a network; called before the first step runs."""

    @abstractmethod
    def run(self, draft: Draft, report: Report) -> Draft:
        """Do it. `report` gets details of long work; the title was reported before."""
