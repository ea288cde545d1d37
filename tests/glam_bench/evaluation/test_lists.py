"""The plain list and files of predictions: read as they are meant, wrong rows named with line and value."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from support.evaluation import write_exams, write_list

from glam_bench.evaluation.labelled import masks_of
from glam_bench.evaluation.plain_list import read_list
from glam_bench.evaluation.predictions import image_index, match, read_predictions, write_predictions
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
    ("rows", "told"),
    [
        (["b.png,,e,0,0"], r"line 2: file is 'b.png', expected the name of a file in .*: correct it"),
        (["a.png,,e,0,0", "a.png,,e,0,0"], "line 3: file is 'a.png', expected each file once"),
        (["a.png,,,0,0"], "line 2: exam is '', expected an identifier"),
        (["a.png,,e,0,yes"], "line 2: malignant is 'yes', expected 1, 0, or nothing for unknown"),
        (["a.png,LEFT,e,0,0"], "line 2: view is 'LEFT', expected one of L-CC, R-CC, L-MLO, R-MLO"),
        ([], "has no row below its heading"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, rows: list[str], told: str) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UsageError, match=told):
        read_list(write_list(tmp_path, rows))


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
    assert found == {
        "images/0_L-CC.png": {"benign": 0.5, "malignant": 0.25},
        "images/0_L-MLO.png": {"benign": 1, "malignant": 0},
    }
    path.write_text(PUBLISHED.splitlines()[0] + "\nother,0,0,0,0\n")
    with pytest.raises(UsageError, match="no image_index, such as 'other', is the name of an image of list"):
        match(read_predictions(path), labelled, path)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("a,0.5,1.5,0,0", "line 2: malignant_pred is '1.5', expected a number from 0 to 1"),
        ("a,nan,0.5,0,0", "line 2: benign_pred is 'nan'"),
        ("a,0.5,0.5,0,2", "line 2: malignant_label is '2'"),
        (",0.5,0.5,0,0", "line 2: image_index is ''"),
    ],
)
def test_wrong_predictions_are_named(tmp_path: Path, row: str, told: str) -> None:
    (tmp_path / "p.csv").write_text(f"{PUBLISHED.splitlines()[0]}\n{row}\n")
    with pytest.raises(UsageError, match=told):
        read_predictions(tmp_path / "p.csv")
