"""Outcomes of a study's views -> Comprehensive SR, Measurement Report (PS3.16 TID 1500), which programs read."""

from collections.abc import Sequence

from pydicom.dataset import Dataset

from glam_deploy.dicom.results.records import Algorithm, Identity, Reference, ViewOutcome


def measurement_report(
    outcomes: Sequence[ViewOutcome], algorithm: Algorithm, identity: Identity, *, predecessor: Reference | None = None
) -> Dataset:
    """One report on all mammograms of a study: scores, regions with outlines, and why others have none.

    Arguments and errors as of `cad_sr.cad_sr`.
    """
    raise NotImplementedError
