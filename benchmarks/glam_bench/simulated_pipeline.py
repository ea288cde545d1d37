"""A pipeline without a network, for measurements and tests of `archive`: it waits, and scores the brightness."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glam_deploy.archive.actors import EnginePlan
from glam_deploy.networks import GLAM_CONCATENATION
from glam_deploy.records import Facts, Mammogram, Placed, Placement
from glam_deploy.runtime.result import Result


@dataclass(frozen=True, kw_only=True)
class SimulatedPipeline:
    """As `Pipeline`, for `archive.plan.RunPlan.opener`."""

    wait_s: float
    """Duration of a view."""
    checkpoint: str = "0" * 64
    """Stands for the weights: another one makes another partition."""
    ahead: int = 1
    in_flight: int = 1

    @property
    def provenance(self) -> Facts:
        """As of a pipeline with a passed gate."""
        return {
            "bundle": {"id": "1" * 64, "folder": "simulated"},
            "checkpoint": {"sha256": self.checkpoint},
            "engine": {"name": "simulated"},
            "patches": 1,
            "gate": "simulated",
            "versions": {},
        }

    def prepare(self, image: Mammogram) -> Mammogram:
        """The view itself."""
        return image

    def __call__(self, prepared: Mammogram) -> Result:
        """A result whose y_global is the mean and the maximum of the pixels, divided by 65,536."""
        time.sleep(self.wait_s)
        pixels = prepared.pixels
        y = np.array([pixels.mean(dtype=np.float64), pixels.max()], np.float32) / np.float32(65536)
        rows, columns = pixels.shape
        placement = Placement(
            source_shape=(rows, columns),
            crop_window=(0, rows, 0, columns),
            mirrored=prepared.faces_left,
            row_shift=0,
            column_shift=0,
            best_center=(0, 0),
        )
        return Result(
            network=GLAM_CONCATENATION,
            y_global=y,
            y_scale=None,
            y_local=None,
            y_fusion=None,
            attention=None,
            saliency_global=np.zeros((2, *GLAM_CONCATENATION.map_shape), np.float32),
            saliency_patches=None,
            patch_locations=np.zeros((1, 2), np.int64),
            input=Placed(placement=placement, source=prepared.source, view=prepared.view),
            notices=prepared.notices,
            timings_ms={"global": 1e3 * self.wait_s},
            provenance=self.provenance,
        )


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Opener of `SimulatedPipeline` with these settings; can be pickled."""

    wait_s: float = 0.0
    checkpoint: str = "0" * 64

    def __call__(self, folder: Path, plan: EnginePlan) -> Any:
        """The pipeline; needs no bundle."""
        return SimulatedPipeline(wait_s=self.wait_s, checkpoint=self.checkpoint)
