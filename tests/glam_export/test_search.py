"""The precision search on a network of four convolutions, one of them spoiled in 8 bits."""

from dataclasses import replace
from itertools import accumulate, count
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support_small_graphs import small_local

from glam_deploy.engines import cpu_features
from glam_deploy.gate.limits import Limits
from glam_export import search as module
from glam_export.frontier import frontier_svg
from glam_export.quantize import quantized
from glam_export.search import Case, Found, StageSearch, search, sensitivity

WIDE = small_local()
PLACE = (1024, 512)


def image() -> np.ndarray:
    """Smooth blobs, so that maps have areas to agree on."""
    rows, columns = np.mgrid[:2944, :1920].astype(np.float32)
    return np.asarray(np.sin(rows / 37) * np.cos(columns / 53) * 2, np.float32)


def spoiled(narrow: bytes, weight: str) -> bytes:
    """With the scale of one kernel tripled."""
    model = onnx.load_from_string(narrow)
    node = next(n for n in model.graph.node if n.op_type == "DequantizeLinear" and weight in n.output[0])
    tensor = next(t for t in model.graph.initializer if t.name == node.input[1])
    tensor.CopyFrom(numpy_helper.from_array(3 * numpy_helper.to_array(tensor), tensor.name))
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def task() -> StageSearch:
    """Limits that 8 bits keep and a spoiled block does not."""
    pixels = image()
    patch = pixels[None, None, PLACE[0] : PLACE[0] + 512, PLACE[1] : PLACE[1] + 512]
    plain = StageSearch(
        stage="local",
        wide=WIDE,
        narrow=quantized(WIDE, [{"patches": patch}]),
        cases=[],
        limits=Limits(dice_median=0.9, dice_worst=0.9),
        fusion_head=False,
    )
    maps = plain.engine(WIDE).run({"patches": patch})["saliency_patches"]
    expected = {
        "saliency_global": np.zeros((2, 184, 120), np.float32),
        "saliency_patches": maps,
        "patch_locations": np.array([PLACE], np.int64),
    }
    return replace(plain, cases=[Case(image=pixels, expected=expected)])


@pytest.fixture(autouse=True)
def quicker_and_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    """No clock: each measurement takes a second less than the one before, and no CPU has bf16."""
    ticks = accumulate(100 - n // 2 if n % 2 else 0 for n in count())
    monkeypatch.setattr(module, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(cpu_features, "features", frozenset)


def test_8_bits_that_are_good_enough_are_taken_whole(task: StageSearch) -> None:
    found = search([task])
    assert [(p.precision, p.wide, p.passed) for p in found.frontier] == [("fp32", (), True), ("int8", (), True)]
    assert found.mixture == {"fusion": "fp32", "local": "int8"}
    assert found.frontier[1].narrow_share == 1
    assert found.frontier[0].dice_worst == 1 > found.frontier[1].dice_worst


@pytest.mark.parametrize(("weight", "block"), [("stem.weight", "stem"), ("head.weight", "head")])
def test_the_spoiled_block_is_found_and_only_it_widened(task: StageSearch, weight: str, block: str) -> None:
    bad = replace(task, narrow=spoiled(task.narrow, weight))
    assert sensitivity(bad)[0] == block
    found = search([bad])
    assert not found.frontier[1].passed
    best = [point for point in found.frontier if point.passed and point.precision == "int8"]
    assert [point.wide for point in best][-1] == (block,)
    assert found.mixture["local"] == "int8"
    assert found.graphs["local"] == bad.mixed([block])


def test_where_nothing_narrow_passes_the_stage_stays_in_fp32(task: StageSearch) -> None:
    found = search([replace(task, limits=Limits(dice_median=1.0, dice_worst=1.0))])
    assert found.mixture["local"] == "fp32"
    assert len(found.frontier) >= 3


def test_as_facts_and_as_a_plot(task: StageSearch) -> None:
    found: Found = search([task])
    facts = found.as_facts()
    assert facts["mixture"]["local"] == "int8"
    assert facts["frontier"][0]["stage"] == "local"
    drawn = ElementTree.fromstring(frontier_svg(found.frontier))
    assert len(drawn.findall(".//{*}circle")) == len(found.frontier)
