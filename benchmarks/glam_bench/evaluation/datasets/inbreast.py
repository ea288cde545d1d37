"""INbreast: full-field digital mammograms with outlines and BI-RADS.

Source: Moreira et al., "INbreast: toward a full-field digital mammographic database", Academic Radiology 2012
(10.1016/j.acra.2011.09.014), and the files of its release 1.0:

- INbreast.csv, separated by ";": a row is an image, named by the number at the start of its file name; BI-RADS is 1 to
  6, or 4a, 4b, 4c.
- AllDICOMs/<number>_<patient>_MG_<side>_<view>_ANON.dcm; ML in a name is MLO.
- AllXML/<number>.xml, property lists of OsiriX: Images[0].ROIs[], each with Name and Point_px, text "(x, y)" in pixels:
  column, then row. An image without findings has no XML file.

Biopsy results are not in the release. Women with two exams have the same patient in the file names and another date in
the table.
"""

import plistlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from glam_bench.evaluation.csv_tables import Row
from glam_bench.evaluation.datasets.tables import (
    ABSENT,
    BIRADS_RULE,
    SEVERAL,
    LeftOut,
    Tree,
    birads_in,
    class_of,
    inside,
    labels_of,
    open_tree,
    read_published,
    require_one_row,
    require_split,
    view_in,
)
from glam_bench.evaluation.labelled import LabelledImage, LabelledSet, Outline, Polygon
from glam_deploy.errors import UsageError
from glam_deploy.records import View
from glam_deploy.regular import read_regular
from glam_deploy.view_names import view_from_name

TITLE = "INbreast"
TABLE = "INbreast.csv"
LAYOUT = (
    "INbreast.csv, AllDICOMs/ with files such as 20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm, and AllXML/ with files "
    "such as 20586908.xml"
)
_NAME = re.compile(r"(\d+)_([0-9a-fA-F]+)_MG_.*")
_COORDINATE = r"(-?\d{1,6}(?:\.\d+)?)"
_POINT = re.compile(rf"\(\s*{_COORDINATE}\s*,\s*{_COORDINATE}\s*\)")
MAX_BYTES = 16 << 20
"""Largest size of a file of outlines."""
MAX_OUTLINES, MAX_POINTS = 5_000, 200_000
"""Largest numbers in one file, well above those of a mammogram; drawing takes some two seconds."""
_SHOWN = 200
"""Most characters of a file's text in a message."""
_REMARK = (
    "An outline has the class of its image, because only images have a BI-RADS category. Outlines of one or two "
    "points, which mark single calcifications, have no area and are not used."
)


def read_set(folder: Path, split: str | None) -> LabelledSet:
    """The set in `folder`, which has no splits. Raises UsageError."""
    require_split(TITLE, split, ())
    tree, left_out = open_tree(folder, title=TITLE, layout=LAYOUT), LeftOut()
    table = tree.table(TABLE)
    if table is None:
        raise tree.missing(f"table {TABLE}")
    files: dict[str, list[Path]] = defaultdict(list)
    for path in tree.images:
        if named := _NAME.fullmatch(path.stem):
            files[named[1]].append(path)
    outlines = _outline_files(tree)
    rows = read_published(table, ("laterality", "view", "file name", "bi-rads"))
    require_one_row(rows, ("file name",))
    images = []
    for row in rows:
        number, view = row["file name"], view_in(row, "laterality", "view")
        paths = files.get(number, [])
        if view is None:
            left_out.add("images have another view than CC and MLO", f"{number} ({row['view']})")
        elif len(paths) != 1:
            left_out.add(SEVERAL if paths else ABSENT, number)
        else:
            found = _outlines(outlines[number], row, left_out) if number in outlines else ()
            images.append(_image(tree, paths[0], view, row, inside(found, paths[0], left_out)))
    remarks = (BIRADS_RULE, _REMARK, *left_out.remarks())
    return LabelledSet(name="inbreast", level="image", images=tuple(images), remarks=remarks)


def _outline_files(tree: Tree) -> Mapping[str, Path]:
    """Number of an image -> its file of outlines. Raises UsageError for two files of one image."""
    found: dict[str, Path] = {}
    for path in tree.others:
        if path.suffix.lower() == ".xml" and found.setdefault(path.stem, path) is not path:
            raise UsageError(
                f"{found[path.stem]} and {path} are of one image, expected one file of outlines: give the folder of "
                f"one copy of {TITLE}"
            )
    return found


def _image(tree: Tree, path: Path, view: View, row: Row, outlines: tuple[Outline, ...]) -> LabelledImage:
    named, found = view_from_name(path), _NAME.fullmatch(path.stem)
    if named not in (None, view):
        raise row.wrong("view", f"that of the file name {path.name} ({named}); laterality is {row['laterality']}")
    assert found is not None
    return LabelledImage(
        name=tree.name_of(path),
        path=path,
        view=view,
        exam="/".join(filter(None, (found[2].lower(), row.cells.get("acquisition date", "")))),
        labels=labels_of(birads_in(row, "bi-rads")),
        outlines=outlines,
    )


def _outlines(path: Path, row: Row, left_out: LeftOut) -> Iterator[Outline]:
    """The findings of an image. Raises UsageError for a file that is no property list of this form."""
    label = class_of(birads_in(row, "bi-rads"))
    for roi in _rois(path):
        name = roi.get("Name", "")[:_SHOWN]
        corners = tuple(_point(path, text) for text in roi.get("Point_px", []))
        if label is None:
            left_out.add("outlines are not used, because their image has BI-RADS 0 or 1", f"{name} in {path.name}")
        elif len(corners) < 3:
            left_out.add("outlines are not used, because they have one or two points", f"{name} in {path.name}")
        else:
            yield Outline(label=label, shape=Polygon(corners=corners))


def _rois(path: Path) -> list[dict[str, Any]]:
    """The entries ROIs, with texts as Name and Point_px. Raises UsageError, also above the limits."""
    try:
        rois = plistlib.loads(read_regular(path, MAX_BYTES), fmt=plistlib.FMT_XML)["Images"][0]["ROIs"]
        if problem := _fault(rois):
            raise ValueError(problem)
        return list(rois)
    except OSError as error:
        problem = str(error.strerror)
    except Exception as error:  # plistlib passes on whatever the converters of its values raise
        problem = f"{type(error).__name__}: {error}"[:_SHOWN]
    raise UsageError(
        f"{path}: the outlines cannot be read ({problem}), expected a property list with Images[0].ROIs: take the file "
        "as it was published"
    )


def _fault(rois: object) -> str:
    """What is wrong with the value of ROIs; "" if nothing is."""
    if not isinstance(rois, list) or len(rois) > MAX_OUTLINES:
        return f"ROIs is no list of at most {MAX_OUTLINES} outlines"
    if not all(isinstance(roi, dict) and isinstance(roi.get("Point_px", []), list) for roi in rois):
        return "a finding is no dictionary with a list Point_px"
    points = [point for roi in rois for point in roi.get("Point_px", [])]
    if len(points) > MAX_POINTS:
        return f"there are {len(points)} points, expected at most {MAX_POINTS}"
    if not all(isinstance(text, str) for text in (*points, *(roi.get("Name", "") for roi in rois))):
        return "a name or a point is no string"
    return ""


def _point(path: Path, text: str) -> tuple[float, float]:
    """(row, column) of "(x, y)"."""
    found = _POINT.fullmatch(text.strip())
    if found is None:
        raise UsageError(
            f'{path}: a point is {text[:_SHOWN]!r}, expected "(x, y)" in pixels: take the file as it was published'
        )
    return float(found[2]), float(found[1])
