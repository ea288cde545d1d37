"""Breasts and exams from images, by hand; areas at each level; comparisons on the units that both networks have."""

from pathlib import Path

import numpy as np
import pytest

from glam_bench.evaluation.classification import areas, comparisons
from glam_bench.evaluation.labelled import LabelledImage, LabelledSet
from glam_bench.evaluation.records import UNITS
from glam_bench.evaluation.units import Scored, units
from glam_deploy.records import View

metrics = pytest.importorskip("sklearn.metrics")


def image(name: str, view: str | None, malignant: bool | None) -> LabelledImage:
    return LabelledImage(
        name=name,
        path=Path(name),
        view=View(view) if view else None,
        exam=name[0],
        labels={"malignant": malignant, "benign": False},
    )


SET = LabelledSet(
    name="set",
    level="image",
    images=(
        image("a1", "L-CC", False),
        image("a2", "L-MLO", True),
        image("a3", "R-CC", False),
        image("a4", "R-CC", None),
        image("b1", None, False),
        image("b2", "L-MLO", False),
        image("b3", "R-CC", True),
    ),
)


def scored(name: str, **scores: float) -> Scored:
    images = {key: {"y_global": {"malignant": value, "benign": 0.5}} for key, value in scores.items()}
    return Scored(name=name, final="y_global", images=images, sides={"b1": "L"})


FOUND = scored("x", a1=0.2, a2=0.6, a3=0.3, a4=0.9, b1=0.4, b2=0.1)
"""b3 could not be evaluated."""


def found(level: str, rule: str) -> dict[str, tuple[bool, float]]:
    made = units(SET, FOUND, "y_global", "malignant", (level, rule))  # type: ignore[arg-type]
    rows = zip(made.keys, made.positive.tolist(), made.scores.round(9).tolist(), strict=True)
    return {key: (positive, score) for key, positive, score in rows}


def test_images_breasts_and_exams_by_hand() -> None:
    """The right breast of a is unknown: one of its images is, and none is positive. Exam b is positive by an image that
    has no score."""
    images = {"a1": (False, 0.2), "a2": (True, 0.6), "a3": (False, 0.3), "b1": (False, 0.4), "b2": (False, 0.1)}
    assert found("image", "image") == images
    assert found("breast", "mean") == {"a/L": (True, 0.4), "b/L": (False, 0.25)}
    assert found("breast", "maximum") == {"a/L": (True, 0.6), "b/L": (False, 0.4)}
    assert found("exam", "mean") == {"a": (True, 0.5), "b": (True, 0.25)}
    assert found("exam", "maximum") == {"a": (True, 0.9), "b": (True, 0.4)}


def test_areas_of_every_level() -> None:
    made = {(one.level, one.rule): one for one in areas(SET, FOUND) if one.label == "malignant"}
    assert tuple(made) == UNITS
    alone = made["image", "image"]
    assert (alone.units, alone.positive, alone.exams) == (5, 1, 2)
    assert alone.auroc is not None
    assert (alone.auroc.value, alone.auroc.low) == (1.0, None)
    assert made["exam", "mean"].auroc is None  # both are positive
    assert made["exam", "mean"].auprc is None  # 1 whatever the scores are


def test_a_comparison_is_of_the_images_that_both_have() -> None:
    other = scored("y", a1=0.7, a2=0.6, a3=0.3, b1=0.65)
    made = {(one.label, one.level): one for one in comparisons(SET, [FOUND, other])}
    one = made["malignant", "image"]
    labels = np.array([0, 1, 0, 0])
    expected = metrics.roc_auc_score(labels, [0.2, 0.6, 0.3, 0.4]) - metrics.roc_auc_score(
        labels, [0.7, 0.6, 0.3, 0.65]
    )
    assert (one.first, one.second, one.units, one.positive) == ("x", "y", 4, 1)
    assert one.bootstrap.value == pytest.approx(expected)
    assert one.delong is None  # one positive image
    assert ("benign", "image") not in made
