"""Provenance of results: the algorithm and the settings. UIDs are derived from them, so that repeated work gives the
same objects.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from glam_deploy import __version__
from glam_deploy.dicom.results.kinds import KINDS
from glam_deploy.dicom.results.records import Algorithm, Identity
from glam_deploy.dicom.uids import derived_uid, digest
from glam_deploy.engines.admission import UNGATED
from glam_deploy.engines.base import EngineIdentity
from glam_deploy.json_records import from_json
from glam_deploy.networks import NetworkSpec
from glam_deploy.records import Facts, View


@dataclass(frozen=True, kw_only=True)
class ResultProvenance:
    """The algorithm and the settings that decide the content of results."""

    algorithm: Algorithm
    settings: str
    """Digest of all other settings that change results, such as number of patches and accepted images."""

    @cached_property
    def digest(self) -> str:
        made_by = self.algorithm
        return digest(made_by.version, made_by.checkpoint_sha256, made_by.engine_digest, self.settings)

    def view_key(self, sop_uid: str, sha256: str) -> str:
        """Key of the results of one mammogram; 64 hexadecimal digits. `sha256`: that of its content."""
        return digest("view", sop_uid, sha256, self.digest)

    def study_key(self, job_key: str) -> str:
        """Key of the reports on a job's whole study; 64 hexadecimal digits."""
        return digest("study", job_key, self.digest)

    def identity(self, kind: str, study_uid: str, key: str, number: int = 1) -> Identity:
        """UIDs, series number and time of the object of a kind; `key`: that of a view or study; `number`: within its
        series.
        """
        return Identity(
            sop_uid=derived_uid(kind, key),
            series_uid=derived_uid("series", kind, study_uid, self.digest),
            series_number=KINDS[kind].series_number,
            instance_number=number,
            created=datetime.now().astimezone(),  # local time, as other modalities write it
        )


def view_number(view: View | None) -> int:
    """InstanceNumber of an object on one mammogram: 1 to 4 by its view, 5 without one."""
    return list(View).index(view) + 1 if view else len(View) + 1


def algorithm_of(
    provenance: Facts,
    network: NetworkSpec,
    *,
    thresholds: Mapping[str, float],
    device_uid: str,
    triage_threshold: float | None = None,
) -> Algorithm:
    """The description of a pipeline. `provenance`: `Pipeline.provenance`; the others as in `Algorithm`."""
    engine, gate = from_json(EngineIdentity, provenance["engine"]), str(provenance["gate"])
    return Algorithm(
        network=network,
        version=__version__,
        checkpoint_sha256=provenance["checkpoint"]["sha256"],
        bundle_id=provenance["bundle"]["id"],
        engine=f"{engine.name} {engine.precision}",
        engine_digest=engine.digest,
        gate="not gated" if gate == UNGATED else gate,
        preprocessing=f"glam-deploy {__version__}",
        thresholds=thresholds,
        device_uid=device_uid,
        triage_threshold=triage_threshold,
    )
