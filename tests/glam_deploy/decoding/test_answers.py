"""What an answer may be: what reading an image gives, and nothing else."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from mammograms import breast, write_mg

from glam_deploy import errors
from glam_deploy.decoding.answers import LONGEST_TEXT, Answer, Refusal
from glam_deploy.dicom.read import read_view
from glam_deploy.errors import DicomError, GlamError, InputError, NotForThisNetwork, Remedy
from glam_deploy.json_records import from_json, to_json
from glam_deploy.reading import read_under_name
from glam_deploy.records import Mammogram, View

TEXTS = {
    "a lone surrogate": "\ud800",
    "a line break": "one\ntwo",
    "a control character": "\x1b[2J",
    "NUL": "a\0b",
    "a mark of direction": "\u202e",
    "too long": "a" * (LONGEST_TEXT + 1),
}


def answer_of(mammogram: Mammogram) -> dict[str, Any]:
    answer: dict[str, Any] = to_json(Answer.of(mammogram))
    return answer


def read_back(answer: Mapping[str, Any], mammogram: Mammogram) -> Mammogram:
    found = from_json(Answer, answer)
    assert found.byte_count() == mammogram.pixels.nbytes
    return found.mammogram(mammogram.pixels, "name.dcm")


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> Mammogram:
    return read_view(write_mg(tmp_path_factory.mktemp("dicom") / "a.dcm"))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Mammogram:
    path = tmp_path_factory.mktemp("picture") / "a_L-CC.npy"
    np.save(path, breast(View.L_CC).astype(np.float32))
    return read_under_name(path, path, for_processing=False)


@pytest.mark.parametrize("kind", ["dicom", "picture"])
def test_what_reading_gives_is_an_answer(request: pytest.FixtureRequest, kind: str) -> None:
    read = request.getfixturevalue(kind)
    found = read_back(answer_of(read), read)
    assert found.source == replace(read.source, name="name.dcm")
    assert (found.view, found.notices, found.horizontal_flip) == (read.view, read.notices, read.horizontal_flip)


WRONG_SOURCES: list[dict[str, Any]] = [
    {"kind": "\ud800"},
    {"kind": "array"},
    {"kind": "png"},  # with UIDs
    {"uids": {"StudyInstanceUID": "1.2\ud800"}},
    {"uids": {"StudyInstanceUID": "DOE^JANE"}},
    {"uids": {"StudyInstanceUID": "1." * 33}},
    {"uids": {"PatientID": "1.2"}},
    {"patient": []},
    {"patient": [["PatientID", "0" * 64], ["PatientBirthDate", "0" * 64], ["StudyDate", "2020"]]},
    {"patient": [["PatientName", "0" * 64], ["PatientBirthDate", "0" * 64], ["StudyDate", "0" * 64]]},
    {"facts": {}},
]
WRONG_FACTS: list[dict[str, Any]] = [
    {"bits_stored": 1 << 40},
    {"bits_stored": 0},
    {"bits_stored": 12.0},
    {"bits_stored": True},
    {"bits_stored": "12"},
    {"imager_pixel_spacing_mm": [0.1]},
    {"imager_pixel_spacing_mm": [0.1, -0.1]},
    {"imager_pixel_spacing_mm": [10**400, 0.1]},
    {"imager_pixel_spacing_mm": "0.1"},
    {"photometric_interpretation": None},
    {"laterality_from": ["option"]},
    {"token": "CANARY"},
    *({name: text} for name in ("voi", "laterality_from") for text in TEXTS.values()),
]


@pytest.mark.parametrize("change", WRONG_SOURCES, ids=ascii)
def test_sources_that_no_image_has(dicom: Mammogram, change: dict[str, Any]) -> None:
    answer = answer_of(dicom)
    with pytest.raises(ValueError, match="out of bounds"):
        read_back(answer | {"source": answer["source"] | change}, dicom)


@pytest.mark.parametrize("change", WRONG_FACTS, ids=lambda change: ascii(change)[:60])
def test_facts_that_no_image_has(dicom: Mammogram, change: dict[str, Any]) -> None:
    answer = answer_of(dicom)
    facts = answer["source"]["facts"] | change
    with pytest.raises(ValueError, match="out of bounds") as caught:
        read_back(answer | {"source": answer["source"] | {"facts": facts}}, dicom)
    assert "CANARY" not in str(caught.value)


def test_a_picture_has_no_header(picture: Mammogram, dicom: Mammogram) -> None:
    answer, header = answer_of(picture), answer_of(dicom)["source"]
    for name in ("uids", "facts", "patient"):
        with pytest.raises(ValueError, match="out of bounds"):
            read_back(answer | {"source": answer["source"] | {name: header[name]}}, picture)


def test_the_name_is_that_of_the_caller(dicom: Mammogram) -> None:
    answer = answer_of(dicom)
    assert read_back(answer | {"source": answer["source"] | {"name": "\ud800"}}, dicom).source.name == "name.dcm"


@pytest.mark.parametrize("shape", [[60_000, 60_000], [10_001, 10_000], [0, 5], [-1, -1], [100], [10, 10, 10], []])
def test_shapes_that_no_image_has(dicom: Mammogram, shape: list[int]) -> None:
    with pytest.raises(ValueError, match="the shape of the answer is out of bounds"):
        from_json(Answer, answer_of(dicom) | {"shape": shape}).byte_count()


@pytest.mark.parametrize("dtype", ["O", ">u2", "<f8", "<i2", "", "\ud800"])
def test_types_that_no_image_has(dicom: Mammogram, dtype: str) -> None:
    with pytest.raises(KeyError):
        from_json(Answer, answer_of(dicom) | {"dtype": dtype}).byte_count()


def test_the_largest_image_is_an_answer(dicom: Mammogram) -> None:
    found = from_json(Answer, answer_of(dicom) | {"shape": [10_000, 10_000], "dtype": "<f4"})
    assert found.byte_count() == 400_000_000


@pytest.mark.parametrize(
    "notices",
    [
        *([{"code": "lossy", "message": text}] for text in TEXTS.values()),
        *([{"code": code, "message": ""}] for code in ("", "Lossy", "a b", "lossy\n", "-", "\ud800", "a" * 3000)),
        [{"code": "lossy", "message": ""}] * 33,
    ],
    ids=lambda notices: ascii(notices)[:60],
)
def test_notices_that_no_image_has(dicom: Mammogram, notices: list[dict[str, str]]) -> None:
    with pytest.raises(ValueError, match="a notice of the answer is out of bounds"):
        read_back(answer_of(dicom) | {"notices": notices}, dicom)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_refusals_with_texts_that_no_error_has(text: str) -> None:
    with pytest.raises(ValueError, match="a refusal of the answer is out of bounds"):
        Refusal(kind="DicomError", message=text, remedies=()).error()


@pytest.mark.parametrize("kind", ["GpuLost", "BackendRunError", "UsageError", "GlamError", "Caller", "\ud800"])
def test_refusals_that_reading_does_not_give(kind: str) -> None:
    with pytest.raises(KeyError):
        Refusal(kind=kind, message="", remedies=()).error()


@pytest.mark.parametrize("remedies", [("RAW",) * 9, ("RAW", "RAW"), ("\ud800",)])
def test_remedies_that_no_error_has(remedies: tuple[str, ...]) -> None:
    with pytest.raises((KeyError, ValueError)):
        Refusal(kind="InputError", message="", remedies=remedies).error()


@pytest.mark.parametrize(
    "error",
    [
        InputError("a view", Remedy.NAME_VIEW, Remedy.RAW),
        DicomError("µm ± 2"),
        NotForThisNetwork("an implant"),
        errors.IncompleteObject("cut"),
        errors.BackendUnavailable("no decoder"),
        errors.InternalError("a fault"),
    ],
)
def test_errors_of_reading_arrive_as_they_are(error: GlamError) -> None:
    found = Refusal.of(error).error()
    assert (type(found), found.args, found.remedies) == (type(error), error.args, error.remedies)


def test_what_a_decoder_quotes_from_a_damaged_file_is_escaped() -> None:
    assert Refusal.of(InputError("tag \x07\ud800\n is unknown")).error().args[0] == "tag \\x07\\ud800\\n is unknown"
    long = Refusal.of(InputError("é" * 5000)).error().args[0]
    assert long == "é" * (LONGEST_TEXT - 3) + "..."
