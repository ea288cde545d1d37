"""Provenance of the appliance's results: its engine, its configuration and its device UID."""

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.device import device_uid
from glam_deploy.appliance.work.predictor import Predictor
from glam_deploy.dicom.results.provenance import ResultProvenance, algorithm_of
from glam_deploy.dicom.uids import digest


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
