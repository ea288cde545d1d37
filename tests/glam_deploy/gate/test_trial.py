"""One image through made-up engines: what differs, and which part damage of each kind is attributed to."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.engines import FakeEngine, blocks, fake_identity

from glam_deploy.agreement.limits import Limits
from glam_deploy.agreement.verdict import judge
from glam_deploy.engines.base import Arrays, Engine, OpenedEngines
from glam_deploy.gate.ground_truth import ground_truth_of
from glam_deploy.gate.pictures import picture
from glam_deploy.gate.trial import EnginePair, Examined, ImageTrial, examine
from glam_deploy.networks import GLAM, GLAM_CONCATENATION, Stage, glam
from glam_deploy.preprocess import from_standardized
from glam_deploy.records import NetworkInput, Source
from glam_deploy.runtime import patching
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Result


def image() -> NetworkInput:
    """One bright disc, radius 100, on even tissue with a slope, so that no two windows are tied."""
    rows, columns = np.mgrid[: GLAM.input_shape[0], : GLAM.input_shape[1]].astype(np.float32)
    pixels = np.where(columns < 1500, 1.0, 0.0) + (rows + 2 * columns) * 1e-5
    pixels += 6 * np.exp(-((rows - 1200) ** 2 + (columns - 700) ** 2) / (2 * 100**2))
    pixels = ((pixels - pixels.mean()) / pixels.std()).astype(np.float32)
    return from_standardized(pixels, source=Source(name="disc.npy", kind="npy"))


class Small(FakeEngine):
    """A network of two layers on the mean of each cell; `scale` is what the first layer's weights are multiplied by."""

    def __init__(self, stage: Stage, *, scale: float = 1, offset: dict[str, float] | None = None) -> None:
        super().__init__(stage, offset=offset)
        self.scale = np.float32(scale)

    def _global(self, inputs: Arrays) -> Arrays:
        maps = self._maps(blocks(inputs["image"], GLAM.cell))
        y = maps.max((2, 3))
        return {
            "saliency_global": maps,
            "y_scale": np.stack([y, y / 2, y / 4], axis=1),
            "z_g": np.ones((len(y), glam.Z_GLOBAL)),
        }

    def _local(self, inputs: Arrays) -> Arrays:
        maps = self._maps(blocks(inputs["patches"], GLAM.grid_cell))
        return {"saliency_patches": maps, "z_k": np.ones((len(maps), glam.Z_PATCH))}

    def _maps(self, cells: np.ndarray) -> np.ndarray:
        hidden = [np.maximum(self.scale * weight * (cells - bias), 0) for weight, bias in ((1, 0), (1.5, 3))]
        return np.stack([1 / (1 + np.exp(4 - hidden[0])), 1 / (1 + np.exp(5 - hidden[1]))], axis=1)


def pipeline(**changed: Engine) -> tuple[Pipeline, Engine]:
    """`changed`: "globe" or "local" -> the stage's engine."""
    engines: dict[Stage, Engine] = {
        "global": changed.get("globe", Small("global")),
        "local": changed.get("local", Small("local")),
        "fusion": FakeEngine("fusion"),
    }
    opened = OpenedEngines(engines=engines, identity=fake_identity())
    return Pipeline(opened, patches=1, provenance={}), engines["local"]


def row(mask: np.ndarray | None = None, limits: Limits | None = None, **changed: Engine) -> Examined:
    reference, _ = pipeline()
    candidate, local = pipeline(**changed)
    pair = EnginePair(network=GLAM_CONCATENATION, reference=reference, candidate=candidate, local=local)
    truth = None if mask is None else ground_truth_of(mask)
    return examine(pair, image(), truth, limits or Limits())


def failures(found: ImageTrial) -> list[str]:
    return list(judge([found.agreement], Limits()).failures)


def test_an_engine_against_its_like() -> None:
    found = row().trial
    assert (found.agreement.lowest, found.agreement.reasons, found.agreement.flips, found.flat) == (
        1,
        (),
        (),
        (False, False),
    )
    assert [patch.same for patch in found.agreement.patches] == [True]
    assert failures(found) == []
    assert found.image == "disc.npy"
    assert found.latency_ms > 0


def test_a_layer_of_the_local_network() -> None:
    found = row(local=Small("local", scale=0.9)).trial
    assert found.agreement.reasons == ("local differs",)
    assert any(failure.startswith("Dice of the patch ") for failure in failures(found))
    assert not any("global" in failure for failure in failures(found))


def test_a_layer_of_the_global_network() -> None:
    found = row(globe=Small("global", scale=0.9)).trial
    assert "global differs" in found.agreement.reasons
    assert "local differs" not in found.agreement.reasons
    assert any(failure.startswith("Dice of the global ") for failure in failures(found))


def test_selection_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The very same networks; only the sums of windows are rounded to 11 bits."""
    exact = patching.window_sums
    reference, _ = pipeline()
    candidate, local = pipeline()

    def ill(view: Any) -> Result:
        with monkeypatch.context() as patch:
            patch.setattr(
                patching, "window_sums", lambda heat, side: exact(heat, side).astype(np.float16).astype(np.float32)
            )
            return candidate(view)

    pair: Any = SimpleNamespace(network=GLAM_CONCATENATION, reference=reference, candidate=ill, local=local)
    found = examine(pair, image(), None, Limits()).trial
    assert found.agreement.reasons == ("patch moved",)
    assert failures(found)[-1].startswith("patches where the reference could have chosen them: 0.0%")


def test_a_decision_that_flips_alone() -> None:
    reference = row().trial
    point = reference.agreement.scores["y_global"][0][1]
    limits = Limits(operating_point=point + 1e-6)
    found = row(limits=limits, globe=Small("global", offset={"y_scale": 0.001})).trial
    assert (found.agreement.flips, found.agreement.reasons) == (("y_global benign",), ("scores differ",))
    assert judge([found.agreement], limits).failures == ("decisions flipped: 1, limit 0",)


def test_truth() -> None:
    mask = np.zeros(GLAM.input_shape, np.uint8)
    mask[1000:1400, 500:900] = 100
    found = row(mask, local=Small("local", scale=0.5)).trial
    assert found.positive == {"benign": True, "malignant": False}
    assert set(found.ground_truth) == {"benign"}
    grid = row().reference.saliency()[0]
    for n, threshold in enumerate((0.1, 0.5, 0.9)):
        lesion, outline = grid >= np.float32(threshold), mask == 100
        expected = 2 * (lesion & outline).sum() / (lesion.sum() + outline.sum())
        assert found.ground_truth["benign"][4 * n][1] == pytest.approx(expected)
    assert found.ground_truth["benign"][4][0] != found.ground_truth["benign"][4][1]


def test_rows_are_json() -> None:
    json.dumps(row().trial.to_json(), allow_nan=False)


def test_picture_shows_both_maps_and_where_they_differ() -> None:
    same, other = picture(row()), picture(row(local=Small("local", scale=0.5)))
    assert same.shape == (856, 1968, 3)
    difference = np.s_[120:850, 1480:1960]
    assert not np.array_equal(same[difference], other[difference])
    grey = same[difference].astype(int)
    assert not ((np.ptp(grey, axis=2) > 60) & (grey.min(axis=2) < 150)).sum() > 3000
    assert np.array_equal(same[120:850, :480], other[120:850, :480])
