"""The engine in the worker's hands: opened when needed, reloaded when it fails, reported for as long as it does."""

import logging
import threading
from collections.abc import Mapping
from typing import Any

from glam_deploy import __version__
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.work.heartbeat import Heartbeat
from glam_deploy.appliance.work.predictor import Predictor, PredictorOf, probe
from glam_deploy.errors import Caller, GlamError, fault

log = logging.getLogger(__name__)

FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0


class Network:
    """Holds the predictor. The heartbeat says "ready" while there is one, "failing" while there is none."""

    def __init__(self, config: Config, predictor_of: PredictorOf, heartbeat: Heartbeat, *, suspect: bool) -> None:
        """`suspect`: the last worker ended because its engine failed, so this one is tried before it gets a job."""
        self._config, self._predictor_of, self._heartbeat = config, predictor_of, heartbeat
        self._predictor: Predictor | None = None
        self._wait = FIRST_RETRY_S
        self._suspect = suspect

    def open(self, stop: threading.Event) -> Predictor | None:
        """The predictor, opened anew where there is none; None where that failed, after a wait."""
        if self._predictor is None:
            try:
                self._predictor = self._opened()
            except Exception as error:  # no job is lost by it, and the next attempt may succeed
                self._tell_failing(words(error))
                stop.wait(self._wait)
                self._wait = min(2 * self._wait, LONGEST_RETRY_S)
        return self._predictor

    def reload(self) -> bool:
        """After a failure: open the engine anew; whether it now works on an image that is known to be good."""
        self._predictor, self._suspect = None, True
        try:
            self._predictor = self._opened()
        except Exception as error:
            self._tell_failing(words(error))
            return False
        return True

    def _opened(self) -> Predictor:
        predictor = self._predictor_of(self._config)
        if self._suspect:
            probe(predictor)
        self._suspect, self._wait = False, FIRST_RETRY_S
        self._heartbeat.say("ready", facts(predictor))
        log.info("ready with engine %(engine)s, gate %(gate)s, bundle %(bundle)s", facts(predictor))
        return predictor

    def _tell_failing(self, reason: str) -> None:
        log.error("no engine: %s", reason)
        self._heartbeat.say("failing", {"reason": reason})


def facts(predictor: Predictor) -> Mapping[str, Any]:
    """What the status page says of the engine in use; JSON-ready."""
    known = predictor.provenance
    engine = known["engine"]
    return {
        "engine": engine.get("name"),
        "precision": engine.get("precision"),
        "library": engine.get("library"),
        "device": engine.get("device"),
        "gate": known["gate"],
        "bundle": known["bundle"]["id"],
        "checkpoint": known["checkpoint"]["sha256"],
        "patches": predictor.patches,
        "version": __version__,
    }


def words(error: Exception) -> str:
    """What went wrong, in words that hold no identifier."""
    return error.told(Caller.APPLIANCE) if isinstance(error, GlamError) else fault(error)
