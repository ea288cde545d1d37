"""Provenance of the appliance's results: its engine, its configuration and its device UID."""

import os

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder, part_file
from glam_deploy.appliance.work.predictor import Predictor
from glam_deploy.dicom.results.provenance import ResultProvenance, algorithm_of
from glam_deploy.dicom.uids import digest, random_uid
from glam_deploy.durable import move_into_place


def result_provenance(predictor: Predictor, config: Config, data: DataFolder) -> ResultProvenance:
    """The provenance of results made by `predictor` under this configuration."""
    results = config.results
    algorithm = algorithm_of(
        predictor.provenance,
        predictor.network,
        thresholds={"benign": results.threshold_benign, "malignant": results.threshold_malignant},
        device_uid=device_uid(data),
        triage_threshold=results.triage_threshold,
    )
    settings = digest(results.model_dump_json(), config.accept.model_dump_json(), str(predictor.patches))
    return ResultProvenance(algorithm=algorithm, settings=settings)


def device_uid(data: DataFolder) -> str:
    """Device UID of this installation: made at the first start and kept in the data folder."""
    path = data.root / "device.uid"
    if not path.exists():
        with part_file(data.root) as (part, file):
            file.write(random_uid().encode())
            file.flush()
            os.fsync(file.fileno())
            move_into_place(part, path)
    return path.read_text("ascii")
