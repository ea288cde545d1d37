"""A chain of the host that computes batches, for tests without a GPU."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from glam_deploy.engines.base import Stopwatch
from glam_deploy.records import ChainInput, Findings
from glam_deploy.runtime.host_chain import HostChain


class Batching(HostChain):
    """Batches as on a GPU: four views are one run, which judges them, and one that cannot be used fails all."""

    largest_batch = 4

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sizes: list[int] = []

    def prepare(self, view: ChainInput) -> ChainInput:  # type: ignore[override]
        return view

    def start(self, views: Sequence[ChainInput], clock: Stopwatch) -> Callable[[], Findings]:
        self.sizes.append(len(views))
        return lambda: joined([self._run(HostChain.prepare(self, view), clock) for view in views])


def joined(found: Sequence[Findings]) -> Findings:
    """One record of several, view after view."""

    def of(name: str) -> Any:
        values = [getattr(one, name) for one in found]
        if name == "inputs":
            return tuple(view for inputs in values for view in inputs)
        return np.concatenate(values) if isinstance(values[0], np.ndarray) else values[0]

    return Findings(**{each.name: of(each.name) for each in fields(Findings)})
