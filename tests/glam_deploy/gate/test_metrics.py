"""Metrics over images counted by hand, and the verdict on them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from glam_deploy.agreement.image import ImageAgreement
from glam_deploy.agreement.limits import Limits
from glam_deploy.agreement.maps import MapAgreement, PatchAgreement, State, map_cells
from glam_deploy.agreement.verdict import judge, metrics
from glam_deploy.gate.metrics import trial_metrics
from glam_deploy.gate.trial import ImageTrial
from glam_deploy.networks import GLAM


def parity(name: str, label: str, dice: float | None = 1.0, state: State = State.JUDGED) -> MapAgreement:
    """The same at every threshold."""
    return MapAgreement(map=name, label=label, dice=(dice,) * 9, states=(state,) * 9)


def row(*changed: MapAgreement, **others: Any) -> ImageTrial:
    """An image on which both sides agree, but for what is given."""
    maps = {(name, label): parity(name, label) for name in map_cells(GLAM) for label in GLAM.classes}
    maps |= {(one.map, one.label): one for one in changed}
    compared: dict[str, Any] = {
        "patches": (PatchAgreement(same=True, tied=False, iou=1.0, moved_px=0.0),),
        "scores": {"y_global": ((0.5, 0.5), (0.25, 0.25))},
        "flips": (),
        "reasons": (),
    }
    plain: dict[str, Any] = {
        "image": "image",
        "flat": (False, False),
        "positive": None,
        "ground_truth": {},
        "latency_ms": 100.0,
    }
    compared |= {name: others.pop(name) for name in [*compared] if name in others}
    return ImageTrial(agreement=ImageAgreement(maps=tuple(maps.values()), **compared), **(plain | others))


def figures(rows: Sequence[ImageTrial]) -> dict[str, Any]:
    """As a gate stores them."""
    return {**metrics([row.agreement for row in rows]).to_json(), **trial_metrics(rows).to_json()}


def broken(rows: Sequence[ImageTrial], limits: Limits | None = None) -> list[str]:
    return list(judge([row.agreement for row in rows], limits or Limits()).failures)


def test_agreement() -> None:
    assert broken([row(), row()]) == []


def test_median_and_worst_of_each_map_and_class() -> None:
    dices = (0.999, 0.98, 0.97, 0.94, None)
    rows = [row(parity("fused", "malignant", dice)) for dice in dices]
    found = figures(rows)
    points = found["dice"]["fused"]["malignant"]
    assert [(p["images"], p["median"], p["worst"], p["interval"]) for p in points] == [(4, 0.975, 0.94, None)] * 9
    assert found["dice"]["fused"]["benign"][0]["median"] == 1
    assert broken(rows) == [
        "Dice of the fused malignant map at 0.1: median 0.9750, limit 0.99",
        "Dice of the fused malignant map at 0.1: worst 0.9400, limit 0.95",
    ]


def test_the_furthest_threshold_stands_for_all() -> None:
    curve = MapAgreement(
        map="global", label="benign", dice=(1, 1, 1, 1, 1, 0.96, 0.98, 1, None), states=(State.JUDGED,) * 9
    )
    assert broken([row(curve)]) == ["Dice of the global benign map at 0.6: median 0.9600, limit 0.99"]


def test_a_lesion_lost_fails_whatever_the_median_is() -> None:
    lost = row(parity("patch", "benign", None, State.LOST), parity("fused", "benign", None, State.LOST))
    rows = [row()] * 50 + [lost]
    found = figures(rows)
    assert (found["lost_or_new"], found["states"]["lost"]) == (1, 18)
    assert broken(rows) == ["lesions lost or new: 1, limit 0"]
    assert broken(rows, Limits(lost=1)) == []


def test_nothing_but_empty_maps_proves_nothing() -> None:
    empty = row(*(parity(name, label, None, State.ALMOST_EMPTY) for name in map_cells(GLAM) for label in GLAM.classes))
    assert broken([empty]) == ["no image has a lesion in any map, so nothing was judged: take images with lesions"]


def test_patches_and_flips() -> None:
    moved = PatchAgreement(same=False, tied=False, iou=0.9, moved_px=16.0)
    tied = PatchAgreement(same=False, tied=True, iou=0.5, moved_px=240.0)
    rows = [row()] * 98 + [row(patches=(tied,)), row(patches=(moved,), flips=("y_global benign",))]
    found = figures(rows)
    assert found["patches"] == {
        "patches": 100,
        "same": 98,
        "tied": 1,
        "agreement": 0.99,
        "interval": found["patches"]["interval"],
        "worst_iou": 0.5,
        "most_moved_px": 240.0,
    }
    assert found["patches"]["interval"][1] == 1
    assert broken(rows) == ["decisions flipped: 1, limit 0"]
    assert broken(rows, Limits(flips=1, patch_agreement=0.991)) == [
        "patches where the reference could have chosen them: 99.0%, limit 99.1%"
    ]


def test_images_that_were_not_compared_fail_whatever_the_others_say() -> None:
    bad = row(flips=("y_global benign",)).agreement
    assert judge([], Limits()).failures == ("no image was compared",)
    assert judge([], Limits(), not_computed=1).failures == ("1 image gave NaN, infinite numbers or an error",)
    assert judge([], Limits(), unreadable=2).failures == ("2 images could not be read",)
    assert judge([row().agreement], Limits(), unreadable=1).failures == ("1 image could not be read",)
    verdict = judge([bad], Limits(), not_computed=3, unreadable=1)
    assert verdict.to_json() == {
        "passed": False,
        "failures": [
            "3 images gave NaN, infinite numbers or an error",
            "decisions flipped: 1, limit 0",
            "1 image could not be read",
        ],
        "limits": {
            "dice_median": 0.99,
            "dice_worst": 0.95,
            "patch_agreement": 0.99,
            "flips": 0,
            "lost": 0,
            "operating_point": 0.5,
        },
    }
    assert judge([], Limits()).metrics is None
    assert verdict.metrics == metrics([bad])
    assert judge([row().agreement], Limits(flips=1)).to_json()["passed"] is True


def test_counts_over_images_maps_classes_and_thresholds() -> None:
    """A lesion of a class counts once for an image, however many of its maps lost it."""
    lost = [parity(name, "benign", None, State.LOST) for name in ("global", "patch", "fused")]
    new = parity("fused", "malignant", None, State.NEW)
    once = MapAgreement(
        map="global",
        label="benign",
        dice=(1.0, *[None] * 8),
        states=(State.JUDGED, State.ALMOST_EMPTY, *[State.EMPTY] * 7),
    )
    rows = [
        row(*lost, new, reasons=("patch moved", "local differs")),
        row(new, reasons=("local differs",)),
        row(once, flips=("y_global benign", "y_global malignant")),
    ]
    found = metrics([one.agreement for one in rows])
    assert (found.images, found.lost_or_new, found.flips) == (3, 3, 2)
    assert found.states == {"lost": 27, "new": 18, "almost empty": 1}
    assert found.judged == 3 * 6 * 9 - 27 - 18 - 8
    assert list(found.reasons.items()) == [("local differs", 2), ("patch moved", 1)]
    assert [point.images for point in found.dice["global"]["benign"]] == [2] + [1] * 8
    assert [point.threshold for point in found.dice["global"]["benign"]] == [n / 10 for n in range(1, 10)]
    assert found.dice["fused"]["malignant"][0].median == 1


def test_a_lesion_counts_for_its_own_class_whatever_their_number() -> None:
    for labels in (["benign"], ["benign", "malignant", "third"]):
        maps = [parity("global", label, *((None, State.LOST) if label == "benign" else ())) for label in labels]
        image = ImageAgreement(maps=tuple(maps), patches=(), scores={}, flips=(), reasons=())
        assert metrics([image]).lost_or_new == 1


def test_the_interval_of_a_median_begins_at_ten_images() -> None:
    """Near the third and the tenth of twelve values, the 95 % interval of a median by order statistics."""
    dices = np.linspace(0.9, 1.0, 12)
    rows = [row(parity("fused", "benign", float(dice))).agreement for dice in dices]
    (low, high) = metrics(rows).dice["fused"]["benign"][8].interval or (0, 0)
    step = dices[1] - dices[0]
    assert (low, high) == pytest.approx((dices[2], dices[9]), abs=step)
    assert metrics(rows[:9]).dice["fused"]["benign"][8].interval is None


def test_patches_of_several_slots() -> None:
    """The interval is of the mean share of an image: in every second of twelve, one of two patches agrees."""
    same = PatchAgreement(same=True, tied=False, iou=1.0, moved_px=0.0)
    moved = PatchAgreement(same=False, tied=False, iou=0.25, moved_px=300.0)
    rows = [row(patches=(same, moved if n % 2 else same)) for n in range(12)]
    found = metrics([one.agreement for one in rows]).patches
    assert found is not None
    assert (found.patches, found.same, found.tied, found.agreement) == (24, 18, 0, 0.75)
    assert (found.worst_iou, found.most_moved_px) == (0.25, 300)
    assert found.interval is not None and 0.5 < found.interval[0] < 0.75 < found.interval[1] < 1
    assert metrics([row(patches=()).agreement]).patches is None


def test_scores_and_areas() -> None:
    """Twelve images with masks: the candidate has two of them in the wrong order."""
    reference = np.linspace(0.1, 0.9, 12)
    candidate = reference.copy()
    candidate[[5, 6]] = reference[[6, 5]]
    rows = [
        row(scores={"y_global": ((a, b), (0.5, 0.5))}, positive={"benign": n >= 6, "malignant": False})
        for n, (a, b) in enumerate(zip(candidate.tolist(), reference.tolist(), strict=True))
    ]
    found = figures(rows)["scores"]["y_global"]
    assert found["benign"]["largest_difference"] == pytest.approx(0.8 / 11)
    assert found["benign"]["rank_agreement"] == pytest.approx(1 - 6 * 2 / (12 * (12**2 - 1)))
    area = found["benign"]["auroc"]
    assert (area["reference"], area["candidate"]) == (1, pytest.approx(35 / 36))
    assert area["interval"][0] < area["difference"] == pytest.approx(-1 / 36)
    assert found["malignant"] == {"largest_difference": 0, "rank_agreement": None, "auroc": None}
    assert figures(rows[2:11])["scores"]["y_global"]["benign"]["auroc"] is None


def test_truth_is_taken_where_the_reference_is_best() -> None:
    """Over both images the reference is best at 0.2, where the candidate is worse; at 0.5 it would be better."""

    def curve(at_2: tuple[float, float], at_5: tuple[float, float]) -> dict[str, Any]:
        return {"benign": tuple(at_2 if n == 1 else at_5 if n == 4 else (0.1, 0.1) for n in range(9))}

    found = figures(
        [row(ground_truth=curve((0.7, 0.8), (0.9, 0.5))), row(ground_truth=curve((0.5, 0.7), (0.9, 0.85))), row()]
    )
    assert found["truth"] == {
        "benign": {
            "threshold": 0.2,
            "images": 2,
            "candidate": pytest.approx(0.6),
            "reference": pytest.approx(0.75),
            "difference": pytest.approx(-0.15),
            "interval": None,
        }
    }


def test_times_beside_onnx_without_the_first_image_and_not_of_two() -> None:
    """The first run of an engine takes longer; what two others tell is chance."""
    rows = [row(latency_ms=ms, onnx_ms=100.0) for ms in (900.0, 50.0, 60.0, 40.0)]
    assert figures(rows)["beside_onnx"] == {"images": 3, "latency_ms": 50, "onnx_ms": 100, "times": 0.5}
    assert figures(rows[:3])["beside_onnx"] is None
    assert figures([row()] * 9)["beside_onnx"] is None
