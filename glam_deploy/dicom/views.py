"""Which of the four standard views an object shows, and which way it is stored: the coded terms of mammography."""

from collections.abc import Mapping
from types import MappingProxyType

from glam_deploy.dicom.header import Code, Header
from glam_deploy.dicom.terms import CC, MLO, MODIFIERS, VIEWS, Term
from glam_deploy.errors import DicomError, NotForThisNetwork
from glam_deploy.records import VIEW_NAMES, View


def _by_code(terms: tuple[Term, ...]) -> Mapping[Code, Term]:
    modern = {("SCT", term.sct): term for term in terms if term.sct}
    return MappingProxyType(modern | {(scheme, term.srt): term for scheme in ("SRT", "SNM3") for term in terms})


_VIEW_OF = _by_code(VIEWS)
_MODIFIER_OF = _by_code(MODIFIERS)


def view_of(header: Header, given: View | None) -> View:
    """The view that the object is tagged with, completed by `given` (what the user said) where tags are missing.

    Laterality: ImageLaterality, then Laterality. Projection: ViewCodeSequence, then ViewPosition. Two that are present
    must agree, and `given` must agree with both. Raises DicomError on a contradiction, a missing or an unknown tag,
    NotForThisNetwork on both breasts in one image or any projection but CC and MLO.
    """
    side = _agreed("laterality", {"ImageLaterality": header.image_laterality, "Laterality": header.laterality})
    if side not in ("", "L", "R"):
        raise NotForThisNetwork(f"laterality is {side}, expected one breast, L or R: GLAM reads one breast an image")
    projection = _projection(header)
    said = given.value.split("-") if given else ["", ""]
    side = _agreed("laterality", {"the DICOM tags": side, "the view option": said[0]})
    projection = _agreed("projection", {"the DICOM tags": projection, "the view option": said[1]})
    if not (side and projection):
        missing = "ImageLaterality" if not side else "ViewCodeSequence"
        raise DicomError(f"{missing} is missing, so the view is not known: name it with --view ({VIEW_NAMES})")
    return View(f"{side}-{projection}")


def modifier_meanings(header: Header) -> list[str]:
    """What each view modifier means, in words; a code outside CID 4015 is called unknown, not quoted."""
    return [_MODIFIER_OF[code].meaning if code in _MODIFIER_OF else "an unknown modifier" for code in header.modifiers]


def stored_mirrored(header: Header, view: View) -> bool | None:
    """Whether the image is stored mirrored left to right; None where PatientOrientation is missing.

    A left view faces right: rows run to anterior (A); a right view to posterior (P). Columns run to the feet (MLO) or
    to the medial side (CC: R for a left breast, L for a right one) (PS3.3 C.7.6.1.1.1; IHE Mammography Image).
    Raises DicomError where the image is stored rotated or upside down: it is never turned here.
    """
    if not any(header.patient_orientation):
        return None
    rows, columns = (*header.patient_orientation, "")[:2]
    upright = "F" in columns if view.is_mlo else columns.startswith("L" if view.is_right else "R")
    if rows[:1] not in ("A", "P") or not upright:
        raise DicomError(
            f"PatientOrientation is {rows or 'empty'} and {columns or 'empty'}, which is no upright {view.value} view: "
            "have the object stored upright, rows to A or P"
        )
    return (rows[0] == "P") != view.is_right


def _projection(header: Header) -> str:
    if len(header.views) > 1:
        raise DicomError(f"ViewCodeSequence has {len(header.views)} items, expected one (PS3.3 C.8.11.7)")
    terms = [_VIEW_OF.get(code) for code in header.views]
    if None in terms:
        raise DicomError("ViewCodeSequence holds a code outside CID 4014 (SCT, SRT, SNM3): correct it at its source")
    coded = "".join(term.position or term.meaning for term in terms if term)
    projection = _agreed("view", {"ViewCodeSequence": coded, "ViewPosition": header.view_position})
    if projection not in ("", CC.position, MLO.position):
        meaning = terms[0].meaning if terms and terms[0] else projection
        raise NotForThisNetwork(f"the view is {meaning}: GLAM reads {CC.meaning} and {MLO.meaning} views only")
    return projection


def _agreed(what: str, said: Mapping[str, str]) -> str:
    """The one non-empty value of `said`; "" where there is none."""
    values = {value for value in said.values() if value}
    if len(values) > 1:
        told = ", ".join(f"{who} says {value or 'nothing'}" for who, value in said.items())
        raise DicomError(f"the {what} contradicts itself ({told}): correct the object or the option")
    return "".join(values)
