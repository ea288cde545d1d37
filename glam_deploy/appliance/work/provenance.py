"""Provenance of results: the algorithm and the settings. UIDs are derived from them, so that repeated work gives the
same objects.
"""

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from types import MappingProxyType

from glam_deploy import __version__
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder, move_into_place, part_file
from glam_deploy.appliance.identity import derived_uid, digest
from glam_deploy.appliance.state.jobs import Job, JobView
from glam_deploy.appliance.work.predictor import Predictor
from glam_deploy.dicom.results.records import Algorithm, Identity
from glam_deploy.engines.admission import UNGATED
from glam_deploy.engines.base import EngineIdentity
from glam_deploy.json_records import from_json

SERIES_NUMBERS: Mapping[str, int] = MappingProxyType(
    {kind: 9001 + n for n, kind in enumerate(("seg", "seg_fractional", "sc", "gsps", "cad_sr", "sr"))}
)
"""Series Number by kind of object; high, so that viewers show the study's own images first."""


@dataclass(frozen=True, kw_only=True)
class ResultProvenance:
    """The algorithm and the settings that decide the content of results."""

    algorithm: Algorithm
    settings: str
    """Digest of all other settings that change results: kinds of objects, number of patches, accepted images."""

    @cached_property
    def digest(self) -> str:
        made_by = self.algorithm
        return digest(made_by.version, made_by.checkpoint_sha256, made_by.engine_digest, self.settings)

    def view_key(self, view: JobView) -> str:
        """Key of the results of one view; 64 hexadecimal digits."""
        return digest("view", view.sop_uid, view.sha256, self.digest)

    def study_key(self, job: Job) -> str:
        """Key of the reports on a job's whole study; 64 hexadecimal digits."""
        return digest("study", job.key, self.digest)

    def identity(self, kind: str, study_uid: str, key: str, number: int = 1) -> Identity:
        """UIDs, series number and time of the object of a kind; `key`: that of a view or study; `number`: within its
        series.
        """
        return Identity(
            sop_uid=derived_uid(kind, key),
            series_uid=derived_uid("series", kind, study_uid, self.digest),
            series_number=SERIES_NUMBERS[kind],
            instance_number=number,
            created=datetime.now().astimezone(),  # local time, as other modalities write it
        )


def result_provenance(predictor: Predictor, config: Config, data: DataFolder) -> ResultProvenance:
    """The provenance of results made by `predictor` under this configuration."""
    known, results = predictor.provenance, config.results
    engine, gate = from_json(EngineIdentity, known["engine"]), str(known["gate"])
    algorithm = Algorithm(
        network=predictor.network,
        version=__version__,
        checkpoint_sha256=known["checkpoint"]["sha256"],
        bundle_id=known["bundle"]["id"],
        engine=f"{engine.name} {engine.precision}",
        engine_digest=engine.digest,
        gate="not gated" if gate == UNGATED else gate,
        preprocessing=f"glam-deploy {__version__}",
        thresholds={"benign": results.threshold_benign, "malignant": results.threshold_malignant},
        device_uid=device_uid(data),
    )
    settings = digest(results.model_dump_json(), config.accept.model_dump_json(), str(predictor.patches))
    return ResultProvenance(algorithm=algorithm, settings=settings)


def device_uid(data: DataFolder) -> str:
    """Device UID of this installation: made at the first start and kept in the data folder."""
    path = data.root / "device.uid"
    if not path.exists():
        with part_file(data.root) as (part, file):
            file.write(f"2.25.{uuid.uuid4().int}".encode())
            file.flush()
            os.fsync(file.fileno())
            move_into_place(part, path)
    return path.read_text("ascii")
