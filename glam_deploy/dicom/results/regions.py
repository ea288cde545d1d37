"""Saliency -> regions: connected pieces of what exceeds a threshold, with outline, box, centre, peak and area."""

from glam_deploy.dicom.results.records import Algorithm, Reference, ViewFinding, ViewSummary

MOST = 20
"""Regions of one class that a report tells of a view: a saliency map that is worth anything has a few."""


def summarize(finding: ViewFinding, algorithm: Algorithm, *, segmentation: Reference | None) -> ViewSummary:
    """What the reports say of this view. `segmentation` is the SEG object made of it, if one was.

    Raises DicomError where the source cannot be read.
    """
    raise NotImplementedError
