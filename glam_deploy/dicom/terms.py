"""Terms of mammography: codes of views and modifiers (PS3.16), and defined terms of the code strings read (PS3.3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations, product
from types import MappingProxyType

Code = tuple[str, str]
"""(coding scheme designator, code value), both as stored."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """A coded term of PS3.16; `srt` is also valid with the older designator SNM3, which receivers should accept."""

    sct: str
    srt: str
    meaning: str
    position: str = ""
    """ACR MQCM 1999 abbreviation, as found in ViewPosition; "" for a modifier."""


CC = Term(sct="399162004", srt="R-10242", meaning="cranio-caudal", position="CC")
MLO = Term(sct="399368009", srt="R-10226", meaning="medio-lateral oblique", position="MLO")

VIEWS = (
    CC,
    MLO,
    Term(sct="399260004", srt="R-10224", meaning="medio-lateral", position="ML"),
    Term(sct="399352003", srt="R-10228", meaning="latero-medial", position="LM"),
    Term(sct="399099002", srt="R-10230", meaning="latero-medial oblique", position="LMO"),
    Term(sct="399196006", srt="R-10244", meaning="caudo-cranial (from below)", position="FB"),
    Term(sct="399188001", srt="R-102D0", meaning="superolateral to inferomedial oblique", position="SIO"),
    Term(sct="441555000", srt="R-40AAA", meaning="inferomedial to superolateral oblique", position="ISO"),
    Term(sct="399192008", srt="R-1024A", meaning="cranio-caudal exaggerated laterally", position="XCCL"),
    Term(sct="399101009", srt="R-1024B", meaning="cranio-caudal exaggerated medially", position="XCCM"),
    Term(sct="", srt="R-102CF", meaning="cranio-caudal exaggerated", position="XCC"),
    Term(sct="", srt="Y-X1770", meaning="cranio-caudal exaggerated laterally", position="XCCL"),
    Term(sct="", srt="Y-X1771", meaning="cranio-caudal exaggerated medially", position="XCCM"),
    Term(sct="127457009", srt="G-8310", meaning="tissue specimen from breast"),
)
"""PS3.16 CID 4014 View for Mammography, with the codes of earlier editions that its notes list for receivers."""

MODIFIERS = (
    Term(sct="399161006", srt="R-102D2", meaning="cleavage"),
    Term(sct="399011000", srt="R-102D1", meaning="axillary tail"),
    Term(sct="399197002", srt="R-102D3", meaning="rolled lateral"),
    Term(sct="399226006", srt="R-102D4", meaning="rolled medial"),
    Term(sct="414493004", srt="R-102CA", meaning="rolled inferior"),
    Term(sct="415670009", srt="R-102C9", meaning="rolled superior"),
    Term(sct="399209000", srt="R-102D5", meaning="implant displaced"),
    Term(sct="399163009", srt="R-102D6", meaning="magnification"),
    Term(sct="399055006", srt="R-102D7", meaning="spot compression"),
    Term(sct="399110001", srt="R-102C2", meaning="tangential"),
    Term(sct="442581004", srt="R-40AB3", meaning="nipple in profile"),
    Term(sct="441752004", srt="P2-00161", meaning="anterior compression"),
    Term(sct="442593008", srt="R-40ABE", meaning="infra-mammary fold"),
    Term(sct="442580003", srt="R-40AB2", meaning="axillary tissue"),
)
"""PS3.16 CID 4015 View Modifier for Mammography."""


def _by_code(terms: tuple[Term, ...]) -> Mapping[Code, Term]:
    modern = {("SCT", term.sct): term for term in terms if term.sct}
    return MappingProxyType(modern | {(scheme, term.srt): term for scheme in ("SRT", "SNM3") for term in terms})


VIEW_OF = _by_code(VIEWS)
MODIFIER_OF = _by_code(MODIFIERS)

_SIDES = frozenset({"R", "L", "U", "B"})

DEFINED: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "Modality": frozenset(
            {"MG", "CR", "DX", "RF", "XA", "RG", "CT", "MR", "US", "NM", "PT", "OT", "SR", "PR", "KO", "SEG", "DOC"}
        ),
        "PresentationIntentType": frozenset({"FOR PRESENTATION", "FOR PROCESSING"}),
        "ImageLaterality": _SIDES,
        "Laterality": _SIDES,
        "ViewPosition": frozenset(
            {"AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO", *(term.position for term in VIEWS if term.position)}
        ),
        "BreastImplantPresent": frozenset({"YES", "NO"}),
        "PartialView": frozenset({"YES", "NO"}),
        "LossyImageCompression": frozenset({"00", "01"}),
        "PhotometricInterpretation": frozenset(
            {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420",
             "YBR_ICT", "YBR_RCT", "XYB"}
        ),
        "PresentationLUTShape": frozenset({"IDENTITY", "INVERSE"}),
        "FieldOfViewHorizontalFlip": frozenset({"YES", "NO"}),
        "PatientOrientation": frozenset(
            "".join(letters)
            for axes in product("AP", "RL", "HF")
            for count in (1, 2, 3)
            for letters in permutations(axes, count)
        ),
    }
)  # fmt: skip
"""DICOM keyword -> defined terms, which a message may quote; includes terms of other modalities (PS3.3 C.7 and C.8)."""
