"""Exam-level scores: hand-computed means and maxima, and what an exam lacks."""

from collections.abc import Callable, Mapping
from pathlib import PurePath

import numpy as np
import pytest

import glam_deploy
from glam_deploy.errors import UsageError
from glam_deploy.exams import ExamScores, Pooled, ViewScores, any_group, exam_lines, made_by, pool, score_exams
from glam_deploy.records import Source, View
from glam_deploy.runtime.result import Result
from glam_deploy.view_names import exam_from_name


def image(
    view: View | None, malignant: float = 0.5, status: str = "done", exam: str = "1", score: str = "y_fusion"
) -> ViewScores:
    """y_global is far from the final score, and is never to be seen."""
    other: Mapping[str, Mapping[str, float]] = {"y_global": {"benign": 0.01, "malignant": 0.99}}
    scores = {**other, score: {"benign": 0.25, "malignant": malignant}} if status == "done" else {}
    return ViewScores(exam=exam, view=view, status=status, scores=scores)


def one(*images: ViewScores) -> ExamScores:
    (exam,) = score_exams(images)
    return exam


FOUR = (
    image(View.L_CC, 0.125),
    image(View.R_CC, 0.75),
    image(View.L_MLO, 0.375),
    image(View.R_MLO, 0.25),
)


def test_a_complete_exam() -> None:
    exam = one(*FOUR)
    assert (exam.score, exam.complete, exam.images) == ("y_fusion", True, 4)
    assert exam.whole["malignant"] == Pooled(mean=0.375, maximum=0.75)
    assert exam.whole["benign"] == Pooled(mean=0.25, maximum=0.25)
    assert exam.breasts["L"]["malignant"] == Pooled(mean=0.25, maximum=0.375)
    assert exam.breasts["R"]["malignant"] == Pooled(mean=0.5, maximum=0.75)
    assert exam_lines(exam) == [
        "exam: y_fusion benign 0.250 / 0.250, malignant 0.375 / 0.750",
        "left breast: y_fusion benign 0.250 / 0.250, malignant 0.250 / 0.375",
        "right breast: y_fusion benign 0.250 / 0.250, malignant 0.500 / 0.750",
    ]


def test_every_image_counts_once_and_a_second_one_of_a_view_is_marked() -> None:
    exam = one(*FOUR, image(View.L_CC, 1.0))
    assert exam.breasts["L"]["malignant"] == Pooled(mean=0.5, maximum=1.0)
    assert exam.views == (View.L_CC, View.L_CC, View.R_CC, View.L_MLO, View.R_MLO)
    assert exam.remarks == ("2 images of L-CC",)


def test_what_is_missing_is_marked() -> None:
    exam = one(*FOUR[:2], image(None, 0.125), image(View.R_MLO, status="skipped"), image(None, status="failed"))
    assert exam.whole["malignant"].mean == pytest.approx((0.125 + 0.75 + 0.125) / 3)
    assert exam.breasts["L"]["malignant"] == Pooled(mean=0.125, maximum=0.125)
    assert exam.remarks == ("no result of L-MLO", "no result of R-MLO", "view unknown: 1", "skipped: 1", "failed: 1")
    assert exam_lines(exam)[-1] == (
        "incomplete: no result of L-MLO; no result of R-MLO; view unknown: 1; skipped: 1; failed: 1"
    )


def test_an_exam_with_all_four_views_is_not_called_incomplete_for_a_skipped_twin() -> None:
    assert exam_lines(one(*FOUR, image(None, status="skipped")))[-1] == "remarks: skipped: 1"


def test_an_exam_without_a_result_has_no_score() -> None:
    exam = one(image(View.L_CC, status="failed"))
    assert (exam.score, exam.whole, exam.breasts, exam.complete) == ("", {}, {}, False)


def test_results_of_two_networks_are_not_combined() -> None:
    exam = one(image(View.L_CC), image(View.R_CC, score="y_local"))
    assert (exam.whole, exam.breasts, exam.score) == ({}, {}, "")
    assert exam.remarks[-1] == "results of different networks (y_fusion, y_global), which are not combined"


def test_exams_keep_their_order_and_their_images() -> None:
    exams = score_exams([image(View.L_CC, exam="b"), image(View.L_CC, 0.1, exam="a"), image(View.R_CC, exam="b")])
    assert [(exam.exam, exam.images) for exam in exams] == [("b", 2), ("a", 1)]
    assert any_group(exams)
    assert not any_group(exams[1:])


def test_pool() -> None:
    assert pool([0.1]) == Pooled(mean=0.1, maximum=0.1)
    assert pool([0.0, 0.5, 1.0]) == Pooled(mean=0.5, maximum=1.0)


def test_results_in_python(make_result: Callable[..., Result]) -> None:
    """Of one study, and of results whose exams the caller names."""
    source = Source(name="a.dcm", kind="dicom", uids={"StudyInstanceUID": "1.2"})
    results = [
        make_result(y_fusion=np.array([0.25, malignant], np.float32), view=view, source=source)
        for view, malignant in ((View.L_CC, 0.125), (View.R_CC, 0.375))
    ]
    (exam,) = glam_deploy.exam_scores(results)
    assert (exam.exam, exam.score, exam.whole["malignant"]) == ("1.2", "y_fusion", Pooled(mean=0.25, maximum=0.375))
    assert [each.exam for each in glam_deploy.exam_scores(results, exams=["a", "b"])] == ["a", "b"]
    with pytest.raises(UsageError, match="there are 1 exams for 2 results"):
        glam_deploy.exam_scores(results, exams=["a"])
    with pytest.raises(UsageError, match=r"result 1 has no StudyInstanceUID.*pass exams="):
        glam_deploy.exam_scores([results[0], make_result()])


@pytest.mark.parametrize(
    ("path", "exam"),
    [
        ("a/0_L-CC.png", "a/0"),
        ("a/0_R-MLO.tif", "a/0"),
        ("a/1_L-CC.png", "a/1"),
        ("a/LEFT CC.png", "a"),
        ("a/rmlo.png", "a"),
        ("a/MLO_right.png", "a"),
        ("a/A_1141_1.LEFT_CC.png", "a/A_1141_1"),
        ("a/scan7.png", "a/scan7"),
        ("L-CC.png", "."),
    ],
)
def test_the_exam_in_a_name(path: str, exam: str) -> None:
    assert exam_from_name(PurePath(path)) == exam


PROVENANCE: dict[str, object] = {
    "checkpoint": {"sha256": "c"},
    "engine": {"name": "onnx", "sha256": {"global": "g"}},
    "patches": 6,
    "versions": {"glam_deploy": "1"},
    "bundle": {"id": "b"},
    "gate": "ungated",
}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"bundle": {"id": "other"}, "gate": "0123", "machine": "other"}, True),
        ({"checkpoint": {"sha256": "other"}}, False),
        ({"engine": {"name": "onnx", "sha256": {"global": "other"}}}, False),
        ({"patches": 3}, False),
        ({"versions": {"glam_deploy": "2"}}, False),
        ({"ensemble": [{"checkpoint": "x", "engine": "y", "gate": "z"}]}, False),
    ],
)
def test_what_counts_as_the_same_maker(
    make_result: Callable[..., Result], change: dict[str, object], same: bool
) -> None:
    """As for --resume: each gate changes the bundle's id and no result."""
    results = [make_result(view=View.L_CC, provenance=PROVENANCE), make_result(provenance=PROVENANCE | change)]
    (exam,) = glam_deploy.exam_scores(results, exams=["1", "1"])
    assert bool(exam.whole) == same
    assert (exam.remarks[-1] == "results of different networks, engines or settings, which are not combined") != same


def test_gates_of_an_ensemble_change_no_result() -> None:
    of = [PROVENANCE | {"ensemble": [{"checkpoint": "x", "engine": "y", "gate": gate}]} for gate in ("a", "b")]
    assert made_by(of[0]) == made_by(of[1])


def test_images_of_two_patients_or_dates_are_not_combined(make_result: Callable[..., Result]) -> None:
    keys = ("PatientID", "PatientBirthDate", "StudyDate")
    sources = [
        Source(
            name="a.dcm", kind="dicom", uids={"StudyInstanceUID": "1.2"}, patient=tuple(zip(keys, values, strict=True))
        )
        for values in ("abc", "axc", "aby")
    ]
    results = [make_result(view=view, source=source) for view, source in zip(View, sources, strict=False)]
    (exam,) = glam_deploy.exam_scores(results)
    assert (exam.score, exam.whole, exam.breasts) == ("", {}, {})
    assert exam.remarks[-1] == "headers differ in PatientBirthDate, StudyDate, so the images are not combined"
    unknown = make_result(view=View.R_CC, source=Source(name="b", kind="dicom", uids={"StudyInstanceUID": "1.2"}))
    (exam,) = glam_deploy.exam_scores([results[0], results[0], unknown])
    assert exam.whole
