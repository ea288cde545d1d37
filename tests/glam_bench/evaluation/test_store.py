"""The store of an evaluation: values that a network cannot have given are computed again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glam_bench.evaluation.overlap import THRESHOLDS, Marks, Overlap
from glam_bench.evaluation.store import STORE, ImageRun, Store
from glam_deploy.networks import CAM, GLAM, GMIC, NetworkSpec

NETWORKS = {"glam": (GLAM, ("global", "local", "fused")), "gmic": (GMIC, ("global",)), "cam": (CAM, ("global",))}


def run_of(network: NetworkSpec, maps: tuple[str, ...]) -> ImageRun:
    """A malignant lesion, which one of two marks hits."""
    curve = (0.5,) * len(THRESHOLDS)
    return ImageRun(
        run="r",
        image="i",
        digest="d",
        status="done",
        view="L-CC",
        scores={score: {"benign": 0.0, "malignant": 1.0} for score in network.scores},
        overlaps=tuple(Overlap(map=name, label="malignant", soft=0.25, by_threshold=curve) for name in maps),
        marks=(
            Marks(label="benign", lesions=0, scores=(), hits=()),
            Marks(label="malignant", lesions=1, scores=(0.75, 0.5), hits=(None, 0)),
        ),
        time_ms=12.5,
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_a_result_is_kept(tmp_path: Path, name: str) -> None:
    network, maps = NETWORKS[name]
    run = run_of(network, maps)
    Store(tmp_path).add(run)
    store = Store(tmp_path)
    assert store.get("r", "i", "d", network) == run
    assert store.get("r", "i", "other", network) is None
    assert store.damaged == 0


EDITS: dict[str, Callable[[Any], Any]] = {
    "score above 1": lambda run: run["scores"]["y_global"].update(malignant=7.0),
    "score NaN": lambda run: run["scores"]["y_global"].update(malignant=float("nan")),
    "no class": lambda run: run["scores"]["y_global"].pop("malignant"),
    "no score": lambda run: run["scores"].pop("y_local"),
    "no scores": lambda run: run.pop("scores"),
    "no overlap": lambda run: run.pop("overlaps"),
    "one map": lambda run: run["overlaps"].pop(),
    "short curve": lambda run: run["overlaps"][0].update(by_threshold=[1.0]),
    "Dice infinite": lambda run: run["overlaps"][0].update(soft=float("inf")),
    "Dice negative": lambda run: run["overlaps"][1]["by_threshold"].__setitem__(5, -0.5),
    "unknown lesion": lambda run: run["marks"][1].update(hits=[None, 1]),
    "negative lesion": lambda run: run["marks"][1].update(hits=[None, -1]),
    "hits without marks": lambda run: run["marks"][1].update(hits=[None, 0, None]),
    "ascending marks": lambda run: run["marks"][1].update(scores=[0.5, 0.75]),
    "marks above 1": lambda run: run["marks"][1].update(scores=[1.5, 0.5]),
    "lesions negative": lambda run: run["marks"][0].update(lesions=-1),
    "no marks": lambda run: run.pop("marks"),
    "marks of one class": lambda run: run["marks"].pop(),
    "view": lambda run: run.update(view="Q"),
    "no view": lambda run: run.pop("view"),
    "time NaN": lambda run: run.update(time_ms=float("nan")),
    "time negative": lambda run: run.update(time_ms=-1.0),
    "time as text": lambda run: run.update(time_ms="1"),
    "outlines": lambda run: run.update(empty_outlines=-1),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_result_that_is_not_valid_is_computed_again(tmp_path: Path, edit: str) -> None:
    Store(tmp_path).add(run_of(*NETWORKS["glam"]))
    heading, line = (tmp_path / STORE).read_text().splitlines()
    value = json.loads(line)
    EDITS[edit](value)
    (tmp_path / STORE).write_text(f"{heading}\n{json.dumps(value)}\n")
    store = Store(tmp_path)
    assert store.get("r", "i", "d", GLAM) is None
    assert store.damaged == 1
    store.add(run_of(*NETWORKS["glam"]))
    assert store.get("r", "i", "d", GLAM) is not None


@pytest.mark.parametrize("line", ["[" * 200_000, "9" * 5000, "null", "\xff", "", "x" * (3 << 20)])
def test_lines_that_are_no_result(tmp_path: Path, line: str) -> None:
    """The results before and after stay."""
    path, run = tmp_path / STORE, run_of(*NETWORKS["glam"])
    Store(tmp_path).add(run)
    heading, kept = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(heading + line.encode("latin-1") + b"\n" + kept + kept[:-9])
    store = Store(tmp_path)
    assert (store.get("r", "i", "d", GLAM), store.damaged) == (run, 1)
    assert path.read_bytes().endswith(b"\n" + kept)
