"""VinDr-Mammo: its two tables, boxes with a BI-RADS of their own, MONOCHROME1, identifiers that are no UIDs."""

from pathlib import Path

import numpy as np
import pytest
from mammograms import breast, write_mg
from support.labelled_sets import VINDR_BREASTS, VINDR_FINDINGS, write_digital, write_lines

from glam_bench.evaluation.datasets import open_dataset
from glam_bench.evaluation.labelled import LabelledSet, masks_of, read_labelled
from glam_deploy.errors import UsageError
from glam_deploy.records import View

STUDY, SERIES = "b8d273e8601f348d3664778dae0e7e0b", "d931832a0815df082c085b6e09d20aac"
FIRST, SECOND = "d8125545210c08e1b1793a5af6458ee2", "290c658f4e75a3f83ec78a847414297c"


def breast_row(image: str, view: str, birads: str, split: str = "training", study: str = STUDY) -> str:
    side, projection = view.split("-")
    return f"{study},{SERIES},{image},{side},{projection},96,70,{birads},DENSITY C,{split}"


def finding_row(image: str, finding: str, split: str = "training") -> str:
    """`finding`: categories, BI-RADS and box."""
    return f"{STUDY},{SERIES},{image},L,CC,96,70,BI-RADS 4,DENSITY C,{finding},{split}"


def write_set(folder: Path, breasts: list[str], findings: list[str]) -> None:
    write_lines(folder / "breast-level_annotations.csv", [VINDR_BREASTS, *breasts], end="\n")
    write_lines(folder / "finding_annotations.csv", [VINDR_FINDINGS, *findings], end="\n")


def one_image(folder: Path, *findings: str) -> LabelledSet:
    write_set(folder, [breast_row(FIRST, "L-CC", "BI-RADS 4")], [finding_row(FIRST, finding) for finding in findings])
    write_digital(folder / f"images/{STUDY}/{FIRST}.dicom")
    return open_dataset("vindr-mammo", folder)


def test_boxes_have_the_class_of_their_finding(tmp_path: Path) -> None:
    labelled = one_image(
        tmp_path,
        """"['Mass', 'Skin Retraction']",BI-RADS 4,10.0,20.25,30.0,40.25""",
        "['Focal Asymmetry'],BI-RADS 3,-2.5,0.0,5.0,6.0",
        "['Skin Thickening'],,1.0,1.0,9.0,9.0",
    )
    (image,) = labelled.images
    assert (image.labels, image.exam, labelled.level) == ({"benign": None, "malignant": True}, STUDY, "breast")
    expected = {label: np.zeros((96, 70), np.bool_) for label in ("malignant", "benign")}
    expected["malignant"][20:40, 10:30] = True
    expected["benign"][0:6, 0:5] = True
    found = masks_of(image, (96, 70))
    assert found.keys() == expected.keys()
    for label, mask in expected.items():
        np.testing.assert_array_equal(found[label], mask)
    assert labelled.remarks[-1].startswith("1 boxes are not used, because their findings have no BI-RADS 2 to 6")


def test_no_finding_is_no_box(tmp_path: Path) -> None:
    assert one_image(tmp_path, "['No Finding'],,,,,").images[0].outlines == ()


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_an_inverted_image_whose_identifiers_are_no_uids(tmp_path: Path) -> None:
    write_set(tmp_path, [breast_row(FIRST, "R-MLO", "BI-RADS 1")], [])

    def edit(dataset: object) -> None:
        dataset.StudyInstanceUID = STUDY  # type: ignore[attr-defined]

    path = tmp_path / f"images/{STUDY}/{FIRST}.dicom"
    path.parent.mkdir(parents=True)
    write_mg(path, edit, view=View.R_MLO, photometric="MONOCHROME1")
    (image,) = open_dataset("vindr-mammo", tmp_path).images
    assert image.labels == {"benign": False, "malignant": False}
    mammogram = read_labelled(image)
    np.testing.assert_array_equal(mammogram.pixels, breast(View.R_MLO))
    assert mammogram.view == View.R_MLO


def test_splits_and_absent_images(tmp_path: Path) -> None:
    rows = [breast_row(FIRST, "L-CC", "BI-RADS 2"), breast_row(SECOND, "L-MLO", "BI-RADS 5", split="test")]
    write_set(tmp_path, rows, [])
    write_digital(tmp_path / f"images/{STUDY}/{FIRST}.dicom")
    whole = open_dataset("vindr-mammo", tmp_path)
    assert [image.name for image in whole.images] == [f"images/{STUDY}/{FIRST}.dicom"]
    absent = f"1 images are listed in the tables and absent from the folder, such as {STUDY}/{SECOND}.dicom."
    assert whole.remarks[-1] == absent
    assert absent not in open_dataset("vindr-mammo", tmp_path, split="training").remarks
    assert open_dataset("vindr-mammo", tmp_path, split="test").images == ()


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        ("['Mass'],BI-RADS 4,30.0,20.0,10.0,40.0", "finding_annotations.csv, line 2: xmax is '10.0', expected more"),
        ("['Mass'],BI-RADS 4,1.0,2.0,3.0,nan", "line 2: ymax is 'nan', expected a number of pixels"),
        ("['Mass'],BI-RADS 9,1.0,2.0,3.0,4.0", "line 2: finding birads is 'BI-RADS 9', expected a BI-RADS category"),
    ],
)
def test_wrong_cells(tmp_path: Path, finding: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        one_image(tmp_path, finding)


def test_the_layout_is_named(tmp_path: Path) -> None:
    write_digital(tmp_path / f"images/{STUDY}/{FIRST}.dicom")
    write_lines(tmp_path / "breast-level_annotations.csv", [VINDR_BREASTS])
    with pytest.raises(UsageError, match=r"has no table finding_annotations\.csv; expected the files of VinDr-Mammo"):
        open_dataset("vindr-mammo", tmp_path)


def test_two_rows_of_one_image(tmp_path: Path) -> None:
    rows = [breast_row(FIRST, "L-CC", "BI-RADS 1"), breast_row(FIRST, "L-CC", "BI-RADS 5")]
    write_set(tmp_path, rows, [])
    write_digital(tmp_path / f"images/{STUDY}/{FIRST}.dicom")
    said = (
        f"breast-level_annotations.csv, lines 2 and 3: both are of study id image id {STUDY}/{FIRST}, expected one row"
    )
    with pytest.raises(UsageError, match=said):
        open_dataset("vindr-mammo", tmp_path)


def test_two_files_of_one_image(tmp_path: Path) -> None:
    write_digital(tmp_path / f"copy/{STUDY}/{FIRST}.dicom")
    labelled = one_image(tmp_path)
    assert labelled.images == ()
    assert labelled.remarks[-1] == f"1 images have several files, such as {STUDY}/{FIRST}.dicom."


def test_boxes_outside_of_the_image_are_counted(tmp_path: Path) -> None:
    """The image has 96 rows and 70 columns."""
    labelled = one_image(
        tmp_path,
        "['Mass'],BI-RADS 5,-500.0,-500.0,-5.0,-5.0",
        "['Mass'],BI-RADS 5,70.0,0.0,80.0,10.0",
        "['Mass'],BI-RADS 5,69.0,95.0,80.0,100.0",
    )
    expected = np.zeros((96, 70), np.bool_)
    expected[95, 69] = True
    np.testing.assert_array_equal(masks_of(labelled.images[0], (96, 70))["malignant"], expected)
    assert labelled.remarks[-1] == (
        f"2 outlines are not used, because they are outside of their image, such as {FIRST}.dicom."
    )


def test_boxes_of_an_unknown_image_are_counted(tmp_path: Path) -> None:
    box = "['Mass'],BI-RADS 5,1.0,1.0,9.0,9.0"
    write_set(tmp_path, [breast_row(FIRST, "L-CC", "BI-RADS 5")], [finding_row(SECOND, box), finding_row(FIRST, box)])
    write_digital(tmp_path / f"images/{STUDY}/{FIRST}.dicom")
    labelled = open_dataset("vindr-mammo", tmp_path)
    assert len(labelled.images[0].outlines) == 1
    assert labelled.remarks[-1] == (
        f"1 boxes are of images without a row in breast-level_annotations.csv, such as {STUDY}/{SECOND}."
    )
