"""CBIS-DDSM: its tables, the layouts of the download tools, swapped masks, and how its scans are read."""

from pathlib import Path

import numpy as np
import pytest
from support.engines import small_view
from support.labelled_sets import CBIS_CALC, CBIS_MASS, film, mask, write_capture, write_lines

from glam_bench.evaluation import datasets
from glam_bench.evaluation.datasets import open_dataset
from glam_bench.evaluation.labelled import LabelledImage, masks_of, read_labelled
from glam_deploy.cli.options import DATASETS
from glam_deploy.errors import InputError, NotForThisNetwork, UsageError
from glam_deploy.preprocess import prepare
from glam_deploy.reading import read
from glam_deploy.records import View

LESION = mask(slice(20, 30), slice(10, 25))
OTHER = mask(slice(60, 65), slice(5, 8))
CROP = film()[15:35, 5:30]


def row(case: str, n: int, pathology: str, side: str = "LEFT", view: str = "CC", kind: str = "mass") -> str:
    """A record whose last paths end with a line end inside the cell, as published."""
    patient = f"P_{case}"
    prefix = f"{'Mass' if kind == 'mass' else 'Calc'}-Training_{patient}_{side}_{view}"
    return (
        f"{patient},3,{side},{view},{n},{kind},IRREGULAR,SPICULATED,4,{pathology},4,"
        f'{prefix}/1.2.1/1.2.{case}/000000.dcm,"{prefix}_{n}/1.2.2/1.2.{case}.{n}1/000001.dcm\n",'
        f'"{prefix}_{n}/1.2.2/1.2.{case}.{n}2/000000.dcm\n"'
    )


def one(folder: Path) -> LabelledImage:
    (image,) = open_dataset("cbis-ddsm", folder).images
    return image


def found(image: LabelledImage) -> dict[str, np.ndarray]:
    return masks_of(image, (96, 70))


def write_tables(folder: Path, mass: list[str], calc: list[str] | None = None) -> None:
    write_lines(folder / "mass_case_description_train_set.csv", [CBIS_MASS, *mass])
    if calc:
        write_lines(folder / "calc_case_description_train_set.csv", [CBIS_CALC, *calc])


def test_folders_named_by_uid(tmp_path: Path) -> None:
    """As the tables have it, but with the file names of the NBIA Data Retriever."""
    write_tables(tmp_path, [row("00001", 1, "MALIGNANT")])
    case = tmp_path / "CBIS-DDSM/Mass-Training_P_00001_LEFT_CC"
    write_capture(case / "1.2.1/1.2.00001/1-1.dcm", film())
    write_capture(Path(f"{case}_1") / "1.2.2/1.2.00001.11/1-1.dcm", CROP, series="cropped images")
    write_capture(Path(f"{case}_1") / "1.2.2/1.2.00001.12/1-1.dcm", LESION, series="ROI mask images")
    image = one(tmp_path)
    assert (image.view, image.exam, image.breast) == (View.L_CC, "P_00001", "P_00001/L")
    assert image.labels == {"benign": False, "malignant": True}
    assert image.name == "CBIS-DDSM/Mass-Training_P_00001_LEFT_CC/1.2.1/1.2.00001/1-1.dcm"
    assert found(image).keys() == {"malignant"}
    np.testing.assert_array_equal(found(image)["malignant"], LESION == 255)


def test_folders_named_by_date_with_mask_and_crop_in_one(tmp_path: Path) -> None:
    write_tables(tmp_path, [row("00001", 1, "BENIGN")])
    case = "Mass-Training_P_00001_LEFT_CC"
    write_capture(tmp_path / case / "07-20-2016-DDSM-NA-74994/1.000000-full mammogram images-24515/1-1.dcm", film())
    rois = tmp_path / f"{case}_1" / "07-20-2016-DDSM-NA-94942/1.000000-ROI mask images-18515"
    # the mask is the second file, against the names in the table
    write_capture(rois / "1-1.dcm", CROP)
    write_capture(rois / "1-2.dcm", LESION)
    np.testing.assert_array_equal(found(one(tmp_path))["benign"], LESION == 255)


def test_folders_named_by_series_alone(tmp_path: Path) -> None:
    write_tables(tmp_path, [row("00001", 1, "BENIGN_WITHOUT_CALLBACK")])
    write_capture(tmp_path / "1.2.00001/1-1.dcm", film())
    write_capture(tmp_path / "1.2.00001.12/1-1.dcm", CROP)  # swapped: the crop is in the series of the mask
    write_capture(tmp_path / "1.2.00001.11/1-1.dcm", LESION)
    image = one(tmp_path)
    assert image.labels == {"benign": True, "malignant": False}
    np.testing.assert_array_equal(found(image)["benign"], LESION == 255)


def test_several_abnormalities_of_both_kinds_are_one_image(tmp_path: Path) -> None:
    mass = [row("00002", 1, "MALIGNANT"), row("00002", 2, "BENIGN")]
    write_tables(tmp_path, mass, [row("00002", 1, "MALIGNANT", kind="calcification")])
    for prefix, names in {"Mass": ("1", "2"), "Calc": ("1",)}.items():
        case = f"{prefix}-Training_P_00002_LEFT_CC"
        write_capture(tmp_path / case / "a/b/1-1.dcm", film())
        for name in names:
            write_capture(tmp_path / f"{case}_{name}" / "a/b/1-1.dcm", {"1": LESION, "2": OTHER}[name])
    image = one(tmp_path)
    assert image.labels == {"benign": True, "malignant": True}
    assert len(image.outlines) == 3
    np.testing.assert_array_equal(found(image)["benign"], OTHER == 255)


def test_a_mask_of_another_size_is_counted_and_not_used(tmp_path: Path) -> None:
    write_tables(tmp_path, [row("00001", 1, "BENIGN"), row("00003", 1, "BENIGN")])
    write_capture(tmp_path / "1.2.00001/1-1.dcm", film())
    write_capture(tmp_path / "1.2.00001.12/1-1.dcm", mask(slice(9), slice(9), (98, 72)))
    labelled = open_dataset("cbis-ddsm", tmp_path)
    assert [image.outlines for image in labelled.images] == [()]
    text = " ".join(labelled.remarks)
    assert "1 masks are not used, because they have not the size of their image" in text
    assert "1 images are listed in the tables and absent from the folder, such as Mass-Training_P_00003" in text


def test_a_scan_is_read_although_it_is_no_mammography_object(tmp_path: Path) -> None:
    write_tables(tmp_path, [row("00001", 1, "BENIGN", side="LEFT", view="MLO")])
    write_capture(tmp_path / "1.2.00001/1-1.dcm", film())
    image = one(tmp_path)
    with pytest.raises(NotForThisNetwork, match="Secondary Capture"):
        read(image.path, view=image.view)
    mammogram = read_labelled(image)
    np.testing.assert_array_equal(mammogram.pixels, film())
    assert (mammogram.view, mammogram.faces_left) == (View.L_MLO, False)


def test_a_scan_with_a_white_border_is_refused_by_preprocessing(tmp_path: Path) -> None:
    """As any image: the message needs facts of the header, which a secondary capture has too."""
    write_tables(tmp_path, [row("00001", 1, "BENIGN")])
    pixels = small_view().pixels.copy()
    pixels[:, -40:] = pixels[:30] = 65535
    write_capture(tmp_path / "1.2.00001/1-1.dcm", pixels)
    with pytest.raises(InputError, match="The background is 65535, not 0"):
        prepare(read_labelled(one(tmp_path)))


def test_splits(tmp_path: Path) -> None:
    write_tables(tmp_path, [row("00001", 1, "BENIGN")])
    write_lines(tmp_path / "mass_case_description_test_set.csv", [CBIS_MASS, row("00004", 1, "MALIGNANT")])
    for case in ("00001", "00004"):
        write_capture(tmp_path / f"1.2.{case}/1-1.dcm", film())
    exams = {
        split: [image.exam for image in open_dataset("cbis-ddsm", tmp_path, split=split).images]
        for split in (None, "train", "test")
    }
    assert exams == {None: ["P_00001", "P_00004"], "train": ["P_00001"], "test": ["P_00004"]}
    with pytest.raises(UsageError, match="no split 'validation', expected one of train, test"):
        open_dataset("cbis-ddsm", tmp_path, split="validation")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",MALIGNANT,", ",CANCER,", r"train_set.csv, line 5: pathology is 'CANCER', expected one of MALIGNANT, BENIGN"),
        (",LEFT,CC,", ",BOTH,CC,", "line 5: left or right breast is 'BOTH', expected L, R, LEFT or RIGHT"),
        (",LEFT,CC,", ",LEFT,XCCL,", "line 5: image view is 'XCCL', expected CC or MLO"),
        ("/1.2.1/", "/", "line 5: image file path is 'Mass-Training_P_00002_LEFT_CC/1.2.00002/000000.dcm', expected"),
    ],
)
def test_a_wrong_cell_is_named_with_the_line_its_record_begins(tmp_path: Path, old: str, new: str, said: str) -> None:
    """The records before it have line ends in their cells."""
    write_tables(tmp_path, [row("00001", 1, "BENIGN"), row("00002", 1, "MALIGNANT").replace(old, new)])
    write_capture(tmp_path / "1.2.00001/1-1.dcm", film())
    with pytest.raises(UsageError, match=said):
        open_dataset("cbis-ddsm", tmp_path)


def test_missing_tables_and_columns(tmp_path: Path) -> None:
    write_capture(tmp_path / "1.2.00001/1-1.dcm", film())
    with pytest.raises(UsageError, match=r"no table mass_case_description_train_set.csv or .* expected the files of"):
        open_dataset("cbis-ddsm", tmp_path)
    write_lines(tmp_path / "mass_case_description_train_set.csv", ["patient_id,image view", "P_1,CC"])
    with pytest.raises(UsageError, match="line 1: the columns are patient id, image view, without left or right"):
        open_dataset("cbis-ddsm", tmp_path)
    with pytest.raises(UsageError, match="no labelled set 'ddsm', expected one of cbis-ddsm, inbreast"):
        open_dataset("ddsm", tmp_path)
    assert datasets.NAMES == DATASETS
