"""What the worker needs of the network."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.networks import NetworkSpec
from glam_deploy.records import Mammogram, View
from glam_deploy.runtime.result import Result


class Predictor(Protocol):
    """A `Pipeline`, or what stands for one in a test."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """As of `Pipeline`: "bundle", "checkpoint", "engine", "gate"."""

    @property
    def network(self) -> NetworkSpec: ...

    @property
    def patches(self) -> int: ...

    def prepare(self, image: Mammogram, /) -> Any:
        """The part before the network, which another thread may do meanwhile. Raises InputError."""

    def __call__(self, prepared: Any, /) -> Result:
        """Raises InputError where it is the image's fault, BackendRunError where the engine failed."""


PredictorOf = Callable[[Config], Predictor]
"""Raises a GlamError where there is no such predictor on this machine."""


def load_predictor(config: Config) -> Predictor:
    """The pipeline that the configuration asks for, gated unless it says otherwise."""
    from glam_deploy.engines.registry import OWNERS
    from glam_deploy.runtime.session import load

    wanted = config.worker
    owner = OWNERS.get(wanted.engine)
    # an engine that compiles nothing refuses to be told where to keep it
    compiles = owner is None or "cache" in owner.options
    return load(
        wanted.bundle,
        engine=wanted.engine,
        patches=wanted.patches,
        threads=wanted.threads,
        device=wanted.device,
        ungated=wanted.ungated,
        cache=DataFolder(root=config.data).cache if compiles else None,
    )


def probe(predictor: Predictor) -> None:
    """Run the network on an image that is known to be good. Raises what the engine does, where it is to blame."""
    rows, columns = np.ogrid[:1200, :800]
    breast = ((rows - 600) / 500) ** 2 + (columns / 700) ** 2 < 1
    predictor(
        predictor.prepare(Mammogram(pixels=np.where(breast, 1000 + columns, 0).astype(np.uint16), view=View.L_CC))
    )
