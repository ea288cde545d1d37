"""INbreast: BI-RADS, views and names, outlines of OsiriX, and what is counted instead of used."""

from pathlib import Path

import numpy as np
import pytest
from support.labelled_sets import INBREAST, write_digital, write_lines, write_outlines

from glam_bench.evaluation.datasets import open_dataset
from glam_bench.evaluation.labelled import LabelledSet, masks_of, read_labelled
from glam_deploy.errors import UsageError
from glam_deploy.records import View

PATIENT = "6c613a14b80a8591"
SQUARE = [(10.4, 20.0), (20.0, 20.0), (20.0, 30.0), (10.4, 30.0)]
"""(x, y): columns 10 to 20 and rows 20 to 30, edges included."""
ROI = (
    b"<plist><dict><key>Images</key><array><dict><key>ROIs</key><array><dict><key>Point_px</key><array>"
    b"<string>?</string></array></dict></array></dict></array></dict></plist>"
)


def write_set(folder: Path, *rows: str) -> Path:
    """The release folder; `rows`: from the laterality on."""
    release = folder / "INbreast Release 1.0"
    write_lines(release / "INbreast.csv", [INBREAST, *(f"removed;removed;{row}" for row in rows)])
    return release


def write_image(release: Path, name: str, view: View) -> None:
    write_digital(release / f"AllDICOMs/{name}_ANON.dcm", view=view)


def one_image(folder: Path, birads: str) -> Path:
    """A set with one image, 20586908, a right CC."""
    release = write_set(folder, f"R;CC;201001;20586908;     ;{birads}")
    write_image(release, f"20586908_{PATIENT}_MG_R_CC", View.R_CC)
    return release


def opened(folder: Path) -> LabelledSet:
    return open_dataset("inbreast", folder)


@pytest.mark.parametrize(
    ("birads", "benign", "malignant"),
    [
        ("1", False, False),
        ("2", True, False),
        ("3", True, False),
        ("4a", None, True),
        ("4c", None, True),
        ("5", None, True),
        ("6 ", None, True),
    ],
)
def test_labels(tmp_path: Path, birads: str, benign: bool | None, malignant: bool) -> None:
    one_image(tmp_path, birads)
    (image,) = opened(tmp_path).images
    assert image.labels == {"benign": benign, "malignant": malignant}
    assert (image.view, image.exam) == (View.R_CC, f"{PATIENT}/201001")
    assert image.name == f"INbreast Release 1.0/AllDICOMs/20586908_{PATIENT}_MG_R_CC_ANON.dcm"
    assert read_labelled(image).view == View.R_CC


def test_two_exams_of_one_woman_and_a_view_named_ml(tmp_path: Path) -> None:
    release = write_set(tmp_path, "L;MLO;200801;22579730;2;2", "L;MLO;201001;22579731;2;5")
    for number in (22579730, 22579731):
        write_image(release, f"{number}_{PATIENT}_MG_L_ML", View.L_MLO)
    images = opened(tmp_path).images
    assert [image.exam for image in images] == [f"{PATIENT}/200801", f"{PATIENT}/201001"]
    assert {image.view for image in images} == {View.L_MLO}


def test_outlines_are_x_then_y(tmp_path: Path) -> None:
    release = one_image(tmp_path, "4b")
    write_outlines(release / "AllXML/20586908.xml", [("Mass", SQUARE), ("Calcification", [(5.0, 5.0)])])
    labelled = opened(tmp_path)
    expected = np.zeros((96, 70), np.bool_)
    expected[20:31, 10:21] = True
    found = masks_of(labelled.images[0], (96, 70))
    assert found.keys() == {"malignant"}
    np.testing.assert_array_equal(found["malignant"], expected)
    assert (
        "1 outlines are not used, because they have one or two points, such as Calcification in 20586908.xml."
        in labelled.remarks
    )


def test_outlines_of_an_image_without_class_are_counted(tmp_path: Path) -> None:
    release = one_image(tmp_path, "1")
    write_outlines(release / "AllXML/20586908.xml", [("Mass", SQUARE)])
    labelled = opened(tmp_path)
    assert labelled.images[0].outlines == ()
    assert "1 outlines are not used, because their image has BI-RADS 0 or 1" in labelled.remarks[-1]


def test_absent_images_and_other_views_are_counted(tmp_path: Path) -> None:
    release = write_set(tmp_path, "R;CC;201001;1;2;2", "R;CC;201001;2;2;2", "R;FB;201001;3;2;2")
    write_image(release, f"1_{PATIENT}_MG_R_CC", View.R_CC)
    labelled = opened(tmp_path)
    assert len(labelled.images) == 1
    assert labelled.remarks[-2:] == (
        "1 images are listed in the tables and absent from the folder, such as 2.",
        "1 images have another view than CC and MLO, such as 3 (FB).",
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("R;CC;201001;1;2;7", "INbreast.csv, line 2: bi-rads is '7', expected a BI-RADS category, 0 to 6"),
        ("R;CC;201001;1;2;", "line 2: bi-rads is '', expected a BI-RADS category"),
        ("X;CC;201001;1;2;2", "line 2: laterality is 'X', expected L, R, LEFT or RIGHT"),
        ("L;CC;201001;1;2;2", r"line 2: view is 'CC', expected that of the file name .* \(R-CC\); laterality is L"),
    ],
)
def test_wrong_cells(tmp_path: Path, row: str, said: str) -> None:
    write_image(write_set(tmp_path, row), f"1_{PATIENT}_MG_R_CC", View.R_CC)
    with pytest.raises(UsageError, match=said):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<plist>no", "20586908.xml: the outlines cannot be read"),
        (b"<plist><dict><key>Images</key><array/></dict></plist>", "IndexError"),
        (
            b'<!DOCTYPE plist [<!ENTITY a "aaaa">]><plist><string>&a;</string></plist>',
            "the outlines cannot be read .*entity",
        ),
        (
            ROI.replace(b"?", b"1, 2, 3"),
            r"""20586908.xml: a point is '1, 2, 3', expected "\(x, y\)" in pixels""",
        ),
    ],
)
def test_damaged_outlines(tmp_path: Path, content: bytes, said: str) -> None:
    release = one_image(tmp_path, "5")
    (release / "AllXML").mkdir()
    (release / "AllXML/20586908.xml").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        opened(tmp_path)


def test_the_layout_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not exist.*expected the files of INbreast: INbreast.csv, AllDICOMs/"):
        opened(tmp_path / "nowhere")
    release = one_image(tmp_path, "5")
    (release / "INbreast.csv").unlink()
    with pytest.raises(UsageError, match=r"has no table INbreast.csv; expected the files of INbreast"):
        opened(tmp_path)
    with pytest.raises(UsageError, match="no split 'test', expected none"):
        open_dataset("inbreast", tmp_path, split="test")


def plist(rois: str, head: str = '<?xml version="1.0"?>') -> bytes:
    inner = f"<dict><key>Images</key><array><dict><key>ROIs</key><array>{rois}</array></dict></array></dict>"
    return f'{head}<plist version="1.0">{inner}</plist>'.encode()


def roi(points: str, name: str = "<string>Mass</string>") -> str:
    return f"<dict><key>Name</key>{name}<key>Point_px</key><array>{points}</array></dict>"


POINT, DEEP = "<string>(1, 1)</string>", "<array>" * 100_000 + "</array>" * 100_000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (plist(roi("", "<date>garbage</date>")), "AttributeError"),
        (plist(roi(DEEP)), "a name or a point is no string"),
        (plist(roi("", DEEP)), "a name or a point is no string"),
        (plist(roi(POINT), '<?xml version="1.0" encoding="rot13"?>'), "LookupError"),
        (plist(roi("<data>?</data>")), "the outlines cannot be read"),
        (plist(roi("<integer>1</integer>")), "a name or a point is no string"),
        (plist(roi(f"<string>{'9' * 100_000}</string>")), r"a point is '9{200}', expected"),
        (plist(roi(POINT) * 5001), "ROIs is no list of at most 5000 outlines"),
        (plist(roi(POINT * 200_001)), "there are 200001 points, expected at most 200000"),
    ],
    ids=["date", "deep-point", "deep-name", "encoding", "data", "number", "long", "outlines", "points"],
)
def test_hostile_outlines(tmp_path: Path, content: bytes, said: str) -> None:
    release = one_image(tmp_path, "5")
    (release / "AllXML").mkdir()
    (release / "AllXML/20586908.xml").write_bytes(content)
    with pytest.raises(UsageError, match=f"20586908.xml: .*{said}") as raised:
        opened(tmp_path)
    assert len(str(raised.value)) < 1000


def test_a_file_of_outlines_without_end_is_not_read(tmp_path: Path) -> None:
    release = one_image(tmp_path, "5")
    (release / "AllXML").mkdir()
    with (release / "AllXML/20586908.xml").open("wb") as file:
        file.truncate(4 << 30)
    with pytest.raises(
        UsageError, match=r"20586908.xml: the outlines cannot be read \(it has more than 16777216 bytes"
    ):
        opened(tmp_path)


def test_two_rows_of_one_image(tmp_path: Path) -> None:
    release = write_set(tmp_path, "R;CC;201001;20586908;2;5", "L;CC;201001;1;2;1", "R;CC;201001;20586908;2;1")
    write_image(release, f"20586908_{PATIENT}_MG_R_CC", View.R_CC)
    with pytest.raises(
        UsageError, match=r"INbreast.csv, lines 2 and 4: both are of file name 20586908, expected one row"
    ):
        opened(tmp_path)


def test_two_files_of_one_image(tmp_path: Path) -> None:
    release = one_image(tmp_path, "5")
    write_outlines(release / "AllXML/20586908.xml", [("Mass", SQUARE)])
    write_outlines(release / "copy/20586908.xml", [("Mass", SQUARE)])
    with pytest.raises(UsageError, match=r"20586908.xml and .*20586908.xml are of one image, expected one file"):
        opened(tmp_path)
    (release / "copy/20586908.xml").unlink()
    write_image(release / "copy", f"20586908_{PATIENT}_MG_R_CC", View.R_CC)
    labelled = opened(tmp_path)
    assert labelled.images == ()
    assert labelled.remarks[-1] == "1 images have several files, such as 20586908."


def test_outlines_outside_of_the_image_are_counted(tmp_path: Path) -> None:
    """The image has 96 rows and 70 columns."""
    release = one_image(tmp_path, "5")
    moved = {
        "left": [(x - 30, y) for x, y in SQUARE],
        "right": [(x + 60, y) for x, y in SQUARE],
        "below": [(x, y + 76) for x, y in SQUARE],
        "edge": [(x, y + 75) for x, y in SQUARE],
    }
    write_outlines(release / "AllXML/20586908.xml", [*moved.items()])
    labelled = opened(tmp_path)
    assert len(labelled.images[0].outlines) == 1
    expected = np.zeros((96, 70), np.bool_)
    expected[95, 10:21] = True
    np.testing.assert_array_equal(masks_of(labelled.images[0], (96, 70))["malignant"], expected)
    assert labelled.remarks[-1].startswith("3 outlines are not used, because they are outside of their image, such as ")
