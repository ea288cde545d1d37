"""The triage flag: a rule of one line, whose texts must not be read as a diagnosis or a negative result."""

import pytest

from glam_deploy.exams import Triage, ViewScores, triage
from glam_deploy.records import View


def image(view: View, malignant: float | None) -> ViewScores:
    scores = {} if malignant is None else {"y_global": {"malignant": 0.99}, "y_fusion": {"malignant": malignant}}
    return ViewScores(exam="", view=view, status="failed" if malignant is None else "done", scores=scores)


@pytest.mark.parametrize(
    ("scores", "flagged", "highest", "without"),
    [
        ((0.1, 0.2), False, 0.2, 0),
        ((0.1, 0.5), True, 0.5, 0),  # reaches it
        ((0.0, 0.9), True, 0.9, 0),  # though the mean does not
        ((0.1, None), False, 0.1, 1),
        ((None, None), False, None, 2),
        ((), False, None, 0),
    ],
)
def test_one_image_with_its_final_score_is_enough(
    scores: tuple[float | None, ...], flagged: bool, highest: float | None, without: int
) -> None:
    found = triage([image(view, score) for view, score in zip(View, scores, strict=False)], 0.5)
    assert found == Triage(threshold=0.5, highest=highest, without_result=without)
    assert found.flagged == flagged


def test_the_text_says_what_the_flag_is_not() -> None:
    texts = [str(triage([image(View.L_CC, score)], 0.5)) for score in (0.9, 0.1, None)]
    assert all("not a diagnosis" in text and "threshold 0.5" in text for text in texts)
    assert ["no negative result" in text for text in texts] == [False, True, True]
    assert "images without a result: 1" in texts[2]
