"""The overlay picture -> a Secondary Capture image, with the banner burned in."""

from dataclasses import dataclass

from pydicom.dataset import Dataset

from glam_deploy.dicom.results.records import Algorithm, Identity, ViewFinding


@dataclass(frozen=True, kw_only=True)
class CaptureOptions:
    """How the picture is stored."""

    lossless_jpeg2000: bool = True
    """JPEG 2000 lossless, a tenth of the bytes; else uncompressed (Explicit VR Little Endian)."""
    half_resolution: bool = False
    """Half the rows and columns."""


def secondary_capture(
    finding: ViewFinding, algorithm: Algorithm, identity: Identity, options: CaptureOptions | None = None
) -> Dataset:
    """`finding.overlay` under a strip that says BANNER, as RGB; displays everywhere, measures nothing.

    Raises DicomError where the source cannot be read.
    """
    raise NotImplementedError
