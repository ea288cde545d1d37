"""CMMD: breast-level labels, views by the header alone, 8 bits, breasts without a row, the Excel table."""

from pathlib import Path

import numpy as np
import pytest
from mammograms import breast, write_mg
from support.labelled_sets import CMMD, write_digital, write_lines

from glam_bench.evaluation.datasets import open_dataset
from glam_bench.evaluation.labelled import read_labelled
from glam_deploy.errors import UsageError
from glam_deploy.records import View

TABLE = "CMMD_clinicaldata_revision.csv"


def write_views(folder: Path, patient: str, views: list[View], header: str | None = None) -> Path:
    """Files 1-1.dcm, 1-2.dcm, ... as the NBIA Data Retriever writes them."""
    series = folder / f"CMMD/{patient}/07-18-2010-NA-NA-79377/1.000000-NA-70244"
    for n, view in enumerate(views, start=1):
        write_digital(series / f"1-{n}.dcm", view=view, values={"PatientID": header or patient})
    return series


def test_the_header_says_which_breast_a_file_shows(tmp_path: Path) -> None:
    rows = ["D1-0087,L,50,2,mass,Benign,", "D1-0087,R,50,2,both,Malignant,"]
    write_lines(tmp_path / TABLE, [CMMD, *rows], encoding="utf-8-sig")
    write_views(tmp_path, "D1-0087", [View.R_CC, View.L_MLO, View.R_MLO, View.L_CC])
    labelled = open_dataset("cmmd", tmp_path)
    found = {image.view: image.labels["malignant"] for image in labelled.images}
    assert found == {View.R_CC: True, View.L_MLO: False, View.R_MLO: True, View.L_CC: False}
    assert {image.breast: image.labels["benign"] for image in labelled.images} == {
        "D1-0087/L": True,
        "D1-0087/R": False,
    }
    assert labelled.level == "breast"
    assert len(labelled.remarks) == 1


def test_a_breast_without_a_row_has_no_label(tmp_path: Path) -> None:
    write_lines(tmp_path / TABLE, [CMMD, "D2-0032,R,41,4,mass,Malignant,Luminal A", "D2-0033,L,41,2,mass,Benign,"])
    write_views(tmp_path, "D2-0032", [View.L_CC, View.R_CC])
    labelled = open_dataset("cmmd", tmp_path)
    assert {image.view: image.labels["malignant"] for image in labelled.images} == {View.L_CC: None, View.R_CC: True}
    without_row, without_image = labelled.remarks[1:]
    assert without_row.startswith("1 images are of breasts without a row in the table, and have no label, such as CMMD")
    assert without_image.startswith("1 breasts are listed in the table, and no image in the folder shows them, such as")
    assert without_image.endswith("D2-0033 L.")


def test_folders_named_by_uid_and_an_export_with_semicolons(tmp_path: Path) -> None:
    write_lines(tmp_path / TABLE, [line.replace(",", ";") for line in (CMMD, "D1-0001,R,44,2,calcification,Benign,")])
    write_digital(tmp_path / "1.3.6.1.4.1.14519.5.2/1-1.dcm", view=View.R_CC, values={"PatientID": "D1-0001"})
    (image,) = open_dataset("cmmd", tmp_path).images
    assert (image.exam, image.labels["benign"]) == ("D1-0001", True)


def test_eight_bits(tmp_path: Path) -> None:
    write_lines(tmp_path / TABLE, [CMMD, "D1-0001,R,44,2,calcification,Benign,"])
    path = tmp_path / "1-1.dcm"
    write_mg(path, lambda dataset: setattr(dataset, "PatientID", "D1-0001"), view=View.R_CC, bits=8)
    (image,) = open_dataset("cmmd", tmp_path).images
    pixels = read_labelled(image).pixels
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, breast(View.R_CC, bits=8))


def test_files_that_do_not_say_what_they_show_are_counted(tmp_path: Path) -> None:
    write_lines(tmp_path / TABLE, [CMMD, "D1-0001,R,44,2,calcification,Benign,"])
    write_views(tmp_path, "D1-0001", [View.R_CC])
    write_views(tmp_path, "D1-0002", [View.R_CC], header="anonymous")
    empty = {"PatientID": "D1-0001", "ImageLaterality": None}
    write_digital(tmp_path / "CMMD/D1-0001/x/1-2.dcm", view=View.R_MLO, values=empty)
    labelled = open_dataset("cmmd", tmp_path)
    assert len(labelled.images) == 1
    text = " ".join(labelled.remarks)
    assert "1 files have a PatientID that is not of the set, such as CMMD/D1-0002/" in text
    assert "1 files cannot be read, or their header has no view, such as CMMD/D1-0001/x/1-2.dcm." in text


def test_parts(tmp_path: Path) -> None:
    write_lines(tmp_path / TABLE, [CMMD, "D1-0001,R,44,2,mass,Benign,", "D2-0001,R,44,2,mass,Malignant,HER2-enriched"])
    for patient in ("D1-0001", "D2-0001"):
        write_views(tmp_path, patient, [View.R_CC])
    labelled = open_dataset("cmmd", tmp_path, split="D2")
    assert [image.exam for image in labelled.images] == ["D2-0001"]
    assert len(labelled.remarks) == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("D3-0001,R,44,2,mass,Benign,", f"{TABLE}, line 2: id1 is 'D3-0001', expected D1-0001"),
        ("D1-0001,B,44,2,mass,Benign,", "line 2: leftright is 'B', expected L or R"),
        ("D1-0001,R,44,2,mass,,", "line 2: classification is '', expected Benign or Malignant"),
    ],
)
def test_wrong_cells(tmp_path: Path, row: str, said: str) -> None:
    write_lines(tmp_path / TABLE, [CMMD, row])
    write_views(tmp_path, "D1-0001", [View.R_CC])
    with pytest.raises(UsageError, match=said):
        open_dataset("cmmd", tmp_path)


def test_the_excel_table_alone(tmp_path: Path) -> None:
    write_views(tmp_path, "D1-0001", [View.R_CC])
    (tmp_path / "CMMD_clinicaldata_revision.xlsx").write_bytes(b"PK")
    with pytest.raises(UsageError, match="xlsx is there: open it in a spreadsheet program and save it as CSV UTF-8"):
        open_dataset("cmmd", tmp_path)
