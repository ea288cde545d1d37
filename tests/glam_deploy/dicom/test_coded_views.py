"""Codes of views and view modifiers: known ones wherever they stand, unknown ones, and items without any."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from glam_deploy.dicom.read import read_view
from glam_deploy.errors import DicomError, NotForThisNetwork
from glam_deploy.records import View

Write = Callable[..., Path]


def _item(**values: str) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"CodeValue": ""},
        {"CodeValue": "", "CodingSchemeDesignator": "SCT"},
        {"CodeMeaning": ""},
        {"CodingSchemeDesignator": "SCT"},
        {"CodingSchemeDesignator": "SRT", "CodingSchemeVersion": "20240101"},
    ],
    ids=str,
)
@pytest.mark.parametrize("nested", [True, False])
def test_an_empty_modifier_is_no_modifier(write: Write, item: dict[str, str], nested: bool) -> None:
    def edit(dataset: Dataset) -> None:
        holder = dataset.ViewCodeSequence[0] if nested else dataset
        holder.ViewModifierCodeSequence = [_item(**item)]

    assert read_view(write(edit)).notices == ()


def test_an_unknown_modifier_is_overruled_by_the_user_alone(write: Write) -> None:
    def edit(dataset: Dataset) -> None:
        code = _item(CodeValue="X1", CodingSchemeDesignator="99ACME", CodeMeaning="routine")
        dataset.ViewCodeSequence[0].ViewModifierCodeSequence = [code]

    path = write(edit)
    with pytest.raises(NotForThisNetwork, match=r"unknown modifier.*pass view="):
        read_view(path)
    (notice,) = read_view(path, view=View.L_CC).notices
    assert "ViewModifierCodeSequence holds a code outside CID 4015" in notice.message


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"LongCodeValue": "1" * 20, "CodingSchemeDesignator": "SCT"}, "a code outside CID 4015.*, in LongCodeValue"),
        ({"URNCodeValue": "urn:oid:1.2.3"}, "a code outside CID 4015.*, in URNCodeValue"),
        (
            {"CodeValue": "", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Magnification"},
            "no code, only CodeMeaning",
        ),
        ({"CodeMeaning": "rolled"}, "no code, only CodeMeaning"),
        ({"CodeMeaning": "implant"}, "no code, only CodeMeaning"),
        ({"ContextIdentifier": "4015"}, "no code, only ContextIdentifier"),
    ],
    ids=str,
)
@pytest.mark.parametrize("nested", [True, False])
def test_an_item_that_is_not_empty_is_a_modifier(write: Write, item: dict[str, str], words: str, nested: bool) -> None:
    def edit(dataset: Dataset) -> None:
        holder = dataset.ViewCodeSequence[0] if nested else dataset
        holder.ViewModifierCodeSequence = [_item(**item)]

    path = write(edit)
    with pytest.raises(NotForThisNetwork, match=r"unknown modifier.*pass view="):
        read_view(path)
    (notice,) = read_view(path, view=View.L_CC).notices
    assert notice.code == "unknown-value"
    assert re.search(f"ViewModifierCodeSequence holds {words}", notice.message)


@pytest.mark.parametrize("short", ["", "X1", "399055006"])
def test_a_known_code_counts_wherever_it_stands(write: Write, short: str) -> None:
    def edit(dataset: Dataset) -> None:
        code = _item(CodeValue=short, LongCodeValue="399163009", CodingSchemeDesignator="SCT")
        dataset.ViewCodeSequence[0].ViewModifierCodeSequence = [code]

    with pytest.raises(NotForThisNetwork, match=r"view modifier \((magnification|spot compression)\)"):
        read_view(write(edit), view=View.L_CC)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"LongCodeValue": "1" * 20, "CodingSchemeDesignator": "SCT"}, "a code outside CID 4014.*, in LongCodeValue"),
        ({"CodeMeaning": "cranio-caudal"}, "no code, only CodeMeaning"),
    ],
    ids=str,
)
def test_a_view_without_a_known_code_is_unknown_not_missing(write: Write, item: dict[str, str], words: str) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.ViewCodeSequence = [_item(**item)]

    path = write(edit)
    with pytest.raises(DicomError, match=f"^((?!missing).)*ViewCodeSequence holds {words}.*pass view="):
        read_view(path)
    (notice,) = read_view(path, view=View.L_CC).notices
    assert (notice.code, "cranio" in notice.message) == ("unknown-value", False)


def test_a_view_in_a_long_code_is_known(write: Write) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.ViewCodeSequence = [_item(LongCodeValue="399162004", CodingSchemeDesignator="SCT")]

    mammogram = read_view(write(edit))
    assert (mammogram.view, mammogram.notices) == (View.L_CC, ())


def test_a_known_modifier_is_refused_whatever_the_user_says(write: Write) -> None:
    def edit(dataset: Dataset) -> None:
        unknown = _item(CodeValue="X1", CodingSchemeDesignator="99ACME")
        spot = _item(CodeValue="399055006", CodingSchemeDesignator="SCT")
        dataset.ViewCodeSequence[0].ViewModifierCodeSequence = [unknown, spot]

    with pytest.raises(NotForThisNetwork, match="spot compression"):
        read_view(write(edit), view=View.L_CC)
