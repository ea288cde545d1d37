"""What a pipeline takes by name, how it ends, and how errors come back from many views."""

import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from support.engines import FakeEngine, fake_engines, fake_identity, in_step, opened_fakes, small_view
from support.frames import is_released

import glam_deploy
from glam_deploy.dicom.mammography import write_view
from glam_deploy.engines.base import Stopwatch
from glam_deploy.errors import GlamError, InputError, UsageError
from glam_deploy.json_records import to_json
from glam_deploy.reading import read
from glam_deploy.records import Mammogram, View
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Result


def pipeline(**changes: Any) -> Pipeline:
    return Pipeline(replace(opened_fakes(), **changes), patches=1, provenance={})


@pytest.fixture
def npy(tmp_path: Path) -> Path:
    np.save(path := tmp_path / "1_L-CC.npy", small_view().pixels)
    return path


# files and arrays of other kinds


def test_a_view_may_be_a_path_or_what_lies_there(npy: Path, tmp_path: Path) -> None:
    one = pipeline()
    expected = one(read(npy))
    assert one(npy) == one(str(npy)) == expected
    with npy.open("rb") as file:
        assert one(file) == expected
    found = one(npy.read_bytes(), view="L-CC")
    np.testing.assert_array_equal(found.y_global, expected.y_global)
    assert found.input.source.name == "bytes"
    assert one(one.prepare(npy)) == one.submit(npy).result() == expected
    assert list(one.map([npy, npy])) == one.batch([npy, npy]) == [expected, expected]
    write_view(tmp_path / "a.dcm", small_view().pixels, view=View.L_CC)
    expected = one(read(tmp_path / "a.dcm"))
    assert one(tmp_path / "a.dcm") == one(pydicom.dcmread(tmp_path / "a.dcm")) == expected


def test_options_reach_the_reader(npy: Path) -> None:
    mirrored = npy.with_name("scan.npy")
    np.save(mirrored, small_view().pixels[:, ::-1])
    found = pipeline()(mirrored, view="L-CC", horizontal_flip=True)
    assert found.input.placement.mirrored
    with pytest.raises(InputError, match="neither a file name nor the caller states it"):
        pipeline()(mirrored)
    with pytest.raises(InputError, match="cannot be read"):
        pipeline()(mirrored.with_name("absent.npy"))


KINDS = {
    "int16": lambda pixels: pixels.astype(np.int16),
    "int32": lambda pixels: pixels.astype(np.int32),
    "float64": lambda pixels: pixels.astype(np.float64),
    "big endian": lambda pixels: pixels.astype(">u2"),
    "torch": lambda pixels: torch.from_numpy(pixels.astype(np.int32)),
    "torch with a gradient": lambda pixels: torch.from_numpy(pixels.astype(np.float32)).requires_grad_(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_raw_arrays_of_other_types_give_the_same(kind: str) -> None:
    one, pixels = pipeline(), small_view().pixels
    expected = one(pixels, view="L-CC")
    for given in (one(KINDS[kind](pixels), view="L-CC"), one(Mammogram(pixels=KINDS[kind](pixels), view=View.L_CC))):
        for name in ("y_global", "y_scale", "y_local", "saliency_global", "patch_locations"):
            np.testing.assert_array_equal(getattr(given, name), getattr(expected, name))
        assert given.notices == expected.notices


def test_standardized_arrays_of_other_types_give_the_same() -> None:
    one = pipeline()
    image = one(small_view()).network_input.image
    assert one(torch.from_numpy(image)) == one(image.astype(np.float64)) == one(image)
    with pytest.raises(UsageError, match="an array of int32 is a raw image"):
        one(torch.zeros(2944, 1920, dtype=torch.int32))


@pytest.mark.parametrize(
    ("pixels", "told"),
    [
        (np.array([[0, 0.1]]), r"Pixel \(0, 1\) is 0\.1"),
        (np.array([[0, -3]], np.int16), "smallest pixel is -3"),
        (np.array([[0, 1 << 40]]), "is 1099511627776"),
        (torch.zeros(1, 1, 4, 4), r"shape \(1, 1, 4, 4\)"),
    ],
)
def test_values_that_would_change_are_refused(pixels: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        pipeline()(pixels, view="L-CC")


# the end


def test_a_closed_pipeline_says_so(npy: Path) -> None:
    one = pipeline()
    assert not one.closed
    one.close()
    one.close()
    assert one.closed
    calls = (one, one.submit, one.prepare, lambda path: one.batch([path]), lambda path: one.map([path]))
    for call in (*calls, lambda path: one.in_flight, lambda path: one.slot().__enter__(), lambda path: one.__enter__()):
        with pytest.raises(UsageError, match="this pipeline is closed"):
            call(npy)
    assert "closed" in repr(one)
    assert one.provenance["engine"] == to_json(fake_identity())


def test_a_block_closes_whatever_happens(npy: Path) -> None:
    with pipeline() as one:
        assert one(npy).y_global.shape == (2,)
    assert one.closed
    with pytest.raises(ZeroDivisionError), pipeline() as other:
        raise ZeroDivisionError
    assert other.closed


def test_closing_lets_go_of_the_engines(npy: Path) -> None:
    engines = fake_engines()
    one = pipeline(engines=engines)
    held = [weakref.ref(engine) for engine in engines.values()]
    pending = one.submit(npy)
    one.close()
    engines.clear()
    assert pending.result().y_global.shape == (2,)
    del pending
    gc.collect()
    assert [engine() for engine in held] == [None] * 3


@pytest.mark.parametrize("streams", [1, 2])
def test_views_that_were_begun_come_to_their_result(npy: Path, streams: int) -> None:
    one = Pipeline(in_step(streams), patches=1, provenance={})
    pending = [one.submit(npy) for _ in range(streams)]
    one.close()
    assert all(isinstance(each.result(), Result) for each in pending)


class Gate(FakeEngine):
    """A global stage that waits to be let through."""

    def __init__(self) -> None:
        super().__init__("global")
        self.entered, self.open = threading.Event(), threading.Event()

    def _run(self, inputs: Any) -> Any:
        self.entered.set()
        assert self.open.wait(60)
        return super()._run(inputs)


def test_a_view_under_way_in_another_thread_goes_on(npy: Path) -> None:
    gate, found = Gate(), []
    one = pipeline(engines=fake_engines() | {"global": gate})
    thread = threading.Thread(target=lambda: found.append(one(npy)))
    thread.start()
    assert gate.entered.wait(60)
    one.close()
    with pytest.raises(UsageError, match="is closed"):
        one(npy)
    gate.open.set()
    thread.join()
    assert [type(each) for each in found] == [Result]


def test_a_start_that_another_thread_overtakes(npy: Path) -> None:
    one = Pipeline(in_step(2), patches=1, provenance={})
    chain, prepared = one._chain, one.prepare(npy)
    one.close()
    with pytest.raises(UsageError, match="closed in another thread"):
        chain.start([prepared.view], Stopwatch())


# errors of many views


def several(npy: Path) -> list[Any]:
    return [npy, npy.with_name("absent.npy"), [1], np.zeros((2944, 1920), np.float32), npy]


def test_errors_come_back_in_their_place(npy: Path) -> None:
    found = list(pipeline().map(several(npy), errors="return"))
    assert [type(each).__name__ for each in found] == ["Result", "InputError", "UsageError", "InputError", "Result"]
    assert found[0] == found[4]
    assert all(isinstance(each, Result | GlamError) for each in found)


def test_a_returned_error_holds_no_image() -> None:
    unusable = np.zeros((2944, 1920), np.float32)
    assert is_released(lambda image: list(pipeline().map([image], errors="return")), unusable)


def test_errors_of_engines_come_back_too(npy: Path) -> None:
    broken = {"global": FakeEngine("global", offset={"y_scale": np.nan})}
    for streams in (1, 3):
        one = pipeline(engines=fake_engines() | broken, streams=streams)
        found = list(one.map([npy] * 5, errors="return"))
        assert [type(each).__name__ for each in found] == ["BackendRunError"] * 5


def test_the_first_error_ends_the_rest_unless_asked_otherwise(npy: Path) -> None:
    found = pipeline().map(several(npy))
    assert isinstance(next(found), Result)
    with pytest.raises(InputError, match="cannot be read"):
        next(found)


@pytest.mark.parametrize("word", ["ignore", "coerce", None, True])
def test_another_word_is_refused_at_once(word: Any) -> None:
    with pytest.raises(UsageError, match="expected 'raise' or 'return'"):
        pipeline().map([], errors=word)


@pytest.mark.parametrize("one", ["folder", Path("folder"), b"", 3, None, small_view()])
def test_one_view_is_not_several(one: Any) -> None:
    for several_of in (Pipeline.map, Pipeline.batch):
        with pytest.raises(UsageError, match="expected a list or generator of views"):
            several_of(pipeline(), one)


def test_a_fault_of_the_list_itself_is_no_views(npy: Path) -> None:
    def images() -> Iterator[Path]:
        yield npy
        raise ZeroDivisionError

    found = pipeline().map(images(), errors="return")
    assert isinstance(next(found), Result)
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_closing_ends_many_views_with_an_error_and_not_with_one_a_view(npy: Path) -> None:
    one = pipeline()
    found = one.map([npy] * 9, errors="return")
    assert isinstance(next(found), Result)
    one.close()
    with pytest.raises(UsageError, match="is closed"):
        list(found)


# the package


def test_public_names_are_shown() -> None:
    assert dir(glam_deploy) == sorted(glam_deploy.__all__)


def test_the_log_is_silent_by_default_and_names_no_file(npy: Path, caplog: pytest.LogCaptureFixture) -> None:
    handlers = logging.getLogger("glam_deploy").handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in handlers)
    secret = npy.rename(npy.with_name("Doe^Jane_L-CC.npy"))
    with caplog.at_level(logging.DEBUG, "glam_deploy"):
        pipeline()(secret)
    assert "preprocess" in caplog.text
    assert "Doe" not in caplog.text
