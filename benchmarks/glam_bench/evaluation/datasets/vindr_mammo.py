"""VinDr-Mammo: 5000 exams of four views, with BI-RADS of each breast and boxes of findings.

Source: Nguyen et al., "VinDr-Mammo: a large-scale benchmark dataset for computer-aided diagnosis in full-field digital
mammography", Scientific Data 2023 (10.1038/s41597-023-02100-7), and its page at PhysioNet (10.13026/br2v-7517). Files
are images/<study_id>/<image_id>.dicom. breast-level_annotations.csv has a row for each image, finding_annotations.csv
one for each finding, and one with finding_categories ['No Finding'] and empty cells for an image without findings. Only
findings that are not benign have boxes; xmin, ymin, xmax and ymax are pixels of the image as stored. Some findings have
no finding_birads. Identifiers are 32 hexadecimal digits, which are no UIDs.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

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
from glam_bench.evaluation.labelled import LabelledImage, LabelledSet, Outline, Rectangle
from glam_deploy.decimals import decimal

TITLE = "VinDr-Mammo"
SPLITS = ("training", "test")
BREASTS, FINDINGS = "breast-level_annotations.csv", "finding_annotations.csv"
LAYOUT = f"{BREASTS}, {FINDINGS} and images/<study_id>/<image_id>.dicom"
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_KEYS = ("study id", "image id", "split")
_REMARK = (
    "Labels are those of the breast (breast_birads). A box has the class of its own finding_birads; benign findings "
    "have no boxes in the set."
)

Key = tuple[str, str]
"""Identifiers of study and image."""


def read_set(folder: Path, split: str | None) -> LabelledSet:
    """The set in `folder`; `split`: "training" or "test". Raises UsageError."""
    require_split(TITLE, split, SPLITS)
    tree, left_out = open_tree(folder, title=TITLE, layout=LAYOUT), LeftOut()
    breasts, findings = tree.table(BREASTS), tree.table(FINDINGS)
    if breasts is None or findings is None:
        raise tree.missing(f"table {FINDINGS if breasts else BREASTS}")
    files: dict[Key, list[Path]] = defaultdict(list)
    for path in tree.images:
        if path.suffix in (".dicom", ".dcm"):
            files[path.parent.name, path.stem].append(path)
    boxes = _boxes(findings, left_out, split)
    rows = read_published(breasts, (*_KEYS, "laterality", "view position", "breast birads"))
    require_one_row(rows, ("study id", "image id"))
    images = []
    for row in rows:
        if _is_in(row, split):
            key = row["study id"], row["image id"]
            paths, found = files.get(key, []), boxes.pop(key, [])
            if len(paths) == 1:
                images.append(_image(tree, paths[0], row, inside(found, paths[0], left_out)))
            else:
                left_out.add(SEVERAL if paths else ABSENT, f"{'/'.join(key)}.dicom")
    for key, found in boxes.items():
        for _ in found:
            left_out.add(f"boxes are of images without a row in {BREASTS}", "/".join(key))
    remarks = (BIRADS_RULE, _REMARK, *left_out.remarks())
    return LabelledSet(name="vindr-mammo", level="breast", images=tuple(images), remarks=remarks)


def _is_in(row: Row, split: str | None) -> bool:
    if row["split"] not in SPLITS:
        raise row.wrong("split", f"one of {', '.join(SPLITS)}")
    return split in (None, row["split"])


def _image(tree: Tree, path: Path, row: Row, boxes: tuple[Outline, ...]) -> LabelledImage:
    view = view_in(row, "laterality", "view position")
    if view is None:
        raise row.wrong("view position", "CC or MLO")
    return LabelledImage(
        name=tree.name_of(path),
        path=path,
        view=view,
        exam=row["study id"],
        labels=labels_of(birads_in(row, "breast birads")),
        outlines=boxes,
    )


def _boxes(table: Path, left_out: LeftOut, split: str | None) -> dict[Key, list[Outline]]:
    """Image -> boxes of its findings."""
    found: dict[Key, list[Outline]] = defaultdict(list)
    for row in read_published(table, (*_KEYS, "finding categories", "finding birads", *_SIDES)):
        if _is_in(row, split) and any(row[side] for side in _SIDES):
            found[row["study id"], row["image id"]] += _box(row, left_out)
    return found


def _box(row: Row, left_out: LeftOut) -> Iterator[Outline]:
    left, top, right, bottom = (_number(row, side) for side in _SIDES)
    for low, high in (("xmin", "xmax"), ("ymin", "ymax")):
        if _number(row, low) >= _number(row, high):
            raise row.wrong(high, f"more than {low}, {row[low]}")
    label = class_of(birads_in(row, "finding birads")) if row["finding birads"] else None
    if label is None:
        left_out.add("boxes are not used, because their findings have no BI-RADS 2 to 6", row["finding categories"])
        return
    yield Outline(label=label, shape=Rectangle(top=top, left=left, bottom=bottom, right=right))


def _number(row: Row, column: str) -> float:
    value = decimal(row[column])
    if value is None or not abs(value) < 1e6:
        raise row.wrong(column, "a number of pixels")
    return value
