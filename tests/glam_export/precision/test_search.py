"""The precision search on a network of four convolutions, one of them spoiled in 8 bits."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, chain, count
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.search import point
from support.small_graphs import small_local

from glam_deploy.agreement.image import ImageAgreement, compare_answers
from glam_deploy.agreement.limits import Limits
from glam_deploy.bundle import SearchPoint
from glam_deploy.engines import cpu
from glam_deploy.json_records import to_json
from glam_deploy.networks import GLAM, GLAM_CONCATENATION
from glam_deploy.precision import BF16, BF16_WINOGRAD, FP32, INT8, INT8_BF16_WINOGRAD, INT8_WINOGRAD, WINOGRAD, Recipe
from glam_export.precision import search as module
from glam_export.precision.frontier import frontier_svg
from glam_export.precision.gains import rewritten, savings
from glam_export.precision.quantize import quantized
from glam_export.precision.search import Case, SearchResult, StageSearch, search, sensitivity, with_margin
from glam_export.precision.winograd import MIN_CHANNELS

WIDE = small_local()
BROAD = small_local(channels=MIN_CHANNELS)
"""With convolutions that Winograd's form makes others."""
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


def searched(graph: bytes, dice: float) -> StageSearch:
    """`dice` is a limit that 8 bits keep and a spoiled block does not."""
    pixels = image()
    patch = pixels[None, None, PLACE[0] : PLACE[0] + 512, PLACE[1] : PLACE[1] + 512]
    plain = StageSearch(
        stage="local",
        wide=graph,
        narrow=quantized(graph, [{"patches": patch}]),
        cases=[],
        limits=Limits(dice_median=dice, dice_worst=dice),
        network=GLAM_CONCATENATION,
    )
    maps = plain.engine(FP32, graph).run({"patches": patch})["saliency_patches"]
    expected = {
        "saliency_global": np.zeros((2, 184, 120), np.float32),
        "saliency_patches": maps,
        "patch_locations": np.array([PLACE], np.int64),
        "y_global": np.zeros(2, np.float32),
    }
    return replace(plain, cases=[Case(image=pixels, expected=expected)])


@pytest.fixture(scope="module")
def task() -> StageSearch:
    return searched(WIDE, 0.9)


@pytest.fixture(scope="module")
def broad() -> StageSearch:
    return searched(BROAD, 0.6)


Clock = Callable[..., None]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Measurements take so many ms, one after another; each of those that are not told a fifth less than the last.

    Here no CPU has bf16.
    """

    def tell(*told: float) -> None:
        lengths = chain(told, (told[-1] * 0.8**n for n in count(1)))
        ticks = accumulate(next(lengths) / 1e3 if n % 2 else 0 for n in count())
        monkeypatch.setattr(module, "perf_counter", lambda: next(ticks))

    tell(100)
    monkeypatch.setattr(cpu, "features", frozenset)
    return tell


def test_8_bits_that_are_good_enough_are_taken_whole(task: StageSearch) -> None:
    found = search([task])
    assert [(p.kind, p.wide, p.passed) for p in found.frontier] == [(FP32, (), True), (INT8, (), True)]
    assert found.mixture == {"fusion": FP32, "local": INT8}
    assert [p.taken for p in found.frontier] == [False, True]
    assert found.frontier[1].narrow_share == 1
    assert found.frontier[0].dice_worst == 1 > found.frontier[1].dice_worst


@pytest.mark.parametrize(("weight", "block"), [("stem.weight", "stem"), ("head.weight", "head")])
def test_the_spoiled_block_is_found_and_only_it_widened(task: StageSearch, weight: str, block: str) -> None:
    bad = replace(task, narrow=spoiled(task.narrow, weight))
    harms = sensitivity(bad, INT8, ["stem", "blocks.0", "head"])
    assert max(harms, key=harms.__getitem__) == block
    found = search([bad])
    assert not found.frontier[1].passed
    best = [point for point in found.frontier if point.passed and point.kind == INT8]
    assert [point.wide for point in best][-1] == (block,)
    assert found.mixture["local"] == INT8
    assert found.graphs["local"] == bad.graph(INT8, [block])


def test_blocks_that_save_least_for_their_harm_are_widened_first(
    task: StageSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All harm as much, and the head saves least, then the stem."""
    monkeypatch.setattr(module, "sensitivity", lambda task, kind, names, report: dict.fromkeys(names, 1.0))
    found = search([replace(task, limits=Limits(dice_median=1.0, dice_worst=1.0))])
    assert found.frontier[-1].wide == ("head", "stem")


def test_where_nothing_narrow_passes_the_stage_stays_in_fp32(task: StageSearch) -> None:
    found = search([replace(task, limits=Limits(dice_median=1.0, dice_worst=1.0))])
    assert found.mixture["local"] == FP32
    assert len(found.frontier) >= 3


def test_what_is_hardly_faster_is_not_worth_its_harm(task: StageSearch, clock: Clock) -> None:
    clock(100, 98)
    assert search([task]).mixture["local"] == FP32
    clock(100, 96)
    assert search([task]).mixture["local"] == INT8


def test_winograds_form_competes_by_itself(broad: StageSearch, clock: Clock) -> None:
    """Where 8 bits make the others no faster by more than noise, no block is tried alone."""
    clock(100, 40, 60)
    said: list[str] = []
    found = search([broad], said.append)
    assert found.mixture["local"] == WINOGRAD
    assert [point.kind for point in found.frontier] == [FP32, WINOGRAD, INT8_WINOGRAD]
    assert found.frontier[1].passed
    assert not any("8 bits in" in line and "alone" in line for line in said)
    assert said[-1].startswith("taken: local winograd: 40 ms, worst Dice 1.000, passed")


def test_winograds_form_beside_8_bits(broad: StageSearch, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that 8 bits make slower than it are wide, and not looked at."""
    monkeypatch.setattr(module, "NOISE", 0.001)
    clock(100, 40, 60, 30)
    said: list[str] = []
    found = search([broad], said.append)
    assert not any("8 bits in blocks.0 alone" in line for line in said)
    assert found.frontier[-1].wide == ("blocks.0",)
    assert found.mixture["local"] == INT8_WINOGRAD
    nodes = onnx.load_from_string(found.graphs["local"]).graph.node
    assert {node.name for node in nodes if node.op_type == "Conv"} == {"stem", "head"}
    assert sum(node.op_type == "DequantizeLinear" for node in nodes) >= 4
    assert found.frontier[-1].narrow_share == pytest.approx(18 / (18 + 2 * 9 * MIN_CHANNELS))


def test_bf16_with_winograds_form(broad: StageSearch, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried where the CPU has bf16, and then the form of wide blocks. The engines compute in FP32 here."""

    class Plain(StageSearch):
        def engine(self, recipe: Recipe, graph: bytes) -> Any:
            asked.append(
                (str(recipe.rest), sum(node.op_type == "Gather" for node in onnx.load_from_string(graph).graph.node))
            )
            return broad.engine(FP32, graph)

    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(cpu, "features", lambda: frozenset({"avx512_bf16"}))
    wholes = [FP32, WINOGRAD, BF16, BF16_WINOGRAD]
    clock(100, 40, 50, 20, 60, 60)
    found = search([Plain(**vars(broad))])
    assert [point.kind for point in found.frontier] == [*wholes, INT8_BF16_WINOGRAD, INT8_WINOGRAD]
    assert found.mixture["local"] == BF16_WINOGRAD
    # two convolutions in tiles have a Gather each; those in 8 bits have none
    assert asked[:6] == [("fp32", 0), ("fp32", 2), ("bf16", 0), ("bf16", 2), ("bf16", 0), ("fp32", 0)]
    clock(100, 40, 50, 45, 60)  # where bf16 makes nothing faster, it is in no mixture
    assert [point.kind for point in search([Plain(**vars(broad))]).frontier] == [*wholes, INT8_WINOGRAD]


def test_a_mixture_keeps_a_margin_to_the_limits_of_the_gate() -> None:
    """The gate judges it by other images: 0.99 and 0.95 leave 0.01 and 0.05, of which a half stays free."""
    strict = with_margin(Limits(dice_median=0.99, dice_worst=0.95, patch_agreement=0.98, flips=1))
    assert (strict.dice_median, strict.dice_worst) == (0.995, 0.975)
    assert (strict.patch_agreement, strict.flips) == (0.98, 1)


def test_what_8_bits_save() -> None:
    """As shares of all: kernels of 16 multiplications a pixel and channel, two of 9 x channels, and 2."""
    total = 16 + 18 * MIN_CHANNELS + 2
    work = {"stem": 16 / total, "blocks.0": 18 * MIN_CHANNELS / total, "head": 2 / total}
    assert savings(BROAD, form=1.0, narrow=0.25) == pytest.approx({name: 0.75 * n for name, n in work.items()})
    assert savings(BROAD, form=0.5, narrow=0.25) == pytest.approx({name: 0.25 * n for name, n in work.items()})
    assert rewritten(BROAD) == {"conv1", "conv2"}
    saved = savings(BROAD, form=1 - 0.6 * work["blocks.0"], narrow=0.5, tiled={"conv1", "conv2"})
    assert saved == pytest.approx({"stem": 8 / total, "blocks.0": -0.1 * work["blocks.0"], "head": 1 / total})


def test_a_graph_that_has_no_such_form() -> None:
    assert not rewritten(WIDE)


def test_as_json_and_as_a_plot(task: StageSearch) -> None:
    found: SearchResult = search([task])
    assert to_json(found.mixture)["local"] == "int8"
    assert to_json(found.frontier)[0]["stage"] == "local"
    drawn = ElementTree.fromstring(frontier_svg(found.frontier))
    assert len(drawn.findall(".//{*}circle")) == len(found.frontier)


def test_patches_are_the_same_where_the_gate_says_so() -> None:
    """A lesion at one cell: every window that holds it is as good; and one that does not hold it."""
    saliency = np.zeros((2, 184, 120), np.float32)
    saliency[:, 90, 60] = 1
    expected = {
        "saliency_global": saliency,
        "saliency_patches": np.zeros((1, 2, 128, 128), np.float32),
        "patch_locations": np.array([[1024, 704]]),
        "y_global": np.zeros(2, np.float32),
    }
    for place, same in (([1024, 704], True), ([1040, 720], True), ([1600, 704], False)):
        found = expected | {"patch_locations": np.array([place])}
        assert compare_answers(found, expected, GLAM, Limits()).same_patches is same


@pytest.mark.parametrize(
    ("misses", "expected"),
    [
        ([], "int8 int8"),
        (["int8 int8"], "winograd int8"),
        (["int8 int8", "winograd int8"], "fp32 int8"),
        (["int8 int8", "winograd int8", "fp32 int8"], "int8 fp32"),
        (["int8 int8", "winograd int8", "fp32 int8", "int8 fp32", "winograd fp32"], "fp32 fp32"),
    ],
)
def test_what_misses_together_is_not_taken(
    task: StageSearch, monkeypatch: pytest.MonkeyPatch, misses: list[str], expected: str
) -> None:
    """Combinations are tried from the fastest (20 + 20 ms) to the slowest (100 + 100 ms), one stage narrow included."""

    def together(stages: object, taken: Sequence[SearchPoint]) -> list[ImageAgreement]:
        found = {**maps, "saliency_patches": maps["saliency_patches"] * 0} if kinds(taken) in misses else maps
        return [compare_answers(found, maps, GLAM, Limits())]

    def kinds(taken: Sequence[SearchPoint]) -> str:
        return " ".join(str(point.kind) for point in taken)

    maps = task.cases[0].expected
    points = [[point("fp32", 100), point("winograd", 40), point("int8", 20)], [point("fp32", 99), point("int8", 20)]]
    monkeypatch.setattr(module, "_together", together)
    taken = module._choose([task, task], points, lambda step: None)
    assert kinds(taken) == expected


def test_both_stages_are_judged_as_the_gate_does(task: StageSearch) -> None:
    """The local stage sees the patches that this global stage chooses; its maps are compared on FP32's."""
    whole = replace(task, stage="global")
    saliency = np.zeros((2, 184, 120), np.float32)
    saliency[:, 20:40, 10:30] = 0.75

    class Moves:
        network = GLAM

        def run(self, inputs: object) -> dict[str, np.ndarray]:
            return {"saliency_global": saliency[None], "y_scale": np.zeros((1, 3, 2)), "z_g": np.zeros((1, 256))}

    case = replace(task.cases[0], expected=task.cases[0].expected | {"saliency_global": saliency * 0})
    asked: list[np.ndarray] = []

    class Watched:
        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            asked.append(inputs["patches"])
            return dict(task.engine(FP32, WIDE).run(inputs))

    class Made(StageSearch):
        def engine(self, kind: object, graph: bytes) -> Any:
            return {"global": Moves(), "local": Watched()}[self.stage]

        def graph(self, kind: object, keep: Sequence[str] = ()) -> bytes:
            return b""

    made = [Made(**{**vars(one), "cases": [case]}) for one in (whole, task)]
    (found,) = module._together(made, [point("fp32", 1)] * 2)
    assert found.lowest == 0.0, "a lesion that FP32 does not see"
    assert found.same_patches, "where nothing stands out every place is as good"
    assert np.array_equal(asked[1], image()[None, None, 1024:1536, 512:1024])
    assert not np.array_equal(asked[0], asked[1])
