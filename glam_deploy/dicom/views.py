"""Which of the four standard views an object shows, and which way it is stored: the coded terms of mammography."""

from collections.abc import Mapping

from glam_deploy.dicom.header import Header
from glam_deploy.dicom.terms import CC, MLO
from glam_deploy.errors import DicomError, NotForThisNetwork, Remedy
from glam_deploy.records import View


def view_of(header: Header, given: View | None) -> View:
    """The view that the object is tagged with, completed by `given` (what the user said) where tags are missing.

    Laterality: ImageLaterality, then Laterality. Projection: ViewCodeSequence, then ViewPosition. Two that are present
    must agree, and `given` must agree with both; a value that is unknown counts as missing. Raises DicomError on a
    contradiction or where nothing tells the view, NotForThisNetwork on both breasts in one image or any projection but
    CC and MLO.
    """
    side = _agreed("laterality", {"ImageLaterality": header.image_laterality, "Laterality": header.laterality})
    if side not in ("", "L", "R"):
        raise NotForThisNetwork(f"laterality is {side}, expected one breast, L or R: GLAM reads one breast an image")
    projection = _projection(header)
    said = given.value.split("-") if given else ["", ""]
    side = _agreed("laterality", {"the DICOM header": side, "the view option": said[0]})
    projection = _agreed("projection", {"the DICOM header": projection, "the view option": said[1]})
    if not (side and projection):
        raise DicomError(f"{_missing(header, side, projection)}, so the view is not known", Remedy.NAME_VIEW)
    return View(f"{side}-{projection}")


def _missing(header: Header, side: str, projection: str) -> str:
    """Which tags do not tell the view, and why."""
    laterality = () if side else ("ImageLaterality", "Laterality")
    silent = (*laterality, *(() if projection else ("ViewCodeSequence", "ViewPosition")))
    unknown = [f"{keyword} {header.unknown[keyword]}" for keyword in silent if keyword in header.unknown]
    absent = [] if side or set(laterality) & set(header.unknown) else ["ImageLaterality is missing"]
    if not projection and not {"ViewCodeSequence", "ViewPosition"} & set(header.unknown):
        absent.append("ViewCodeSequence is missing")
    return " and ".join((*absent, *unknown))


def stored_mirrored(header: Header, view: View) -> bool | None:
    """Whether the image is stored mirrored left to right; None where PatientOrientation is missing or unknown.

    A left view faces right: rows run to anterior (A); a right view to posterior (P). Columns run to the feet (MLO) or
    to the medial side (CC: R for a left breast, L for a right one) (PS3.3 C.7.6.1.1.1; IHE Mammography Image).
    Raises DicomError where the image is stored rotated or upside down: it is never turned here.
    """
    if not header.patient_orientation:
        return None
    rows, columns = header.patient_orientation
    if rows[:1] not in ("A", "P") or not _is_upright(columns, view):
        told = f"PatientOrientation is {rows} and {columns}"
        other = next(each for each in View if each.is_mlo == view.is_mlo and each.is_right != view.is_right)
        if rows[:1] in ("A", "P") and _is_upright(columns, other):
            raise DicomError(
                f"laterality wrong: {told}, as in an {other} view, not in an {view} view", *_remedies(header)
            )
        raise DicomError(f"{told}, which is no upright {view} view: have the object stored upright, rows to A or P")
    return (rows[0] == "P") != view.is_right


def _is_upright(columns: str, view: View) -> bool:
    return "F" in columns if view.is_mlo else columns.startswith("L" if view.is_right else "R")


def _remedies(header: Header) -> tuple[Remedy, ...]:
    """Where the laterality came from the caller, the caller can correct it."""
    tagged = header.image_laterality or header.laterality
    return (Remedy.CORRECT_TAGS,) if tagged else (Remedy.OTHER_VIEW, Remedy.CORRECT_TAGS)


def _projection(header: Header) -> str:
    if len(header.views) > 1:
        told = " and ".join(term.meaning for term in header.views)
        raise DicomError(f"ViewCodeSequence says {told}, expected one view (PS3.3 C.8.11.7): correct the object")
    coded = "".join(term.position or term.meaning for term in header.views)
    projection = _agreed("view", {"ViewCodeSequence": coded, "ViewPosition": header.view_position})
    if projection not in ("", CC.position, MLO.position):
        meaning = header.views[0].meaning if header.views else projection
        raise NotForThisNetwork(f"the view is {meaning}: GLAM reads {CC.meaning} and {MLO.meaning} views only")
    return projection


def _agreed(what: str, said: Mapping[str, str]) -> str:
    """The one non-empty value of `said`; "" where there is none."""
    values = {value for value in said.values() if value}
    if len(values) > 1:
        told = ", ".join(f"{who} says {value or 'nothing'}" for who, value in said.items())
        raise DicomError(f"the {what} contradicts itself ({told}): correct the object or the option")
    return "".join(values)
