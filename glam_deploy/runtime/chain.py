"""What the pipeline asks of the stages between a placed view and its findings, wherever they run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from glam_deploy.engines.base import Engine
from glam_deploy.networks import Stage
from glam_deploy.records import Findings, NetworkInput, PlacedView
from glam_deploy.runtime.stopwatch import Stopwatch

Flight = Callable[[], Findings]
"""Waits for what was started and gives its findings, the same at each call; raises BackendRunError."""


class Chain(Protocol):
    """Standardize, global, patches, local, fusion. Safe to use from several threads."""

    @property
    def largest_batch(self) -> int:
        """How many views it can run together; it takes so many, or one."""
        ...

    @property
    def in_flight(self) -> int:
        """How many starts it takes to keep the chain busy; 1 where a start returns when all is computed."""
        ...

    @property
    def engines(self) -> Mapping[Stage, Engine]:
        """The three stages, each to be run alone."""
        ...

    def prepare(self, view: PlacedView | NetworkInput) -> PlacedView | NetworkInput:
        """The host's part of a view, which may be done earlier and in another thread; once is enough."""
        ...

    def start(self, views: Sequence[PlacedView | NetworkInput], clock: Stopwatch) -> Flight:
        """Begin with views, all raw or all standardized, and time the steps on `clock`. Raises BackendRunError."""
        ...

    def close(self) -> None:
        """Start no more, and let go of what can be: runs under way go on to their findings. Called once."""
        ...
