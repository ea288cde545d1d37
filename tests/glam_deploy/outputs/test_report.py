import json
from types import MappingProxyType

import numpy as np
import pytest

from glam_deploy.errors import DicomError, InputError, NotForThisNetwork
from glam_deploy.outputs import report
from glam_deploy.records import Source, View

KEYS = [
    *["schema", "schema_version", "status", "statement", "input", "predictions", "patches", "preprocessing"],
    *["warnings", "timings_ms", "provenance", "files", "error"],
]


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def read(content: report.Report) -> dict:
    return json.loads(report.to_text(content), parse_constant=refuse)


def done(result) -> report.Report:
    return report.done(result, arrays_name="x.npz", picture_name=None)


def test_a_finished_image(make_result):
    read_back = read(done(make_result(attention=np.array([0.9, 0.1], np.float32))))
    assert list(read_back) == KEYS
    assert read_back["status"] == "done" and read_back["error"] is None
    assert read_back["predictions"]["y_global"] == {"benign": 0.3, "malignant": 0.7}
    assert read_back["files"] == {"arrays": "x.npz", "picture": None}
    assert read_back["warnings"] == [{"code": "label", "message": "A film label was left out."}]
    assert read_back["timings_ms"] == {"global": 12.346}
    assert read_back["provenance"] == {"bundle": "sha256:00"}
    assert read_back["preprocessing"] == {
        "source_shape": [3000, 2000],
        "network_shape": [2944, 1920],
        "crop_window": [10, 2990, 0, 1960],
        "best_center": [1512, 980],
        "half_turn": False,
        "mirrored": False,
        "row_shift": 30,
        "column_shift": 20,
    }


def test_patches_in_both_frames(make_result, right):
    peaks = np.zeros((2, 2, 128, 128), np.float32)
    peaks[0, 1, 5, 6], peaks[1, 0, 7, 8] = 0.6, 0.9
    result = make_result(placement=right, saliency_patches=peaks, attention=np.array([0.9, 0.1], np.float32))
    assert read(done(result))["patches"] == [
        {
            "order": 1,
            "network_box": [160, 320, 672, 832],
            "source_box": [200, 1168, 712, 1680],
            "attention": 0.9,
            "peak_saliency": {"benign": 0.0, "malignant": 0.6},
        },
        {
            "order": 2,
            "network_box": [1600, 960, 2112, 1472],
            "source_box": [1640, 528, 2152, 1040],
            "attention": 0.1,
            "peak_saliency": {"benign": 0.9, "malignant": 0.0},
        },
    ]


def test_a_checkpoint_without_attention_says_null(make_result):
    content = read(done(make_result()))
    assert [patch["attention"] for patch in content["patches"]] == [None, None]
    assert set(content["predictions"]) == {"y_global", "y_local"}


@pytest.mark.parametrize(
    ("view", "mirrored", "flip"),
    [("L-CC", False, False), ("L-MLO", True, True), ("R-CC", True, False), ("R-MLO", False, True)],
)
def test_horizontal_flip_is_what_the_mammogram_said(make_result, right, view, mirrored, flip):
    placement = right if mirrored else make_result().input.placement
    assert read(done(make_result(view=View(view), placement=placement)))["input"] == {
        "name": "case.dcm",
        "kind": "dicom",
        "uids": {},
        "facts": {},
        "view": view,
        "horizontal_flip": flip,
    }


def test_a_failed_and_a_skipped_image_keep_the_skeleton():
    failed = read(report.failure("a.dcm", None, DicomError("no pixels")))
    skipped = read(report.failure("b.dcm", View.R_CC, NotForThisNetwork("tomosynthesis")))
    assert list(failed) == list(skipped) == KEYS
    assert failed["status"] == "failed" and skipped["status"] == "skipped"
    assert failed["error"] == {"type": "DicomError", "message": "no pixels"}
    assert skipped["input"]["view"] == "R-CC" and skipped["predictions"] is None


def test_facts_may_be_read_only_mappings_and_numpy_values(make_result):
    facts = MappingProxyType({"spacing_mm": np.array([0.07, 0.07]), "bits": np.int64(12), "nested": [np.float32(0.5)]})
    source = Source(name="x", kind="dicom", facts=facts)
    content = read(done(make_result(source=source)))
    assert content["input"]["facts"] == {"spacing_mm": [0.07, 0.07], "bits": 12, "nested": [0.5]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("nan"), object()])
def test_what_json_cannot_say_is_refused(make_result, value):
    source = Source(name="x", kind="png", facts={"broken": value})
    with pytest.raises(InputError, match="report"):
        report.to_text(done(make_result(source=source)))


@pytest.mark.parametrize("name", ["Mönch-胸部.dcm", 'quote " [\n 1, 2\n] \\ tab\t', "[1, 2]"])
def test_any_name_comes_back(make_result, name):
    assert read(done(make_result(source=Source(name=name, kind="png"))))["input"]["name"] == name


def test_boxes_stay_on_one_line(make_result):
    text = report.to_text(done(make_result()))
    assert '"network_box": [160, 320, 672, 832],' in text
    assert "\n    {\n" in text, "objects are indented"


def test_shortest_form_is_exact_in_float32():
    values = np.random.default_rng(1).random(2000, dtype=np.float32)
    assert all(np.float32(report.shortest(v)) == v for v in values)
    assert report.shortest(np.float32(0.3)) == 0.3
