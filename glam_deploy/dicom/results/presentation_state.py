"""Regions -> a Grayscale Softcopy Presentation State (PS3.3 A.33.1): boxes and banner over the mammogram itself."""

from pathlib import Path

from pydicom.dataset import Dataset

from glam_deploy.dicom.results.records import Algorithm, Identity, ViewSummary


def presentation_state(source: Path, summary: ViewSummary, algorithm: Algorithm, identity: Identity) -> Dataset:
    """A box with its class and peak around each region, and BANNER at the top, over the image in `source`.

    Raises DicomError where the source cannot be read.
    """
    raise NotImplementedError
