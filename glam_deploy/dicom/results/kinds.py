"""Kinds of result objects: the SOP class and transfer syntax in which each is written, for negotiation with a peer."""

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


@dataclass(frozen=True, kw_only=True)
class ObjectKind:
    """What a presentation context for objects of a kind proposes."""

    sop_class: UID
    transfer_syntax: UID


KINDS: Mapping[str, ObjectKind] = MappingProxyType(
    {
        "seg": ObjectKind(sop_class=SegmentationStorage, transfer_syntax=ExplicitVRLittleEndian),
        "cad_sr": ObjectKind(sop_class=MammographyCADSRStorage, transfer_syntax=ExplicitVRLittleEndian),
        "sr": ObjectKind(sop_class=ComprehensiveSRStorage, transfer_syntax=ExplicitVRLittleEndian),
        "sc": ObjectKind(sop_class=SecondaryCaptureImageStorage, transfer_syntax=JPEGLSLossless),
        "seg_fractional": ObjectKind(sop_class=SegmentationStorage, transfer_syntax=JPEGLSLossless),
        "gsps": ObjectKind(sop_class=GrayscaleSoftcopyPresentationStateStorage, transfer_syntax=ExplicitVRLittleEndian),
    }
)
"""By the name of its switch in [results]; tests compare it with objects that were written."""
