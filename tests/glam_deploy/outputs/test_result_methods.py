"""A result as a dict, as files, as a picture, pickled and compared."""

import copy
import json
import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glam_deploy.errors import UsageError
from glam_deploy.networks import GLAM, GLAM_CONCATENATION, NetworkSpec
from glam_deploy.outputs import report
from glam_deploy.outputs.overlay import overlay
from glam_deploy.outputs.writer import OutputOptions, write_result
from glam_deploy.preprocess import prepare
from glam_deploy.records import Mammogram, Placed, PlacedView, Source, View
from glam_deploy.runtime.result import Result

Make = Callable[..., Result]


def names(folder: Any) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_dict_is_the_report_in_plain_values(make_result: Make) -> None:
    facts = MappingProxyType({"bits": np.int64(12), "spacing": (0.07, 0.07)})
    made = make_result(source=Source(name="a.dcm", kind="dicom", facts=facts), attention=np.array([1, 0], np.float32))
    found = made.to_dict()
    text = report.to_text(report.done(made, arrays_name="x.npz", picture_name=None))
    assert found | {"files": {"arrays": "x.npz", "picture": None}} == json.loads(text)
    assert found["files"] == {"arrays": None, "picture": None}
    assert json.loads(json.dumps(found)) == found
    assert type(found["input"]["facts"]["bits"]) is int


def test_saved_files_are_those_of_run(make_result: Make, pixels: np.ndarray, tmp_path: Any) -> None:
    made = make_result()
    write_result(tmp_path / "run", "case", pixels, made, OutputOptions())
    written = made.save(tmp_path / "saved", pixels=pixels)
    assert [path.name for path in written] == ["case.npz", "case.png", "case.json"]
    for path in written:
        assert path.read_bytes() == (tmp_path / "run" / path.name).read_bytes()
    given = Mammogram(pixels=pixels, view=View.L_CC)
    made.save(str(tmp_path / "again"), stem="other", pixels=given, full=True, save_input=True)
    assert names(tmp_path / "again") == ["other.json", "other.npz", "other.png"]
    with np.load(tmp_path / "again/other.npz") as arrays:
        assert {"saliency", "saliency_source", "input"} <= set(arrays)
    made.save(tmp_path / "bare", picture=False)
    assert names(tmp_path / "bare") == ["case.json", "case.npz"]


def test_a_name_of_digits_is_whole(make_result: Make, tmp_path: Any) -> None:
    uid = Source(name="1.2.840.10008", kind="dicom")
    (_, written) = make_result(source=uid).save(tmp_path, picture=False)
    assert written.name == "1.2.840.10008.json"


def test_wrong_saves(make_result: Make, pixels: np.ndarray, tmp_path: Any) -> None:
    made = make_result()
    with pytest.raises(UsageError, match="is not a stem"):
        made.save(tmp_path, stem="a/b", picture=False)
    with pytest.raises(UsageError, match=r"shape \(10, 2000\)"):
        made.save(tmp_path, pixels=pixels[:10])
    (tmp_path / "case.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="was not written by glam-deploy"):
        made.save(tmp_path, pixels=pixels)
    assert names(tmp_path) == ["case.png"]


def view(mirrored: bool) -> Mammogram:
    """One that fits into the window."""
    rng = np.random.default_rng(4)
    y, x = np.ogrid[:2500, :1500]
    values = np.where((y - 1250) ** 2 + x**2 < 1100**2, rng.integers(800, 3000, (2500, 1500)), 0).astype(np.uint16)
    if mirrored:
        return Mammogram(pixels=np.ascontiguousarray(values[:, ::-1]), view=View.R_CC)
    return Mammogram(pixels=values, view=View.L_CC)


@pytest.mark.parametrize("mirrored", [False, True])
def test_plots(make_result: Make, mirrored: bool) -> None:
    mammogram = view(mirrored)
    made = replace(make_result(), input=prepare(mammogram))
    expected = overlay(mammogram.pixels, made)
    for given in (mammogram, mammogram.pixels, mammogram.pixels.astype(np.int32)):
        np.testing.assert_array_equal(np.asarray(made.plot(given)), expected)
    found = np.asarray(made.plot())
    assert isinstance(made.plot(), Image.Image)
    assert found.shape == expected.shape
    # the standardized input is a linear function of the pixels: the same greys, up to rounding
    assert np.abs(found.astype(int) - expected).max() <= 1
    on_gpu = PlacedView(
        pixels=mammogram.pixels, placement=made.input.placement, source=made.input.source, view=made.input.view
    )
    np.testing.assert_array_equal(np.asarray(replace(made, input=on_gpu).plot()), expected)


def test_pickled_without_the_image(make_result: Make) -> None:
    facts = MappingProxyType({"deep": MappingProxyType({"er": 1})})
    source = Source(name="a.dcm", kind="dicom", uids=MappingProxyType({"SOPInstanceUID": "1.2"}), facts=facts)
    made = make_result(
        source=source, timings_ms=MappingProxyType({"global": 1.0}), provenance=MappingProxyType({"bundle": "0"})
    )
    assert made.network_input.image.nbytes > 22_000_000
    packed = pickle.dumps(made)
    assert len(packed) < 1_000_000
    back = pickle.loads(packed)
    assert back == made
    assert back.to_dict() == made.to_dict()
    assert type(back.input) is Placed
    for use in (lambda: back.network_input, back.plot, lambda: back.save("nowhere")):
        with pytest.raises(UsageError, match="has no pixels of its view"):
            use()
    assert copy.deepcopy(made) == made
    assert pickle.loads(pickle.dumps(back)) == made


def test_a_result_crosses_processes(make_result: Make) -> None:
    made = make_result()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(copy.copy, (made,)) == made


def test_equality(make_result: Make) -> None:
    made = make_result()
    assert made == make_result() == make_result(timings_ms={"global": 3.0})
    others = {
        "y_global": np.array([0.3, np.nextafter(np.float32(0.7), np.float32(1))], np.float32),
        "y_fusion": np.array([0.3, 0.7], np.float32),
        "attention": np.array([0.5, 0.5], np.float32),
        "patch_locations": np.array([[160, 320], [1600, 976]], np.int64),
        "notices": (),
        "provenance": {"bundle": "sha256:01"},
        "view": View.R_CC,
        "source": Source(name="other.dcm", kind="dicom"),
    }
    for name, value in others.items():
        assert made != make_result(**{name: value}), name
    assert made != replace(made, y_global=made.y_global.astype(np.float64))
    assert made != "result"
    assert (made == None) is False  # noqa: E711
    with pytest.raises(TypeError, match="unhashable"):
        hash(made)


@pytest.mark.parametrize("network", [GLAM, GLAM_CONCATENATION], ids=["attention", "concatenation"])
def test_a_pickle_from_before_there_were_several_networks(make_result: Make, network: NetworkSpec) -> None:
    attention = np.full(2, 0.5, np.float32) if network is GLAM else None
    made = make_result(network=network, attention=attention)
    rebuild, (values,) = made.__reduce__()
    before = {name: value for name, value in values.items() if name != "network"}
    assert rebuild(before).network is network
