"""The chain of an ensemble: runs the chain of each model and averages the scores."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.engines.base import Chain, Engine, PendingFindings, Stopwatch
from glam_deploy.networks import Stage
from glam_deploy.records import Findings, NetworkInput, PlacedView


class EnsembleChain:
    """Chains of models of one network. Thread-safe if they are.

    Scores are the arithmetic means over the models, as published for GMIC (five models, mean of y_fusion per image and
    class). Maps, patches, attention and flags are those of the first model.
    """

    def __init__(self, chains: Sequence[Chain]) -> None:
        """`chains`: at least one, all with engines of the same kind."""
        self._chains = tuple(chains)
        self.largest_batch, self.in_flight = chains[0].largest_batch, chains[0].in_flight

    @property
    def engines(self) -> Mapping[Stage, Engine]:
        """The engines of the first model."""
        return self._chains[0].engines

    def prepare(self, view: PlacedView | NetworkInput) -> PlacedView | NetworkInput:
        """Do the host's part of the preprocessing, which is the same for all models."""
        return self._chains[0].prepare(view)

    def start(self, views: Sequence[PlacedView | NetworkInput], clock: Stopwatch) -> PendingFindings:
        """Start the run of every model. Raises BackendRunError."""
        # a GPU chain sets its time, so that each model gets a stopwatch of its own
        clocks = [Stopwatch() for _ in self._chains]
        started = [chain.start(views, own) for chain, own in zip(self._chains, clocks, strict=True)]

        @cache
        def wait() -> Findings:
            found = [pending() for pending in started]
            for own in clocks:
                clock.add(own.times_ms)
            return _averaged(found)

        return wait

    def close(self) -> None:
        for chain in self._chains:
            chain.close()


def _averaged(found: Sequence[Findings]) -> Findings:
    first = found[0]
    return replace(
        first,
        y_scale=_mean([one.y_scale for one in found]),
        y_global=_mean([one.y_global for one in found]),
        y_local=_mean([one.y_local for one in found]),
        y_fusion=_mean([one.y_fusion for one in found]),
    )


def _mean(scores: Sequence[NDArray[np.float32] | None]) -> Any:
    """Mean over the models in float64, rounded to float32; None for a score that the network does not have."""
    if any(score is None for score in scores):
        return None
    return np.mean(np.array(scores, np.float64), axis=0).astype(np.float32)
