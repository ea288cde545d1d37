"""The plain list and files of predictions: read as they are meant, wrong rows named with line and value."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from support.evaluation import write_exams, write_list

from glam_bench.evaluation import csv_tables
from glam_bench.evaluation.labelled import LabelledImage, LabelledSet, masks_of
from glam_bench.evaluation.plain_list import read_list, require_own_masks
from glam_bench.evaluation.predictions import Predictions, image_index, match, read_predictions, write_predictions
from glam_deploy.errors import UsageError
from glam_deploy.records import View

PUBLISHED = """image_index,benign_pred,malignant_pred,benign_label,malignant_label
0_L-CC,0.1356,0.0081,0,0
0_R-CC,0.8929,0.3259,1,0
0_R-MLO,0.9509,0.1812,1,0
3_L-CC,0.6295,0.9326,0,1
"""


def test_a_list_with_masks(tmp_path: Path) -> None:
    found = read_list(write_exams(tmp_path), tmp_path / "masks")
    first, other = found.images[:2]
    assert (found.name, found.level, len(found.images)) == ("list", "image", 4)
    assert (first.name, first.view, first.exam) == ("images/0_L-CC.png", None, "0")
    assert first.labels == {"benign": False, "malignant": True}
    assert (other.view, other.breast, other.outlines) == (View.L_MLO, "0/L", ())
    masks = masks_of(first, (500, 400))
    assert list(masks) == ["malignant"]
    assert masks["malignant"].sum() == 60 * 60
    assert masks["malignant"][200:260, 100:160].all()


def test_separators_marks_and_unknown_labels(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    text = "﻿EXAM;malignant;benign;file;remark\r\ne;;1;a.png;anything\r\n\r\n"
    (tmp_path / "list.csv").write_text(text, "utf-8", newline="")
    (image,) = read_list(tmp_path / "list.csv").images
    assert image.labels == {"benign": True, "malignant": None}
    assert image.view is None


@pytest.mark.parametrize(
    ("benign", "malignant", "expected"),
    [("1.0", "0.0", (True, False)), ("TRUE", "False", (True, False)), ("NA", "NaN", (None, None))],
)
def test_labels_as_other_programs_write_them(
    tmp_path: Path, benign: str, malignant: str, expected: tuple[bool | None, bool | None]
) -> None:
    """pandas with a gap in the column, Excel, R and pandas."""
    (tmp_path / "a.png").write_bytes(b"")
    (image,) = read_list(write_list(tmp_path, [f"a.png,,e,{benign},{malignant}"])).images
    assert (image.labels["benign"], image.labels["malignant"]) == expected


def test_the_separator_that_excel_states(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "list.csv").write_text("sep=;\r\nfile;exam;benign;malignant\r\na.png;e, f;0;1\r\n", newline="")
    assert read_list(tmp_path / "list.csv").images[0].exam == "e, f"


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["b.png,,e,0,0"], r"line 2: file is 'b.png', expected the name of a file in .*: correct it"),
        (["/etc/passwd,,e,0,0"], "line 2: file is '/etc/passwd', expected the name of a file in "),
        (["../../../../../../../etc/passwd,,e,0,0"], r"line 2: file is '\.\./.*', expected the name of a file in "),
        ([r"x\..\..\a.png,,e,0,0"], "line 2: file is '.*', expected the name of a file in "),
        (["a.png,,e,0,0", "a.png,,e,0,0"], "line 3: file is 'a.png', expected each file once"),
        (["a.png,,,0,0"], "line 2: exam is '', expected an identifier"),
        (["a.png,,e,0,yes"], "line 2: malignant is 'yes', expected 1 or 0 .* for unknown"),
        (["a.png,LEFT,e,0,0"], "line 2: view is 'LEFT', expected one of L-CC, R-CC, L-MLO, R-MLO"),
        ([], "has no row below its heading"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, rows: list[str], told: str) -> None:
    folder = tmp_path / "list"
    (folder / "x").mkdir(parents=True)
    for image in (folder / "a.png", tmp_path / "a.png"):
        image.write_bytes(b"")
    with pytest.raises(UsageError, match=told):
        read_list(write_list(folder, rows))


def test_a_wrong_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("file,view\n")
    with pytest.raises(UsageError, match="line 1: the columns are file, view, without exam, benign, malignant"):
        read_list(tmp_path / "list.csv")
    with pytest.raises(UsageError, match=r"none\.csv cannot be read"):
        read_list(tmp_path / "none.csv")
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_list(tmp_path / "list.csv")


def test_masks_that_will_not_do(tmp_path: Path) -> None:
    """A mask in values of another convention would otherwise count as empty."""
    path = write_exams(tmp_path)
    for value, told in ((255, r"line 2: the mask 0_L-CC_mask.png has values \[255\]"), (100, "line 2: benign is '0'")):
        mask = np.zeros((500, 400), np.uint8)
        mask[5, 5] = value
        cv2.imwrite(str(tmp_path / "masks/0_L-CC_mask.png"), mask)
        with pytest.raises(UsageError, match=told):
            read_list(path, tmp_path / "masks")
    with pytest.raises(UsageError, match=r"no mask is named like an image, such as 0_L-CC_mask.png or 0_L-CC.png"):
        read_list(path, tmp_path)
    with pytest.raises(UsageError, match="does not exist; check --masks"):
        read_list(path, tmp_path / "nowhere")


def test_one_mask_is_of_one_image(tmp_path: Path) -> None:
    """Two images with one file name: a mask for both is refused, a mask in the folder of each is accepted."""
    rows, masks = [], tmp_path / "masks"
    for number, folder in enumerate("AB"):
        spot = np.zeros((50, 40), np.uint8)
        spot[number] = 200
        for place in (tmp_path / "img" / folder, masks / "img" / folder):
            place.mkdir(parents=True)
        (tmp_path / f"img/{folder}/1-1.dcm").write_bytes(b"")
        cv2.imwrite(str(masks / "1-1.png"), spot)
        rows.append(f"img/{folder}/1-1.dcm,,{folder},,1")
    path = write_list(tmp_path, rows)
    with pytest.raises(UsageError, match=r"1-1\.png is named like two images, .*img/A/1-1\.dcm and .*img/B/1-1\.dcm: "):
        read_list(path, masks)
    images = [read_list(write_list(tmp_path, [row], "one.csv"), masks).images[0] for row in rows]
    with pytest.raises(UsageError, match="is named like two images"):
        require_own_masks(images)
    require_own_masks([images[0], images[0]])
    (masks / "1-1.png").rename(masks / "img/B/1-1_mask.png")
    spot[:2] = [[200], [0]]
    cv2.imwrite(str(masks / "img/A/1-1.png"), spot)
    found = [masks_of(image, (50, 40))["malignant"] for image in read_list(path, masks).images]
    assert [mask.any(axis=1).nonzero()[0].tolist() for mask in found] == [[0], [1]]


def test_published_predictions_are_read_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    path.write_text(PUBLISHED)
    found = read_predictions(path)
    assert found.scores["3_L-CC"] == {"benign": 0.6295, "malignant": 0.9326}
    assert [image.exam for image in found.labelled.images] == ["0", "0", "0", "3"]
    assert [image.breast for image in found.labelled.images] == ["0/L", "0/R", "0/R", "3/L"]
    assert found.labelled.level == "breast"
    labels = {image.name: image.labels for image in found.labelled.images}
    write_predictions(tmp_path / "again.csv", found.labelled, found.scores, labels)
    assert (tmp_path / "again.csv").read_text() == PUBLISHED


def test_predictions_of_a_list(tmp_path: Path) -> None:
    labelled = read_list(write_exams(tmp_path))
    assert image_index("images/0_L-CC.png") == "images/0_L-CC"
    path = tmp_path / "p.csv"
    path.write_text(PUBLISHED.splitlines()[0] + "\n0_L-CC,0.5,0.25,,1\nimages/0_L-MLO,1,0,0.0,1\nother,0,0,0,0\n")
    found = match(read_predictions(path), labelled, path)
    assert found.scores == {
        "images/0_L-CC.png": {"benign": 0.5, "malignant": 0.25},
        "images/0_L-MLO.png": {"benign": 1, "malignant": 0},
    }
    assert found.remarks == (
        "p.csv: 1 row left out, such as other, because no image or more than one has this name.",
        "p.csv: 2 images without a row, such as images/1_L-CC.png.",
    )
    path.write_text(PUBLISHED.splitlines()[0] + "\nother,0,0,0,0\n")
    with pytest.raises(UsageError, match="no image_index, such as 'other', is the name of an image of list"):
        match(read_predictions(path), labelled, path)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("a,0.5,1.5,0,0", "line 2: malignant_pred is '1.5', expected a number from 0 to 1"),
        ("a,nan,0.5,0,0", "line 2: benign_pred is 'nan'"),
        ("a,0.1_5,0.5,0,0", "line 2: benign_pred is '0.1_5'"),
        ("a,0.5,\u0660.\u0665,0,0", "line 2: malignant_pred is '\u0660.\u0665'"),
        ('a,"0,5",0.5,0,0', "line 2: benign_pred is '0,5'"),
        ("a,0.5,0.5,0,2", "line 2: malignant_label is '2'"),
        (",0.5,0.5,0,0", "line 2: image_index is ''"),
    ],
)
def test_wrong_predictions_are_named(tmp_path: Path, row: str, told: str) -> None:
    (tmp_path / "p.csv").write_text(f"{PUBLISHED.splitlines()[0]}\n{row}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=told):
        read_predictions(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,exam,benign,malignant,Malignant\na.png,e,0,1,0\n", "line 1: the column malignant is given twice"),
        ("file,exam,benign,malignant\n\na.png,e,0,1,5\n", "line 3: there are 5 cells, the last ones such as '5', expe"),
        (
            "file,exam,benign,malignant,,\na.png,e,0,1,5,\n",
            "line 2: there are 6 cells, the last ones such as '5', expe",
        ),
        ("file,exam,benign,malignant\na.png,e,0,\x001\n", "line 2: there is a NUL byte"),
        ("file,exam,benign,malignant\na.png,e,0\n", "line 2: there are 3 cells, expected 4 as in the heading"),
    ],
)
def test_an_ambiguous_table_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UsageError, match=told):
        read_list(tmp_path / "list.csv")


def test_columns_without_heading_and_cells_are_no_ambiguity(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "list.csv").write_text(";file;exam;benign;malignant;;\n0;a.png;e;0;1;;;\n")
    assert read_list(tmp_path / "list.csv").images[0].labels == {"benign": False, "malignant": True}


def test_a_list_has_the_labels_that_predictions_lack(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("image_index,benign_pred,malignant_pred\n0_L-CC,0.1,0.9\n")
    assert read_predictions(path, labels=False).scores == {"0_L-CC": {"benign": 0.1, "malignant": 0.9}}
    with pytest.raises(UsageError, match="without benign_label, malignant_label"):
        read_predictions(path)


def test_rows_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_tables, "MAX_ROWS", 3)
    path = tmp_path / "p.csv"
    path.write_text(PUBLISHED)
    with pytest.raises(UsageError, match=r"p\.csv has more than 3 rows"):
        read_predictions(path)
    path.write_text(PUBLISHED[: PUBLISHED.index("3_L")])
    assert len(read_predictions(path).scores) == 3


def predictions(path: Path, *indexes: str) -> Predictions:
    """A file with a row for each index: malignant 0.1, 0.2 and so on."""
    rows = [f"{index},0,0.{number},0,1" for number, index in enumerate(indexes, start=1)]
    path.write_text("\n".join([PUBLISHED.splitlines()[0], *rows, ""]))
    return read_predictions(path)


def labelled_set(*names: str) -> LabelledSet:
    images = (LabelledImage(name=name, path=Path(name), view=None, exam=name, labels={}) for name in names)
    return LabelledSet(name="list", level="image", images=tuple(images))


def matched(found: Predictions, labelled: LabelledSet, path: Path) -> dict[str, float]:
    return {name: scores["malignant"] for name, scores in match(found, labelled, path).scores.items()}


def test_an_index_with_points_is_a_whole_name(tmp_path: Path) -> None:
    """UIDs have no suffix, "//" is not "/", and the labels of the same file have every row."""
    path = tmp_path / "p.csv"
    names = ("1.2.840.1_L-CC", "1.2.840.1_L-MLO", "1.2.840.2_L-CC", "a//b", "a/b")
    found = predictions(path, *names)
    expected = {name: number / 10 for number, name in enumerate(names, start=1)}
    assert matched(found, found.labelled, path) == expected
    assert match(found, found.labelled, path).remarks == ()
    labels = {name: {"malignant": True, "benign": False} for name in names}
    write_predictions(tmp_path / "again.csv", found.labelled, found.scores, labels)
    assert matched(read_predictions(tmp_path / "again.csv"), found.labelled, path) == expected
    listed = labelled_set("1.2.840.1_L-CC.dcm", "1.2.840.1_L-MLO", "x.png")
    assert matched(found, listed, path) == {"1.2.840.1_L-CC.dcm": 0.1, "1.2.840.1_L-MLO": 0.2}


def test_the_exact_name_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    listed = labelled_set("a", "a.png", "b.png", "b.dcm")
    found = predictions(path, "a", "a.png", "b")
    assert matched(found, listed, path) == {"a": 0.1, "a.png": 0.2}
    assert match(found, listed, path).remarks[0].startswith("p.csv: 1 row left out, such as b, because")
    scores = {image.name: {"benign": 0.0, "malignant": 0.5} for image in listed.images}
    write_predictions(path, listed, scores, {image.name: {} for image in listed.images})
    again = read_predictions(path)
    assert set(again.scores) == set(scores)
    assert again.labelled.remarks[1].startswith("4 rows count as images of their own, though their names differ in the")


def test_two_rows_of_one_image_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    found = predictions(path, "e1/L-CC", "L-CC")
    with pytest.raises(UsageError, match=r"rows 'e1/L-CC' and 'L-CC' are both of the image e1/L-CC\.png, expected one"):
        match(found, labelled_set("e1/L-CC.png", "e1/R-CC.png"), path)


@pytest.mark.parametrize("name", ["=1+cmd|' /C calc'!A0", "+1.png", "a\nb.png", "D1-\udcff/1.dcm", '-x,y".png'])
def test_names_are_escaped_and_recognized_again(tmp_path: Path, name: str) -> None:
    path, listed = tmp_path / "p.csv", labelled_set(name, "other.png")
    labels = {image.name: {"benign": None, "malignant": True} for image in listed.images}
    write_predictions(path, listed, {name: {"benign": 0.25, "malignant": 0.5}}, labels)
    found = read_predictions(path)
    (index,) = found.scores
    assert index.isprintable()
    assert not index.startswith(("=", "+", "-"))
    assert matched(found, listed, path) == {name: 0.5}
    write_predictions(tmp_path / "again.csv", found.labelled, found.scores, {index: labels[name]})
    assert (tmp_path / "again.csv").read_text() == path.read_text()
