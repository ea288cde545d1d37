"""Who makes results, and with what: from it come the names of all results, so that what is made again is the same."""

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from types import MappingProxyType

from glam_deploy import __version__
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder, part_file, settle
from glam_deploy.appliance.identity import derived_uid, digest
from glam_deploy.appliance.state.jobs import Job, JobView
from glam_deploy.appliance.work.predictor import Predictor
from glam_deploy.dicom.results.records import Algorithm, Identity
from glam_deploy.runtime.admission import UNGATED, engine_digest

SERIES_NUMBERS: Mapping[str, int] = MappingProxyType(
    {kind: 9001 + n for n, kind in enumerate(("seg", "seg_fractional", "sc", "gsps", "cad_sr", "sr"))}
)
"""By kind of object; high, so that viewers show a study's own images first."""


@dataclass(frozen=True, kw_only=True)
class Making:
    """One network under one configuration."""

    algorithm: Algorithm
    settings: str
    """Digest of all that else decides what results are like: objects, patches, what is let in."""

    @cached_property
    def digest(self) -> str:
        made_by = self.algorithm
        return digest(made_by.version, made_by.checkpoint_sha256, made_by.engine_digest, self.settings)

    def view_key(self, view: JobView) -> str:
        """Names what is found in one view; 64 hexadecimal digits."""
        return digest("view", view.sop_uid, view.sha256, self.digest)

    def study_key(self, job: Job) -> str:
        """Names what is found in a job's study as a whole; 64 hexadecimal digits."""
        return digest("study", job.key, self.digest)

    def identity(self, kind: str, study_uid: str, key: str, number: int = 1) -> Identity:
        """Of the object of a kind that is made of what `key` names; it has the `number` in its series of the study."""
        return Identity(
            sop_uid=derived_uid(kind, key),
            series_uid=derived_uid("series", kind, study_uid, self.digest),
            series_number=SERIES_NUMBERS[kind],
            instance_number=number,
            created=datetime.now().astimezone(),  # the wall clock of the place, as other modalities write it
        )


def making_of(predictor: Predictor, config: Config, data: DataFolder) -> Making:
    """What stands in the results of `predictor`."""
    known, results = predictor.provenance, config.results
    engine, gate = known["engine"], str(known["gate"])
    algorithm = Algorithm(
        network=predictor.network,
        version=__version__,
        checkpoint_sha256=known["checkpoint"]["sha256"],
        bundle_id=known["bundle"]["id"],
        engine=" ".join(str(engine[key]) for key in ("name", "precision") if engine.get(key)),
        engine_digest=engine_digest(engine),
        gate="not gated" if gate == UNGATED else gate,
        preprocessing=f"glam-deploy {__version__}",
        thresholds={"benign": results.threshold_benign, "malignant": results.threshold_malignant},
        device_uid=device_uid(data),
    )
    settings = digest(results.model_dump_json(), config.accept.model_dump_json(), str(predictor.patches))
    return Making(algorithm=algorithm, settings=settings)


def device_uid(data: DataFolder) -> str:
    """UID of this installation: made at its first start, kept in the data folder."""
    path = data.root / "device.uid"
    if not path.exists():
        with part_file(data.root) as (part, file):
            file.write(f"2.25.{uuid.uuid4().int}".encode())
            file.flush()
            os.fsync(file.fileno())
            settle(part, path)
    return path.read_text("ascii")
