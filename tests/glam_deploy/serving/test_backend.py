"""The pipeline behind the Python backend: the results of `run`, and errors of one request alone."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mammograms import write_mg
from pydicom.dataset import Dataset
from support.frames import is_released
from support.served import exam, standardized, versions, write_repository

import glam_deploy
from glam_deploy.errors import BackendUnavailable, BundleError
from glam_deploy.records import View
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.serving import served
from glam_deploy.serving.backend import Refusal, answer, open_version
from glam_deploy.serving.tensors import DICOM, IMAGE


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("served"), "--graphs", "none", "--patches", "2")


@pytest.fixture(scope="module")
def pipeline(repository: Path) -> Pipeline:
    return open_version(versions(repository)[0], None)


def request_of(data: bytes) -> dict[str, np.ndarray]:
    return {DICOM: np.frombuffer(data, np.uint8)[None]}


def test_a_bad_image_is_an_error_of_its_request_alone(repository: Path, pipeline: Pipeline, tmp_path: Path) -> None:
    """Between requests of both kinds in one batch; all others have the arrays of a pipeline of the bundle."""
    views, image = list(exam(tmp_path).values()), standardized()
    requests = [
        request_of(views[0]),
        request_of(b"no image"),
        {IMAGE: image[None]},
        request_of(views[1][:-50]),
        {},
        {IMAGE: np.full_like(image, np.nan)[None]},
        {IMAGE: np.stack([image, image])},
        request_of(views[2]),
    ]
    made = answer(pipeline, requests)
    with glam_deploy.load(repository.parent / "bundle", patches=2) as own:
        expected = {0: own(views[0]), 2: own(image), 7: own(views[2])}
    for number, one in enumerate(made):
        if number not in expected:
            assert isinstance(one, Refusal), number
            assert one.of_input, number
            continue
        assert not isinstance(one, Refusal), number
        for name in ("y_global", "y_local", "saliency_global", "saliency_patches", "patch_locations"):
            assert one[name].tobytes() == getattr(expected[number], name).tobytes(), (number, name)
    assert "the inputs none, expected one of DICOM and IMAGE" in refusal(made[4])
    assert "2 images, expected 1" in refusal(made[6])


def test_remedies_are_those_of_a_client(pipeline: Pipeline, tmp_path: Path) -> None:
    def without_view(dataset: Dataset) -> None:
        del dataset.ViewCodeSequence

    content = write_mg(tmp_path / "a.dcm", without_view).read_bytes()
    (made,) = answer(pipeline, [request_of(content)])
    assert "correct ImageLaterality and ViewCodeSequence at the source of the image" in refusal(made)
    assert "--" not in refusal(made)


@pytest.mark.parametrize("kind", ["png", "npy"])
def test_a_picture_is_refused_by_what_a_client_can_send(kind: str, pipeline: Pipeline, tmp_path: Path) -> None:
    """A client has no file name, in which the view could be."""
    pixels = np.arange(2000, dtype=np.uint16).reshape(50, 40)
    if kind == "png":
        assert cv2.imwrite(str(tmp_path / "1_L-CC.png"), pixels)
    else:
        np.save(tmp_path / "1_L-CC.npy", pixels)
    (made,) = answer(pipeline, [request_of((tmp_path / f"1_L-CC.{kind}").read_bytes())])
    assert f"a {kind} file has no tags" in refusal(made)
    assert refusal(made).endswith("send the DICOM object of the view, whose tags state it")


def test_a_fault_is_an_error_of_its_request_without_the_exceptions_text(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = list(exam(tmp_path).values())
    prepare = pipeline.prepare

    def faulty(image: object, **options: object) -> object:
        if image == views[0]:
            raise ZeroDivisionError("Doe^Jane")
        return prepare(image, **options)

    monkeypatch.setattr(pipeline, "prepare", faulty)
    first, second = answer(pipeline, [request_of(views[0]), request_of(views[1])])
    assert isinstance(first, Refusal)
    assert not first.of_input
    assert "ZeroDivisionError" in first.message
    assert "Doe" not in first.message
    assert not isinstance(second, Refusal)


def test_an_environment_with_another_release_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "__version__", "9.9.9")
    with pytest.raises(BackendUnavailable, match=r"has glam-deploy 9\.9\.9"):
        open_version(versions(repository)[0], None)


def test_an_edited_record_is_refused(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / versions(repository)[0].name
    folder.mkdir()
    text = (versions(repository)[0] / served.SERVED).read_text()
    (folder / served.SERVED).write_text(text.replace('"patches": 2', '"patches": 3'))
    with pytest.raises(BundleError, match="it was changed"):
        open_version(folder, None)


@pytest.mark.parametrize("kind", ["no image", "npy", "cut", "without pixels", "two", "not finite", "fault", "good"])
def test_an_input_is_released_with_its_answer(
    kind: str, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a garbage collection, because the server's shared memory holds the input for as long."""
    view = exam(tmp_path)[View.L_CC]
    np.save(tmp_path / "raw.npy", np.ones((50, 40), np.uint16))
    contents = {
        "no image": b"no image",
        "npy": (tmp_path / "raw.npy").read_bytes(),
        "cut": view[:-50],
        "without pixels": view[:300],
        "fault": view,
        "good": view,
    }
    images = {"not finite": np.full((1, 2944, 1920), np.nan, np.float32), "two": np.ones((2, 2944, 1920), np.float32)}
    if kind == "fault":
        monkeypatch.setattr(pipeline, "prepare", lambda image: np.frombuffer(image, np.uint8) / "fault")
    name, given = (IMAGE, images[kind]) if kind in images else (DICOM, request_of(contents[kind])[DICOM])
    assert is_released(lambda array: answer(pipeline, [{name: array}]), given)
    (made,) = answer(pipeline, [{name: given}])
    assert isinstance(made, Refusal) == (kind != "good")


def refusal(made: object) -> str:
    assert isinstance(made, Refusal)
    return made.message
