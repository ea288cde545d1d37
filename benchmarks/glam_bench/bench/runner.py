"""A rung that has been opened: one image in, answers and the times of its steps out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from glam_deploy.agreement.answers import Answer, answer
from glam_deploy.engines.base import EngineIdentity, OpenedEngines, Stopwatch
from glam_deploy.records import NetworkInput
from glam_deploy.runtime.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class Run:
    """One image."""

    answer: Answer
    stages_ms: Mapping[str, float]


class Runner(Protocol):
    """From a standardized image to predictions and the fused map at full size, all of it on the host at the end."""

    identity: EngineIdentity
    build_s: float | None

    def __call__(self, view: NetworkInput) -> Run: ...


class PipelineRunner:
    """Engines behind the contract, in the package's own pipeline."""

    build_s: float | None = None

    def __init__(self, opened: OpenedEngines, patches: int) -> None:
        self.identity = opened.identity
        # not by `load`: an engine is measured before it has passed its gate
        self._pipeline = Pipeline(opened, patches=patches, provenance={})

    def __call__(self, view: NetworkInput) -> Run:
        result = self._pipeline(view)
        clock = Stopwatch()
        clock.times_ms |= result.timings_ms
        with clock("fusion"):
            result.saliency()
        return Run(answer=answer(result), stages_ms=clock.times_ms)
