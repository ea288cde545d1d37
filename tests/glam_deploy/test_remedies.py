"""What is advised, to whom: an option of the command line helps no Python program, and the other way round."""

import re
from pathlib import Path

import numpy as np
import pytest
from mammograms import write_mg
from pydicom.dataset import Dataset

import glam_deploy
from glam_deploy.dicom.received import examine
from glam_deploy.errors import WORDING, Caller, GlamError, InputError, Remedy
from glam_deploy.networks import GLAM
from glam_deploy.preprocess import place
from glam_deploy.reading import in_file, read
from glam_deploy.records import VIEW_NAMES, Mammogram, View
from glam_export.precision.calibration import images_in

HAVE = {
    Caller.PYTHON: set(),
    Caller.RUN: {
        *("--view", "--horizontal-flip", "--for-processing", "--standardized"),
        *("--ungated", "--bundle", "--device", "--flavour"),
    },
    Caller.GATE: {"--view", "--standardized", "--bundle", "--device", "--flavour"},
    Caller.CALIBRATION: set(),
    Caller.EVALUATE: {"--ungated", "--bundle"},
    Caller.APPLIANCE: set(),
    Caller.RUN_DIR: {"--for-processing", "--ungated", "--bundle", "--device", "--flavour"},
    Caller.SERVER: set(),
    Caller.ARCHIVE: {"--for-processing", "--ungated", "--bundle", "--flavour", "--retry-failed"},
}
"""The options that a caller has; the appliance has keys of its configuration."""


@pytest.mark.parametrize("caller", Caller)
@pytest.mark.parametrize("remedy", Remedy)
def test_advice_is_in_the_callers_own_words(remedy: Remedy, caller: Caller) -> None:
    words = WORDING[remedy][caller]
    assert set(re.findall(r"--[a-z-]+", words)) <= HAVE[caller]
    if caller is not Caller.PYTHON:
        assert "=True" not in words and "view=" not in words
    if "L-CC" in words and "one of" in words:
        assert VIEW_NAMES in words


def test_no_reader_of_images_knows_options() -> None:
    """They raise for all callers alike."""
    folder = Path(glam_deploy.__file__).parent
    files = [
        *(folder / "dicom").glob("*.py"),
        *(folder / "preprocess").glob("*.py"),
        *(folder / "images").glob("*.py"),
        folder / "reading.py",
    ]
    for file in files:
        found = re.findall(r"--(?:view|horizontal-flip|for-processing|standardized)", file.read_text("utf-8"))
        assert not found, file.name


def test_several_remedies_are_alternatives() -> None:
    error = GlamError("wrong", Remedy.OTHER_VIEW, Remedy.FLIP)
    assert str(error) == "wrong: pass the correct view=, one of L-CC, R-CC, L-MLO, R-MLO or pass horizontal_flip=True"
    assert GlamError("wrong", Remedy.OTHER_VIEW, Remedy.FLIP).message_for(Caller.APPLIANCE).count("send it again") == 1
    assert str(GlamError("wrong")) == "wrong"


def _untagged(dataset: Dataset) -> None:
    del dataset.ImageLaterality


def test_the_appliance_is_told_what_its_sender_can_do(tmp_path: Path) -> None:
    received = examine(write_mg(tmp_path / "a.dcm", _untagged), for_processing=False)
    assert received.state == "refused"
    assert "correct ImageLaterality and ViewCodeSequence at the source of the image" in received.reason
    received = examine(write_mg(tmp_path / "b.dcm", for_processing=True), for_processing=False)
    assert received.state == "skipped"
    assert received.reason.endswith("allow it with `for_processing = true` in the table [accept] of the configuration")
    received = examine(tmp_path / "b.dcm", for_processing=False, caller=Caller.RUN_DIR)
    assert received.reason.endswith("allow it with --for-processing")


def test_a_calibration_is_told_the_file_and_its_own_remedy(tmp_path: Path) -> None:
    with (tmp_path / "image.npy").open("wb") as file:
        np.save(file, np.ones((500, 400), np.uint16))
    with pytest.raises(InputError, match=r"image\.npy: .*write it into the name") as caught:
        images_in(tmp_path)
    assert "--view" not in str(caught.value)


def test_the_name_of_a_file_leaves_type_and_remedies(tmp_path: Path) -> None:
    with (tmp_path / "image.npy").open("wb") as file:
        np.save(file, np.ones((500, 400), np.uint16))
    with pytest.raises(InputError) as plain:
        read(tmp_path / "image.npy")
    with pytest.raises(type(plain.value)) as named, in_file(tmp_path / "image.npy"):
        read(tmp_path / "image.npy")
    for caller in Caller:
        assert named.value.message_for(caller) == f"{tmp_path / 'image.npy'}: {plain.value.message_for(caller)}"


def standardized() -> np.ndarray:
    image = np.random.default_rng(5).standard_normal(GLAM.input_shape).astype(np.float32)
    return (image - image.mean()) / image.std()


@pytest.mark.parametrize("name", ["L-CC.npy", "image.npy"])
def test_a_standardized_array_is_known_before_its_view_is_asked_for(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        np.save(file, standardized())
    with pytest.raises(InputError) as caught:
        place(read(tmp_path / name))
    assert "a standardized input" in str(caught.value)
    assert caught.value.message_for(Caller.RUN).endswith("add --standardized")
    assert "--" not in str(caught.value)


def test_negative_pixels_are_not_called_standardized_without_reason() -> None:
    for pixels in (standardized() + 3, standardized()[:2000], -np.abs(standardized())):
        with pytest.raises(InputError, match="smallest pixel"):
            place(Mammogram(pixels=np.ascontiguousarray(pixels), view=View.L_CC))
