"""What is told while reading, in words, warnings, logs and traces: nothing that could name a patient."""

import logging
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from glam_deploy.dicom.read import read_view
from glam_deploy.errors import DicomError, GlamError, NotForThisNetwork

Write = Callable[..., Path]
CANARY = "CANARY^JANE"


def _with_canary(dataset: Dataset) -> None:
    dataset.PatientName = dataset.PatientID = dataset.ReferringPhysicianName = CANARY
    dataset.SeriesDescription = dataset.AccessionNumber = CANARY
    dataset.PatientBirthDate = "19700230"


@pytest.mark.parametrize(
    "damage",
    [
        {},
        {"ImageLaterality": CANARY},
        {"EstimatedRadiographicMagnificationFactor": "2"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
        {"PixelData": b"12"},
    ],
)
def test_no_identifier_is_told(
    write: Write, damage: dict[str, object], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def edit(dataset: Dataset) -> None:
        _with_canary(dataset)
        for keyword, value in damage.items():
            setattr(dataset, keyword, value)

    path = _written_without_validation(write, edit)
    with caplog.at_level(logging.DEBUG):
        try:
            told = repr(read_view(path))
        except GlamError as error:
            told = repr(error) + "".join(traceback.format_exception(error))
    captured = capfd.readouterr()
    assert "CANARY^" not in told + caplog.text + captured.out + captured.err
    assert "19700230" not in told + caplog.text


CODE_STRINGS = (
    "Modality", "PresentationIntentType", "ImageLaterality", "Laterality", "ViewPosition", "BreastImplantPresent",
    "PartialView", "LossyImageCompression", "PhotometricInterpretation", "PresentationLUTShape",
)  # fmt: skip


@pytest.mark.parametrize("keyword", [*CODE_STRINGS, "PatientOrientation", "ImageType"])
def test_a_name_in_capitals_is_not_told(write: Write, keyword: str) -> None:
    """It is a code string of PS3.5 section 6.2 and no term of any of these attributes."""
    for value in ("DOE JANE", ["DOE JANE", "DOE JANE"], ["A", "DOE JANE"]):
        path = _written_without_validation(write, lambda dataset: setattr(dataset, keyword, value))  # noqa: B023
        try:
            told = repr(read_view(path))
        except GlamError as error:
            told = repr(error) + "".join(traceback.format_exception(error))
        assert "DOE" not in told


def test_a_name_as_a_view_is_called_no_defined_term(write: Write) -> None:
    (notice,) = read_view(write(lambda dataset: setattr(dataset, "ViewPosition", "DOE JANE"))).notices
    assert "ViewPosition holds a value that is not a defined term" in notice.message
    assert "DOE" not in notice.message


def test_names_in_coded_terms_are_not_told(write: Write) -> None:
    def edit(dataset: Dataset) -> None:
        item = Dataset()
        item.CodeValue = item.CodingSchemeDesignator = item.CodeMeaning = "DOE JANE"
        dataset.ViewCodeSequence[0].ViewModifierCodeSequence = [item]

    with pytest.raises(NotForThisNetwork, match="an unknown modifier") as caught:
        read_view(write(edit))
    assert "DOE" not in str(caught.value)


def test_no_identifier_is_told_by_a_traceback(write: Write) -> None:
    """pydicom's own error quotes the value."""
    path = write(lambda dataset: dataset.__setattr__("EstimatedRadiographicMagnificationFactor", "1.012345678"))
    path.write_bytes(path.read_bytes().replace(b"1.012345678", CANARY.encode()))
    assert CANARY not in repr(read_view(path))
    path = write(lambda dataset: dataset.add_new("Rows", "DS", "1.012345678"))
    path.write_bytes(path.read_bytes().replace(b"1.012345678", CANARY.encode()))
    with pytest.raises(DicomError, match="Rows is not a number") as caught:
        read_view(path)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def _written_without_validation(write: Write, edit: Callable[[Dataset], None]) -> Path:
    from pydicom import config

    with config.disable_value_validation():
        return write(edit)


def test_an_odd_element_neither_warns_nor_logs(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    """pytest turns any warning into an error here."""

    def odd(dataset: Dataset) -> None:
        dataset.ImagerPixelSpacing = "0.0700000000000000000000001\\0.07"

    path = _written_without_validation(write, odd)
    assert read_view(path).source.facts["imager_pixel_spacing_mm"] == [0.07, 0.07]
    assert caplog.records == []
