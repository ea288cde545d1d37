"""View and orientation of an object, from its laterality, view codes and PatientOrientation."""

from collections.abc import Mapping
from dataclasses import dataclass

from glam_deploy.dicom.header import Header
from glam_deploy.dicom.terms import CC, MLO
from glam_deploy.errors import DicomError, NotForThisNetwork, Remedy
from glam_deploy.records import View

_OPPOSITES = str.maketrans("APFHLR", "PAHFRL")
"""Direction of PatientOrientation -> its opposite."""


OPTION = "the view option"
"""What a view is given by, as messages say it."""


def view_of(header: Header, given: View | None, *, given_by: str = OPTION) -> View:
    """The view that the tags state, completed by a `given` view if tags are missing.

    Laterality: ImageLaterality, then Laterality. Projection: ViewCodeSequence, then ViewPosition. Known values must
    agree with each other and with `given`; an unknown value counts as missing. Raises DicomError for a contradiction or
    if the view remains unknown, NotForThisNetwork for both breasts in one image or a projection other than CC and MLO.
    """
    side = _agreed("laterality", {"ImageLaterality": header.image_laterality, "Laterality": header.laterality})
    if side not in ("", "L", "R"):
        raise NotForThisNetwork(f"laterality is {side}, expected L or R: glam-deploy reads images of one breast")
    projection = _projection(header)
    parts = given.value.split("-") if given else ["", ""]
    remedy = f"correct the object or {given_by}"
    side = _agreed("laterality", {"the DICOM header": side, given_by: parts[0]}, remedy)
    projection = _agreed("projection", {"the DICOM header": projection, given_by: parts[1]}, remedy)
    if not (side and projection):
        raise DicomError(f"{_missing(header, side, projection)}, so the view is unknown", Remedy.NAME_VIEW)
    return View(f"{side}-{projection}")


def _missing(header: Header, side: str, projection: str) -> str:
    """Description of the missing and unknown tags that should state the view."""
    laterality = () if side else ("ImageLaterality", "Laterality")
    needed = (*laterality, *(() if projection else ("ViewCodeSequence", "ViewPosition")))
    unknown = [f"{keyword} {header.unknown[keyword]}" for keyword in needed if keyword in header.unknown]
    absent = [] if side or set(laterality) & set(header.unknown) else ["ImageLaterality is missing"]
    if not projection and not {"ViewCodeSequence", "ViewPosition"} & set(header.unknown):
        absent.append("ViewCodeSequence is missing")
    return " and ".join((*absent, *unknown))


@dataclass(frozen=True, kw_only=True)
class StoredOrientation:
    """How an image is stored, compared with an upright view."""

    mirrored: bool
    """Left to right."""
    half_turn: bool = False
    """Rotated by 180 degrees."""


def stored_orientation(header: Header, view: View) -> StoredOrientation | None:
    """How the image is stored; None if PatientOrientation is missing or unknown.

    In an upright view, the rows of a left breast run to anterior (A), those of a right breast to posterior (P). Columns
    run to the feet (F) in MLO, perhaps with the medial side (FR, FL), or to the medial side in CC (R for a left breast,
    L for a right one) (PS3.3 C.7.6.1.1.1; IHE Mammography Image). An MLO view with the opposite of both is rotated by
    180 degrees. A CC view with the opposite of both has the orientation of an upright view of the other breast, so that
    it may as well have a wrong laterality; an MLO view with the lateral side has it. Raises DicomError for it, and for
    an image that is stored in another way.
    """
    if not header.patient_orientation:
        return None
    rows, columns = header.patient_orientation
    if view.is_mlo and _is_turned(rows, columns, view):
        return StoredOrientation(mirrored=False, half_turn=True)
    if rows[:1] not in ("A", "P") or not _is_upright(columns, view):
        orientation = f"PatientOrientation is {rows} and {columns}"
        other = next(each for each in View if each.is_mlo == view.is_mlo and each.is_right != view.is_right)
        if rows[:1] in ("A", "P") and _is_upright(columns, other):
            rotated = "" if view.is_mlo or (rows[0] == "P") == view.is_right else " (or a view stored rotated)"
            raise DicomError(
                f"laterality wrong{rotated}: {orientation}, as in an {other} view, not in an {view} view",
                *_remedies(header),
            )
        raise DicomError(
            f"{orientation}, which is not an upright {view} view: store the object upright, with rows to A or P"
        )
    return StoredOrientation(mirrored=(rows[0] == "P") != view.is_right)


def _is_turned(rows: str, columns: str, view: View) -> bool:
    """Whether this is the orientation of an upright MLO view, not mirrored, rotated by 180 degrees."""
    anterior, medial = ("P", "L") if view.is_right else ("A", "R")
    upright_rows, upright_columns = (text.translate(_OPPOSITES) for text in (rows, columns))
    return upright_rows[:1] == anterior and upright_columns in ("F", f"F{medial}", f"{medial}F")


def _is_upright(columns: str, view: View) -> bool:
    medial, lateral = "LR" if view.is_right else "RL"
    return "F" in columns and lateral not in columns if view.is_mlo else columns.startswith(medial)


def _remedies(header: Header) -> tuple[Remedy, ...]:
    """Remedies for a wrong laterality; if the caller gave it, the caller can correct it."""
    tagged = header.image_laterality or header.laterality
    return (Remedy.CORRECT_TAGS,) if tagged else (Remedy.OTHER_VIEW, Remedy.CORRECT_TAGS)


def _projection(header: Header) -> str:
    if len(header.views) > 1:
        meanings = " and ".join(term.meaning for term in header.views)
        raise DicomError(f"ViewCodeSequence states {meanings}, expected one view (PS3.3 C.8.11.7): correct the object")
    coded = "".join(term.position or term.meaning for term in header.views)
    projection = _agreed("view", {"ViewCodeSequence": coded, "ViewPosition": header.view_position})
    if projection not in ("", CC.position, MLO.position):
        meaning = header.views[0].meaning if header.views else projection
        raise NotForThisNetwork(f"the view is {meaning}: glam-deploy reads {CC.meaning} and {MLO.meaning} views only")
    return projection


def _agreed(attribute: str, stated: Mapping[str, str], remedy: str = "correct the object") -> str:
    """The only non-empty value in `stated` (source -> value); "" if there is none. Raises DicomError for two values."""
    values = {value for value in stated.values() if value}
    if len(values) > 1:
        sources = ", ".join(f"{source} states {value or 'none'}" for source, value in stated.items())
        raise DicomError(f"the {attribute} is contradictory ({sources}): {remedy}")
    return "".join(values)
