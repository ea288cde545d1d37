"""File name -> view, by the naming conventions of the public data sets.

| data set | example | view stated by |
| --- | --- | --- |
| NYU samples, exports | `0_L-CC.png`, `a_RMLO.tif`, `LEFT CC.png`, `MLO_right.png` | a token of side and projection |
| DDSM | `A_1141_1.LEFT_CC.LJPEG.png` | the same |
| CBIS-DDSM | `Mass-Training_P_00001_LEFT_CC/.../1-1.dcm` | the same, or the name of a folder above |
| INbreast | `20586908_6c613a14b80a8591_MG_R_ML_ANON.dcm` | the same, with ML for MLO |

VinDr-Mammo and CMMD name their files by identifiers: the view is in the header, or in a table (`run --views`).
"""

import re
from pathlib import PurePath

from glam_deploy.errors import InputError, NotForThisNetwork, Remedy
from glam_deploy.records import View

_SIDE, _PROJECTION = r"(LEFT|RIGHT|L|R)", r"(CC|MLO)"
_ALONE = r"(?<![A-Z0-9]){}(?![A-Z0-9])"
_SIDE_FIRST = re.compile(_ALONE.format(rf"{_SIDE}[-_. ]{{0,3}}{_PROJECTION}"))
_PROJECTION_FIRST = re.compile(_ALONE.format(rf"{_PROJECTION}[-_. ]{{0,3}}{_SIDE}"))
_EITHER_WORD = r"(?:LEFT|RIGHT|MLO|CC|L|R)"
_CHAIN = re.compile(_ALONE.format(rf"(?:{_EITHER_WORD}[-_. ]{{0,3}})*{_EITHER_WORD}"))
"""Words of sides and projections one behind the other: RCC-L."""
_WHOLE_WORD = re.compile(_ALONE.format("(LEFT|RIGHT|MLO|CC)"))
"""Words that mean a side or a projection wherever they are; L and R may be initials of a name."""
_EITHER = re.compile(f"{_SIDE_FIRST.pattern}|{_PROJECTION_FIRST.pattern}")
_INBREAST = re.compile(r"\d+_[0-9A-F]{16}_MG_([LR])_(CC|ML|MLO)_ANON(?![A-Z0-9])")
"""Case, identifier of 16 hex digits, MG, side, view; all mediolateral views are oblique (Moreira et al. 2012)."""
_CBIS = re.compile(r"(?:MASS|CALC)-(?:TRAINING|TEST)_P_\d+_(LEFT|RIGHT)_(CC|MLO)(?![A-Z0-9])(.*)")
"""Kind, patient, side, projection; a suffix "_1", "_2", ... means crop and mask of an abnormality (Lee et al. 2017)."""
_PART = re.compile(r"_(\d+|MASK|CROP|CROPPED|ROI)(?![A-Z0-9]|-\d)")
_WORD = r"(?<![^\W_])(?:{})\d*(?![^\W_])"
_AFTER_VIEW = rf"{_SIDE}?[-_. ]{{0,3}}{_PROJECTION}[-_. ]"
_OTHER_KINDS = {
    "magnification": re.compile(_WORD.format("(MAGN?|MAGNIFIED|MAGNIFICATION|SPOTMAG)")),
    "spot compression": re.compile(_WORD.format("(SPOT(?:[-_. ]?COMPRESSION)?)")),
    "another projection": re.compile(_WORD.format(rf"(XCC[LM]?|LMO|SIO|ROLLED)|{_AFTER_VIEW}(ML|LM|FB|RL|RM|TAN|CV)")),
    "implant": re.compile(_WORD.format("(IMPLANTS?)")),
    "implant displaced": re.compile(_WORD.format(f"{_AFTER_VIEW}(ID)")),
    "biopsy": re.compile(_WORD.format("(BIOPSY|STEREO|STEREOTAXIS|STEREOTACTIC)")),
    "tomosynthesis": re.compile(_WORD.format("(TOMO|TOMO[23]D|TOMOSYNTHESIS|DBT)")),
    "synthesized": re.compile(
        _WORD.format("(SYNTH|SYNTHETIC|SYNTHESI[SZ]ED|[CS][-_. ]?VIEW|I2D|(?:INTELLIGENT|INSIGHT)[-_. ]?2D)")
    ),
    "contrast": re.compile(_WORD.format("(CESM|CEDM|CEM|CONTRAST|RECOMBINED)")),
    "specimen": re.compile(_WORD.format("(SPECIMEN)")),
}
"""Kind of image that the network was not made for -> words that state it, also as Hologic, Siemens and Fujifilm name
their products. ID only after a projection, because elsewhere it means a patient identifier."""
_MASK = re.compile(r"(?<![A-Z0-9])(MASK|SEG)(?:[-_. ]?\d+)?$")


def view_from_name(path: PurePath) -> View | None:
    """The view in a file name, or in the name of a CBIS-DDSM folder above it; None if there is none.

    The file is not read. Raises InputError if a name has different views.
    """
    name = path.name.upper()
    if known := _INBREAST.search(name):
        return _view(known[1], "MLO" if known[2] == "ML" else known[2])
    views = _views_in(name)
    if len(views) > 1:
        raise InputError(f"the file name has different views ({', '.join(sorted(views))})", Remedy.NAME_VIEW)
    if views:
        return views.pop()
    folder = _cbis(path.parent)
    return _view(folder[1], folder[2]) if folder else None


def _views_in(name: str) -> set[View]:
    """All views that a name in capitals may mean: several if a further word contradicts the only view."""
    views = {_view(side, projection) for side, projection in _SIDE_FIRST.findall(name)}
    views |= {_view(side, projection) for projection, side in _PROJECTION_FIRST.findall(name)}
    if len(views) != 1:
        return _seen(name) or views
    chains = (chain for chain in _CHAIN.findall(name) if "CC" in chain or "MLO" in chain)
    words = {*_WHOLE_WORD.findall(name), *(word for chain in chains for word in re.findall(_EITHER_WORD, chain))}
    projections = words & {"CC", "MLO"}
    return {_view(side, projection) for side in words - projections for projection in projections}


def _seen(name: str) -> set[View]:
    """The views of a name that a reader sees: L-CC_R-MLO has no R-CC, although CC_R alone would be one."""
    found = (match.groups() for match in _EITHER.finditer(name))
    seen = {_view(side or last, projection or first) for side, projection, first, last in found}
    return seen if len(seen) > 1 else set()


def exam_from_name(path: PurePath) -> str:
    """Identifier of the exam of a file without a header: its folder, and its name without the view.

    a/1_L-CC.png and a/1_R-MLO.tif are of exam a/1, a/L-CC.png is of exam a. A name without a view has an exam of its
    own.
    """
    rest = path.stem
    for pattern in (_SIDE_FIRST, _PROJECTION_FIRST):
        rest = re.sub(pattern.pattern, "", rest, flags=re.IGNORECASE)
    return str(path.parent / rest.strip("-_. ")) if rest.strip("-_. ") else str(path.parent)


def require_mammogram_name(path: PurePath) -> None:
    """Raise NotForThisNetwork for the name of a mask or a crop: `*_mask.png`, `..._LEFT_CC_1` (CBIS-DDSM).

    Only for files without a header, which could contradict the name.
    """
    if reason := not_a_mammogram(path):
        raise NotForThisNetwork(f"{reason}, so it is not a mammogram. Rename the file if it is one")


def not_a_mammogram(path: PurePath) -> str:
    """Reason why a file name is not that of a mammogram; "" if it may be one."""
    if is_mask(path):
        return "the file name ends in _mask or _seg, like that of a mask"
    if (cbis := _cbis(path)) and _PART.match(cbis[3]):
        return "the name is that of a crop or mask in CBIS-DDSM (a number after the view)"
    return ""


def other_kind(path: PurePath) -> tuple[str, str] | None:
    """(word, kind) if a file name states a kind of image that the network was not made for; else None."""
    for kind, pattern in _OTHER_KINDS.items():
        if found := pattern.search(path.stem.upper()):
            return found[found.lastindex or 0], kind
    return None


def is_mask(path: PurePath) -> bool:
    """Whether a file name is that of a mask: `x_mask.png`, `x-MASK.tif`, `x_mask_2.png`, `x_benign_seg.png`."""
    return bool(_MASK.search(path.stem.upper()))


def _cbis(path: PurePath) -> re.Match[str] | None:
    """The CBIS-DDSM name of the file, or of the nearest folder above it; None if there is none."""
    parts = reversed(path.parts)
    return next((found for part in parts if (found := _CBIS.match(part.upper()))), None)


def _view(side: str, projection: str) -> View:
    return View(f"{side[0]}-{projection}")
