"""Kinds of result objects: the SOP class and transfer syntax in which each is written, and its series number."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydicom.uid import (
    UID,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    JPEGLSLossless,
    MammographyCADSRStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)


@dataclass(frozen=True)
class ObjectKind:
    """What all objects of a kind share."""

    sop_class: UID
    transfer_syntax: UID
    series_number: int
    """High, so that viewers show the study's own images first."""


KINDS: Mapping[str, ObjectKind] = MappingProxyType(
    {
        "seg": ObjectKind(SegmentationStorage, ExplicitVRLittleEndian, 9001),
        "seg_fractional": ObjectKind(SegmentationStorage, JPEGLSLossless, 9002),
        "sc": ObjectKind(SecondaryCaptureImageStorage, JPEGLSLossless, 9003),
        "gsps": ObjectKind(GrayscaleSoftcopyPresentationStateStorage, ExplicitVRLittleEndian, 9004),
        "cad_sr": ObjectKind(MammographyCADSRStorage, ExplicitVRLittleEndian, 9005),
        "sr": ObjectKind(ComprehensiveSRStorage, ExplicitVRLittleEndian, 9006),
    }
)
"""By the name of its switch in [results]; tests compare it with objects that were written."""
