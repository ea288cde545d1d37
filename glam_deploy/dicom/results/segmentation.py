"""Saliency -> Segmentation objects (PS3.3 A.51) in the mammogram's own grid."""

from pydicom.dataset import Dataset

from glam_deploy.dicom.results.records import Algorithm, Identity, ViewFinding


def segmentation(finding: ViewFinding, algorithm: Algorithm, identity: Identity) -> Dataset:
    """BINARY: segments 1 (benign) and 2 (malignant), each set where saliency > its threshold; for display.

    Two frames of the source's Rows x Columns, empty ones included. Raises DicomError where the source cannot be read.
    """
    raise NotImplementedError


def fractional_segmentation(finding: ViewFinding, algorithm: Algorithm, identity: Identity) -> Dataset:
    """FRACTIONAL: the saliency itself, round(255 * value), two segments, JPEG-LS lossless; for archives and programs.

    Common viewers refuse it. Raises DicomError where the source cannot be read.
    """
    raise NotImplementedError
