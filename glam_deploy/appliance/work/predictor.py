"""The network as the worker uses it: loading the engine, probing it, and loading it again after a failure."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from glam_deploy import __version__
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.work.heartbeat import EngineFacts, Heartbeat, WorkerStatus
from glam_deploy.errors import Caller, GlamError, fault
from glam_deploy.networks import NetworkSpec
from glam_deploy.records import Mammogram, View
from glam_deploy.runtime.result import Pending, Result

log = logging.getLogger(__name__)

FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0


class Predictor(Protocol):
    """A `Pipeline`, or its stand-in in a test."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """As `Pipeline.provenance`: "bundle", "checkpoint", "engine", "gate"."""

    @property
    def network(self) -> NetworkSpec: ...

    @property
    def patches(self) -> int: ...

    @property
    def ahead(self) -> int:
        """As `Pipeline.ahead`."""

    @property
    def in_flight(self) -> int:
        """As `Pipeline.in_flight`."""

    def prepare(self, image: Mammogram, /) -> Any:
        """Preprocessing, which another thread may do while the network computes. Raises InputError."""

    def __call__(self, prepared: Any, /) -> Result:
        """Run the network. Raises InputError for a fault of the image, BackendRunError if the engine failed."""

    def submit_batch(self, prepared: Sequence[Any], /) -> Sequence[Pending]:
        """As `Pipeline.submit_batch`: start views as one run. Raises as a call, and so do the results."""

    def require_batch(self, size: int, /) -> None:
        """As `Pipeline.require_batch`."""


PredictorLoader = Callable[[Config], Predictor]
"""Loads the predictor of a configuration; raises a GlamError if it cannot be used on this machine."""


def load_predictor(config: Config) -> Predictor:
    """The pipeline of the configuration; its engine must have passed a gate, unless `worker.ungated` is set."""
    from glam_deploy.engines.registry import OWNERS
    from glam_deploy.runtime.session import load

    worker = config.worker
    owner = OWNERS.get(worker.engine)
    # an engine that compiles nothing has no option "cache"
    compiles = owner is None or "cache" in owner.options
    pipeline = load(
        worker.bundle,
        engine=worker.engine,
        patches=worker.patches,
        threads=worker.threads,
        device=worker.device,
        ungated=worker.ungated,
        trusted_keys=config.bundle.trusted_keys,
        digest=config.bundle.digest,
        cache=DataFolder(root=config.data).cache if compiles else None,
    )
    pipeline.require_batch(worker.batch)
    return pipeline


def probe(predictor: Predictor) -> None:
    """Run the network on a synthetic image that is known to work. Raises the engine's error if it fails."""
    rows, columns = np.ogrid[:1200, :800]
    breast = ((rows - 600) / 500) ** 2 + (columns / 700) ** 2 < 1
    predictor(
        predictor.prepare(Mammogram(pixels=np.where(breast, 1000 + columns, 0).astype(np.uint16), view=View.L_CC))
    )


class PredictorProvider:
    """Holds the predictor. The worker's state is "ready" while there is one, else "failing"."""

    def __init__(self, config: Config, loader: PredictorLoader, heartbeat: Heartbeat, *, must_probe: bool) -> None:
        """`must_probe`: the last worker ended because its engine failed, so the engine is probed before a job is
        claimed.
        """
        self._config, self._loader, self._heartbeat = config, loader, heartbeat
        self._predictor: Predictor | None = None
        self._retry_s = FIRST_RETRY_S
        self._must_probe = must_probe

    def open(self, stop: threading.Event) -> Predictor | None:
        """The predictor, loaded if there is none; None, after a wait, if loading failed."""
        if self._predictor is None:
            try:
                self._predictor = self._load()
            except Exception as error:  # no job is affected, and the next attempt may succeed
                self._report_failure(error_text(error))
                stop.wait(self._retry_s)
                self._retry_s = min(2 * self._retry_s, LONGEST_RETRY_S)
        return self._predictor

    def reload(self) -> bool:
        """Load the engine again after a failure and probe it; whether it works."""
        self._predictor, self._must_probe = None, True
        try:
            self._predictor = self._load()
        except Exception as error:
            self._report_failure(error_text(error))
            return False
        return True

    def _load(self) -> Predictor:
        predictor = self._loader(self._config)
        if self._must_probe:
            probe(predictor)
        self._must_probe, self._retry_s = False, FIRST_RETRY_S
        facts = _engine_facts(predictor)
        self._heartbeat.set_status(WorkerStatus(state="ready", engine=facts))
        log.info("ready with engine %s, gate %s, bundle %s", facts.engine, facts.gate, facts.bundle)
        return predictor

    def _report_failure(self, reason: str) -> None:
        log.error("the engine cannot be used: %s", reason)
        self._heartbeat.set_status(WorkerStatus(state="failing", reason=reason))


def _engine_facts(predictor: Predictor) -> EngineFacts:
    provenance = predictor.provenance
    engine = provenance["engine"]
    return EngineFacts(
        engine=engine.get("name"),
        precision=engine.get("precision"),
        library=engine.get("library"),
        device=engine.get("device"),
        gate=provenance["gate"],
        bundle=provenance["bundle"]["id"],
        checkpoint=provenance["checkpoint"]["sha256"],
        patches=predictor.patches,
        version=__version__,
    )


def error_text(error: Exception) -> str:
    """Text of an error, without identifiers."""
    return error.message_for(Caller.APPLIANCE) if isinstance(error, GlamError) else fault(error)
