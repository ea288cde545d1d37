"""Outcomes of a study's views -> Mammography CAD SR (PS3.16 TID 4000), which mammography workstations read."""

from collections.abc import Sequence

from pydicom.dataset import Dataset

from glam_deploy.dicom.results.records import Algorithm, Identity, Reference, ViewOutcome


def cad_sr(
    outcomes: Sequence[ViewOutcome],
    algorithm: Algorithm,
    identity: Identity,
    *,
    predecessor: Reference | None = None,
    probability: bool = False,
) -> Dataset:
    """One report on all mammograms of a study, those that could not be processed among them.

    `outcomes`: at least one. A region is a Selected Region (DCM 111099) with its scores as text: the network does not
    tell masses from calcifications. `probability` also writes the peak as Probability of cancer (DCM 111047, percent),
    which it is not: it is uncalibrated. `predecessor` is the CAD SR that this one replaces. Raises UsageError without
    outcomes, DicomError where none of the sources can be read.
    """
    raise NotImplementedError
