"""The two kinds of processes that a run has on each node: readers, and predictors with a pipeline.

Ray starts both (`station.py`); neither imports Ray.
"""

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from glam_deploy import __version__
from glam_deploy.archive.decoder import open_decoder
from glam_deploy.archive.objects import DICOM, NO_DICOM, ObjectPlan, write_objects
from glam_deploy.archive.reader import DecodedView, EntryReader, Fingerprint
from glam_deploy.archive.rows import Finding, finding_of, finding_of_error
from glam_deploy.archive.shipping import ShippedBundle
from glam_deploy.archive.sources.base import Entry
from glam_deploy.bundle import Trust
from glam_deploy.bundle.folder import ANY
from glam_deploy.engines.base import EngineOptions
from glam_deploy.errors import Caller, GlamError, UsageError
from glam_deploy.installation import require
from glam_deploy.records import Facts, Mammogram
from glam_deploy.runtime.result import Result


class ViewPipeline(Protocol):
    """A `Pipeline`, or its stand-in."""

    @property
    def provenance(self) -> Facts: ...

    @property
    def ahead(self) -> int: ...

    @property
    def in_flight(self) -> int: ...

    def prepare(self, image: Mammogram, /) -> Any: ...

    def __call__(self, prepared: Any, /) -> Result: ...


@dataclass(frozen=True, kw_only=True)
class EnginePlan:
    """Which engine runs the bundle, and how."""

    engine: str = "auto"
    patches: int | None = None
    threads: int | None = None
    flavour: str | None = None
    ungated: bool = False
    trust: Trust = ANY
    """What the bundle must prove on each node."""


OpenPipeline = Callable[[Path, EnginePlan], ViewPipeline]
"""Opens a bundle's folder."""


def open_pipeline(folder: Path, plan: EnginePlan) -> ViewPipeline:
    """The pipeline of a bundle or an ensemble. Raises as `session.load`."""
    from glam_deploy.bundle import open_members
    from glam_deploy.runtime.session import pipeline_of

    first, *others = open_members(folder, plan.trust)
    options = EngineOptions(threads=plan.threads, flavour=plan.flavour)
    return pipeline_of(
        first, others=others, engine=plan.engine, patches=plan.patches, options=options, ungated=plan.ungated
    )


@dataclass(frozen=True, kw_only=True)
class PredictorFacts:
    """What a predictor says when it has opened its pipeline."""

    version: str
    """Of glam-deploy on its node."""
    pid: int
    provenance: Facts
    ahead: int
    """As `Pipeline.ahead`."""
    in_flight: int
    """As `Pipeline.in_flight`."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a node cannot take part in a run."""

    message: str
    exit_code: int


class Reader:
    """A process that reads entries, and has them decoded. Raises OSError if no decoder can be started."""

    def __init__(self, reader: EntryReader) -> None:
        self._reader = reader
        self._decoder, self._missing = open_decoder()

    def ready(self) -> str:
        """Answer once the process works: which limits its decoder has not got, as of `open_decoder`."""
        return self._missing

    def read(self, entry: Entry) -> tuple[Fingerprint, DecodedView | None]:
        """As `EntryReader.read`."""
        return self._reader.read(entry, self._decoder)

    def fingerprint(self, entry: Entry) -> Fingerprint:
        """Identity of an entry, without decoding its pixels."""
        return self._reader.read(entry, None)[0]


class Predictor:
    """A process with a pipeline. Several threads call it, so that a view is prepared while another is computed."""

    def __init__(self, bundle: ShippedBundle, plan: EnginePlan, opener: OpenPipeline) -> None:
        self._bundle, self._plan, self._opener = bundle, plan, opener
        self._pipeline: ViewPipeline | None = None
        self._turn = threading.Semaphore(1)

    def open(
        self, files: Mapping[str, bytes] | None, marker: Path | None, kinds: frozenset[str] = frozenset()
    ) -> PredictorFacts | Refusal:
        """Open the pipeline.

        `files`: those of the bundle, by relative path; None if its folder is on this machine. `marker`: a file of the
        process that started the run, in the folder that this process must see to write there; None without files to
        write. `kinds`: those of `ObjectPlan` that will be asked for.
        """
        try:
            if kinds & DICOM:
                require("dicom", user=f"--write {min(kinds & DICOM)}")
            if marker is not None and not marker.exists():
                raise UsageError(
                    f"a node does not see {marker.parent}, which --write needs: use a folder that all nodes share, "
                    "under the same path, or leave --write out"
                )
            self._pipeline = pipeline = self._opener(self._bundle.on_this_node(files), self._plan)
        except GlamError as error:
            return Refusal(message=error.message_for(Caller.RUN), exit_code=error.exit_code)
        self._turn = threading.Semaphore(pipeline.in_flight)
        return PredictorFacts(
            version=__version__,
            pid=os.getpid(),
            provenance=dict(pipeline.provenance),
            ahead=pipeline.ahead,
            in_flight=pipeline.in_flight,
        )

    def predict(self, view: DecodedView, instance: str, objects: ObjectPlan | None) -> Finding:
        """The finding of a view; its files are written before. Raises OSError if they cannot be written."""
        pipeline = self._pipeline
        assert pipeline is not None
        try:
            prepared = pipeline.prepare(view.mammogram)
            with self._turn:
                result = pipeline(prepared)
        except Exception as error:
            return finding_of_error(error)
        try:
            reason = write_objects(objects, instance, view, result) if objects else ""
        except OSError:
            raise
        except Exception as error:
            return finding_of_error(error)
        found = finding_of(result)
        return replace(found, notices=(*found.notices, NO_DICOM), reason=reason) if reason else found
