"""CBIS-DDSM: scanned films with masks and pathology.

Sources: Lee et al., "A curated mammography data set for use in computer-aided detection and diagnosis research",
Scientific Data 2017 (10.1038/sdata.2017.177); the collection's page at TCIA (10.7937/K9/TCIA.2016.7O02S9CY), which says
that a participant (P_00038) has several patient IDs (Calc-Test_P_00038_LEFT_CC, Calc-Test_P_00038_RIGHT_CC_1). A row of
{mass,calc}_case_description_{train,test}_set.csv is one abnormality in one image; "image file path" and "ROI mask file
path" have the form <patient ID>/<study UID>/<series UID>/<file>, some with a line end inside the cell. Known faults:

- File names in the tables (000000.dcm) are those of the first release; the NBIA Data Retriever writes 1-1.dcm, and
  names folders by UID or by date and series description. Here the series UID or the patient ID in the path counts.
- Mask and crop of an abnormality are swapped in some rows, and share a folder in others: the mask is the file of the
  size of its image.
- Some masks have another size than their image (github.com/fjeg/ddsm_tools, issue 5): they are not used.
- An image with masses and calcifications is in the tables and in the folders of both.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glam_bench.evaluation.csv_tables import Row
from glam_bench.evaluation.datasets.tables import (
    ABSENT,
    LeftOut,
    Tree,
    open_tree,
    read_published,
    require_split,
    view_in,
)
from glam_bench.evaluation.labelled import LabelledImage, LabelledSet, MaskFile, Outline
from glam_deploy.dicom.read import read_elements
from glam_deploy.errors import DicomError
from glam_deploy.records import View

TITLE = "CBIS-DDSM"
SPLITS = ("train", "test")
LAYOUT = (
    "mass_case_description_train_set.csv, mass_case_description_test_set.csv, calc_case_description_train_set.csv and "
    "calc_case_description_test_set.csv (one at least), beside folders such as Mass-Training_P_00001_LEFT_CC with the "
    "DICOM files"
)
_SIDE, _VIEW = "left or right breast", "image view"
_IMAGE, _MASK, _CROP = "image file path", "roi mask file path", "cropped image file path"
_CLASSES = {"MALIGNANT": "malignant", "BENIGN": "benign", "BENIGN_WITHOUT_CALLBACK": "benign"}
_REMARK = (
    "Labels are those of the abnormalities that are listed for an image: pathology MALIGNANT is malignant, BENIGN and "
    "BENIGN_WITHOUT_CALLBACK are benign. Every image has an abnormality. The images are scans of film."
)


def read_set(folder: Path, split: str | None) -> LabelledSet:
    """The set in `folder`; `split`: "train" or "test". Raises UsageError."""
    require_split(TITLE, split, SPLITS)
    tree, left_out = open_tree(folder, title=TITLE, layout=LAYOUT), LeftOut()
    by_image: dict[tuple[str, View], list[Row]] = defaultdict(list)
    for row in _rows(tree, split):
        view = view_in(row, _SIDE, _VIEW)
        if view is None:
            raise row.wrong(_VIEW, "CC or MLO")
        by_image[row["patient id"], view].append(row)
    folders = _by_folder(tree)
    images = [found for (_, view), rows in by_image.items() if (found := _image(tree, folders, view, rows, left_out))]
    return LabelledSet(name="cbis-ddsm", level="image", images=tuple(images), remarks=(_REMARK, *left_out.remarks()))


def _rows(tree: Tree, split: str | None) -> Iterator[Row]:
    splits = (split,) if split else SPLITS
    names = [f"{kind}_case_description_{part}_set.csv" for kind in ("mass", "calc") for part in splits]
    tables = [table for name in names if (table := tree.table(name))]
    if not tables:
        raise tree.missing(f"table {' or '.join(names)}")
    for table in tables:
        yield from read_published(table, ("patient id", _SIDE, _VIEW, "pathology", _IMAGE, _MASK, _CROP))


def _by_folder(tree: Tree) -> Mapping[str, list[Path]]:
    """Name of a folder -> the images anywhere below it."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in tree.images:
        for name in set(path.relative_to(tree.folder).parts[:-1]):
            found[name].append(path)
    return found


def _image(
    tree: Tree, folders: Mapping[str, list[Path]], view: View, rows: Sequence[Row], left_out: LeftOut
) -> LabelledImage | None:
    """One image with all its abnormalities; None if it is not in the folder."""
    classes = [_class(row) for row in rows]
    path = next((path for row in rows if (path := _only(_files(folders, row, _IMAGE)))), None)
    if path is None:
        left_out.add(ABSENT, rows[0][_IMAGE])
        return None
    size = _form(path)
    masks = [_mask(folders, row, size, left_out) if size else None for row in rows]
    return LabelledImage(
        name=tree.name_of(path),
        path=path,
        view=view,
        exam=rows[0]["patient id"],
        labels={name: name in classes for name in ("benign", "malignant")},
        outlines=tuple(
            Outline(label=label, shape=MaskFile(path=mask)) for label, mask in zip(classes, masks, strict=True) if mask
        ),
        film=True,
    )


def _class(row: Row) -> str:
    found = _CLASSES.get(row["pathology"])
    if found is None:
        raise row.wrong("pathology", f"one of {', '.join(_CLASSES)}")
    return found


def _files(folders: Mapping[str, list[Path]], row: Row, column: str) -> list[Path]:
    """The files in the series that a cell names, else those of its patient ID."""
    parts = row[column].replace("\\", "/").split("/")
    if len(parts) != 4:
        raise row.wrong(column, "<patient ID>/<study UID>/<series UID>/<file>")
    return folders.get(parts[2]) or folders.get(parts[0], [])


def _only(paths: Sequence[Path]) -> Path | None:
    return paths[0] if len(paths) == 1 else None


@dataclass(frozen=True, kw_only=True)
class _Form:
    """Form of an image, by its header."""

    shape: tuple[int, int]
    bits: int


def _form(path: Path) -> _Form | None:
    """None for a file that cannot be read, which is reported when its pixels are read."""
    try:
        header = read_elements(path, ("Rows", "Columns", "BitsAllocated"))
        return _Form(shape=(int(header.Rows), int(header.Columns)), bits=int(header.BitsAllocated))
    except (DicomError, AttributeError, TypeError, ValueError):
        return None


def _mask(folders: Mapping[str, list[Path]], row: Row, image: _Form, left_out: LeftOut) -> Path | None:
    """The file of the size of the image among mask and crop of an abnormality."""
    paths = dict.fromkeys((*_files(folders, row, _MASK), *_files(folders, row, _CROP)))
    fitting = {path: form for path in paths if (form := _form(path)) and form.shape == image.shape}
    chosen = _only([*fitting]) or _only([path for path, form in fitting.items() if form.bits == 8])
    if chosen is None:
        reason = (
            "masks are absent"
            if not paths
            else "masks are not used, because several files have the size of the image"
            if fitting
            else "masks are not used, because they have not the size of their image or cannot be read"
        )
        left_out.add(reason, row[_MASK])
    return chosen
