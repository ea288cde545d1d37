"""CMMD, the Chinese Mammography Database: full-field digital mammograms with the pathology of each breast.

Source: the collection's page at TCIA (Cui et al. 2021, 10.7937/tcia.eqde-4b16) and its files. The Excel table
CMMD_clinicaldata_revision, read here as its CSV export, has a row for each breast with a finding: ID1 (D1-0001 and so
on, and D2-0001 and so on for the subset with molecular subtypes), LeftRight, Age, number, abnormality, classification,
subtype. Only the DICOM header says which breast and which view a file shows (ImageLaterality, ViewCodeSequence), and
PatientID is ID1; files are numbered in a series (1-1.dcm), in no fixed order of views. A woman may have a benign
finding in one breast and a malignant one in the other (github.com/dangnh0611/kaggle_rsna_breast_cancer, issue 7). A
breast without a row, frequent in D2, has no label: the table does not say that it is normal. Study dates were replaced,
so all images of a woman count as one exam.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from glam_bench.evaluation.csv_tables import Row
from glam_bench.evaluation.datasets.tables import LeftOut, Tree, open_tree, read_published, require_split
from glam_bench.evaluation.labelled import LabelledImage, LabelledSet
from glam_deploy.dicom.read import read_elements, read_stated_view
from glam_deploy.errors import InputError, NotForThisNetwork
from glam_deploy.records import View

TITLE = "CMMD"
SPLITS = ("D1", "D2")
TABLE = "CMMD_clinicaldata_revision.csv"
_EXCEL = "CMMD_clinicaldata_revision.xlsx"
LAYOUT = f"{TABLE} (save the Excel table {_EXCEL} as CSV UTF-8) and CMMD/<ID1>/<study>/<series>/1-1.dcm"
_ID = re.compile(r"D[12]-\d{4}")
_CLASSES = {"benign": "benign", "malignant": "malignant"}
_REMARKS = ("Labels are the pathology of the breast (classification); the set has no outlines.",)

Breast = tuple[str, str]
"""ID1 and side, "L" or "R"."""


def read_set(folder: Path, split: str | None) -> LabelledSet:
    """The set in `folder`; `split`: "D1" or "D2". Reads the header of every file. Raises UsageError."""
    require_split(TITLE, split, SPLITS)
    tree, left_out = open_tree(folder, title=TITLE, layout=LAYOUT), LeftOut()
    classes, images = _classes(_table(tree)), []
    for path in tree.images:
        if image := _image(tree, path, classes, split, left_out):
            images.append(image)
    shown = {image.breast for image in images}
    for patient, side in classes:
        if split in (None, patient[:2]) and f"{patient}/{side}" not in shown:
            left_out.add("breasts are listed in the table, and no image in the folder shows them", f"{patient} {side}")
    return LabelledSet(name="cmmd", level="breast", images=tuple(images), remarks=(*_REMARKS, *left_out.remarks()))


def _table(tree: Tree) -> Path:
    table = tree.table(TABLE)
    if table is None:
        excel = any(path.name == _EXCEL for path in tree.others)
        found = f" ({_EXCEL} is there: open it in a spreadsheet program and save it as CSV UTF-8)" if excel else ""
        raise tree.missing(f"table {TABLE}{found}")
    return table


def _classes(table: Path) -> Mapping[Breast, set[str]]:
    """The classes of each breast; a breast may have several rows."""
    found: dict[Breast, set[str]] = defaultdict(set)
    for row in read_published(table, ("id1", "leftright", "classification")):
        found[_breast(row)].add(_class(row))
    return found


def _breast(row: Row) -> Breast:
    if not _ID.fullmatch(row["id1"]):
        raise row.wrong("id1", "D1-0001 or D2-0001 and the like")
    side = row["leftright"].upper()
    if side not in ("L", "R"):
        raise row.wrong("leftright", "L or R")
    return row["id1"], side


def _class(row: Row) -> str:
    found = _CLASSES.get(row["classification"].lower())
    if found is None:
        raise row.wrong("classification", "Benign or Malignant")
    return found


def _image(
    tree: Tree, path: Path, classes: Mapping[Breast, set[str]], split: str | None, left_out: LeftOut
) -> LabelledImage | None:
    """One file; None if it is not of `split`, or if its header does not say what it shows."""
    name = tree.name_of(path)
    try:
        patient = str(read_elements(path, ("PatientID",)).get("PatientID", "")).strip()
        if not _ID.fullmatch(patient):
            left_out.add("files have a PatientID that is not of the set", name)
            return None
        if split not in (None, patient[:2]):
            return None
        view = read_stated_view(path)
    except NotForThisNetwork:
        left_out.add("files show another view than CC and MLO of one breast", name)
        return None
    except InputError:
        left_out.add("files cannot be read, or their header has no view", name)
        return None
    known = classes.get((patient, view.value[0]))
    if known is None:
        left_out.add("images are of breasts without a row in the table, and have no label", name)
    return _labelled(name, path, view, patient, known)


def _labelled(name: str, path: Path, view: View, patient: str, known: set[str] | None) -> LabelledImage:
    labels = {each: None if known is None else each in known for each in _CLASSES.values()}
    return LabelledImage(name=name, path=path, view=view, exam=patient, labels=labels)
