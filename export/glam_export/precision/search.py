"""Precision search: the fastest mixture of precisions for this CPU whose maps agree with FP32.

"Narrow" is 8 bits, "wide" everything else. A stage is tried as a whole in each wide form: FP32, Winograd's form, and
both of them in bf16 if the CPU computes in it. The fastest of them that passes is the form of wide blocks in mixtures
with 8 bits; if it is one in bf16, so is the fastest without bf16, whose roundings leave more room for those of 8 bits.
Then each block alone is put into 8 bits and its error measured (with all other blocks in 8 bits, their errors would
hide it). Blocks with the largest error per multiplication that 8 bits save (`gains`) are widened first, until the
mixture passes. Every mixture that was tried is a point of the frontier.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import ceil
from statistics import median
from time import perf_counter

import numpy as np

from glam_deploy.agreement.answers import Answer, answer
from glam_deploy.agreement.image import ImageAgreement, compare_answers
from glam_deploy.agreement.limits import Limits
from glam_deploy.agreement.verdict import judge
from glam_deploy.bundle import SearchPoint
from glam_deploy.engines import cpu
from glam_deploy.engines.base import Engine, EngineIdentity, OpenedEngines
from glam_deploy.networks import NetworkSpec, Stage
from glam_deploy.precision import BF16, BF16_WINOGRAD, FP32, INT8, WINOGRAD, Recipe, StageRecipes
from glam_deploy.records import Float32
from glam_deploy.runtime import host_chain, patching
from glam_deploy.runtime.pipeline import Pipeline
from glam_export.precision.gains import rewritten, savings
from glam_export.precision.quantize import blocks, narrow_share, widened
from glam_export.precision.winograd import winograd

Report = Callable[[str], None]
Combination = tuple[SearchPoint, ...]
"""One point for each stage."""

LOCAL_PATCHES = 12
"""Least number of patches by which the local stage alone is judged, if the images have so many; not more images than
that, to save time. All images are used for the global stage, which determines the patches, and for both stages
together.
"""
MARGIN = 0.5
"""Share of the distance between 1 and each limit of Dice that a mixture must leave free, because the gate judges it by
other images: mixtures with a median of 0.990 to 0.993 on the images of a search had 0.989 to 0.990 on images of another
kind (limit 0.99).
"""
NOISE = 0.03
"""Relative difference between two measurements of a latency below which mixtures count as equally fast."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image and its result in FP32."""

    image: Float32
    """[2944, 1920], standardized."""
    expected: Answer


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """Result of a search."""

    mixture: Mapping[Stage, Recipe]
    graphs: Mapping[Stage, bytes]
    """The int8 graph of each stage in the chosen mixture; with all blocks in 8 bits if none with int8 was chosen."""
    frontier: tuple[SearchPoint, ...]
    """Every mixture that was tried."""


def summary_line(point: SearchPoint) -> str:
    """A point in one line of text."""
    share = f", {point.narrow_share:.1%} in 8 bits" if point.narrow_share else ""
    verdict = "passed" if point.passed else "missed"
    return f"{point.stage} {point.kind}{share}: {point.latency_ms:.0f} ms, worst Dice {point.dice_worst:.3f}, {verdict}"


@dataclass(frozen=True, kw_only=True)
class StageSearch:
    """One stage to be searched: its graphs, and the images and limits by which mixtures are judged."""

    stage: Stage
    wide: bytes
    """The FP32 graph."""
    narrow: bytes
    """The graph with all convolutions in 8 bits."""
    cases: Sequence[Case]
    limits: Limits
    network: NetworkSpec

    def graph(self, recipe: Recipe, keep: Sequence[str] = ()) -> bytes:
        """The graph of a recipe: all wide, or 8 bits but for the blocks `keep`; Winograd's form is for wide blocks."""
        graph = self._mixed(keep) if recipe.weights == "int8" else self.wide
        return winograd(graph) if recipe.form == "winograd" else graph

    def engine(self, recipe: Recipe, graph: bytes) -> Engine:
        """The engine for a `graph` of this recipe."""
        from glam_deploy.engines.openvino import graph_engine

        return graph_engine(graph, self.stage, floats=recipe.rest, network=self.network)

    def _mixed(self, keep: Sequence[str]) -> bytes:
        of_block = blocks(self.wide)
        return widened(self.wide, self.narrow, [node for name in keep for node in of_block[name]])


def stage_searches(
    wide: Mapping[Stage, bytes],
    narrow: Mapping[Stage, bytes],
    images: Sequence[Float32],
    *,
    limits: Limits,
    patches: int,
    network: NetworkSpec,
    report: Report = lambda line: None,
) -> list[StageSearch]:
    """The stages that have `narrow` graphs, to be judged by `images`, float32 [2944, 1920], standardized.

    `limits`: those of the gate; mixtures must keep them with `MARGIN`.
    """
    from glam_deploy.engines.openvino import LIBRARY, graph_engine

    report(f"running FP32 on the {len(images)} images by which mixtures are judged")
    engines = {stage: graph_engine(graph, stage, network=network) for stage, graph in wide.items()}
    identity = EngineIdentity(
        name="openvino", library=LIBRARY, device="cpu", precision=StageRecipes(recipes=FP32), sha256={}
    )
    pipeline = Pipeline(OpenedEngines(engines=engines, identity=identity), patches=patches, provenance={})
    cases = [Case(image=image, expected=answer(pipeline(image))) for image in images]
    of_stage, strict = {"global": cases, "local": cases[: ceil(LOCAL_PATCHES / patches)]}, with_margin(limits)
    return [
        StageSearch(stage=stage, wide=wide[stage], narrow=graph, cases=of_stage[stage], limits=strict, network=network)
        for stage, graph in narrow.items()
    ]


def with_margin(limits: Limits) -> Limits:
    """The limits of Dice moved towards 1 by `MARGIN`; the others as they are."""
    strict = {name: getattr(limits, name) for name in ("dice_median", "dice_worst")}
    return replace(limits, **{name: round(limit + MARGIN * (1 - limit), 6) for name, limit in strict.items()})


def search(stages: Sequence[StageSearch], report: Report = lambda line: None) -> SearchResult:
    """The fastest mixture that passes: each stage is judged with the other one in FP32, then both are judged together.

    Raises BackendBuildError, BackendRunError.
    """
    points = [list(_points(task, report)) for task in stages]
    taken = _choose(stages, points, report)
    return SearchResult(
        mixture={"fusion": FP32, **{point.stage: point.kind for point in taken}},
        graphs={
            task.stage: task.graph(point.kind if point.wide else INT8, point.wide)
            for task, point in zip(stages, taken, strict=True)
        },
        frontier=tuple(replace(point, taken=point in taken) for of_stage in points for point in of_stage),
    )


def _choose(stages: Sequence[StageSearch], points: Sequence[Sequence[SearchPoint]], report: Report) -> Combination:
    """One point per stage: the fastest combination that passes together. All in FP32 passes by definition."""
    remaining = list(product(*([point for point in of_stage if point.passed] for of_stage in points)))
    while (taken := _best(remaining, stages)) != tuple(of_stage[0] for of_stage in points):
        names = "; ".join(summary_line(point) for point in taken)
        report(f"trying together: {names}")
        if len(stages) == 1 or (verdict := judge(_together(stages, taken), stages[0].limits)).passed:
            report(f"taken: {names}")
            return taken
        report(f"missed together ({verdict.failures[0]})")
        remaining.remove(taken)
    report("taken: all in fp32")
    return taken


def _together(stages: Sequence[StageSearch], taken: Sequence[SearchPoint]) -> list[ImageAgreement]:
    """Agreement of each image with FP32 if both stages use the chosen engines."""
    pairs = zip(stages, taken, strict=True)
    engines = {task.stage: task.engine(point.kind, task.graph(point.kind, point.wide)) for task, point in pairs}
    network, agreements = stages[0].network, []
    for case in stages[0].cases:
        found = case.expected
        for stage, engine in engines.items():
            found = _answer_with(engine, stage, replace(case, expected=found), network)
        forced = _answer_with(engines["local"], "local", case, network)["saliency_patches"]
        agreements.append(compare_answers(found, case.expected, network, stages[0].limits, forced=forced))
    return agreements


def _best(choices: Sequence[Combination], stages: Sequence[StageSearch]) -> Combination:
    """The fastest for one image; among those equally fast within NOISE, the one with the highest Dice."""
    rows = [_rows(task.stage, task.cases[0]) for task in stages]

    def latency_ms(points: Combination) -> float:
        return sum(point.latency_ms * n for point, n in zip(points, rows, strict=True))

    least = min(map(latency_ms, choices))
    near = [points for points in choices if latency_ms(points) <= least * (1 + NOISE)]
    return max(near, key=lambda points: min((point.dice_worst, point.dice_median) for point in points))


def _points(task: StageSearch, report: Report) -> Iterator[SearchPoint]:
    """Measured mixtures: FP32, which passes by definition, the other wide forms, then 8 bits with wide blocks."""
    wholes = [_measured(task, report, kind) for kind in _wholes(task)]
    yield from wholes
    for form in _forms(task, wholes):
        yield from _narrowing(task, form, wholes, report)


def _forms(task: StageSearch, wholes: Sequence[SearchPoint]) -> list[SearchPoint]:
    """The forms of wide blocks: the fastest that passes, and the fastest without bf16 if that is another one."""
    passed = [point for point in wholes if point.passed]
    plain = [point for point in passed if point.kind.weights != "bf16"]
    forms = [_best([(point,) for point in points], [task])[0] for points in (passed, plain)]
    return forms if forms[0] is not forms[1] else forms[:1]


def _narrowing(
    task: StageSearch, form: SearchPoint, wholes: Sequence[SearchPoint], report: Report
) -> Iterator[SearchPoint]:
    """Mixtures of 8 bits with wide blocks of one form: all in 8 bits, then more and more of them wide."""
    narrow = _narrowed(form.kind)
    yield (narrowest := _measured(task, report, narrow))
    saved = savings(task.wide, form=_speed(form, wholes), narrow=_speed(narrowest, wholes), tiled=_tiled(task, form))
    at_best = sum(share for share in saved.values() if share > 0) / _speed(form, wholes)
    every_block_gains = min(saved.values()) > 0
    if at_best <= NOISE:
        report(f"{task.stage} graph: 8 bits would save {at_best:.1%} at most, so no single block is measured")
    elif not (narrowest.passed and every_block_gains):
        yield from _widening(task, narrow, saved, report)


def _narrowed(wide: Recipe) -> Recipe:
    """The recipe of a mixture of 8 bits with this wide form."""
    return Recipe(weights="int8", floats="bf16" if wide.weights == "bf16" else None, form=wide.form)


def _wholes(task: StageSearch) -> Iterator[Recipe]:
    has_tiled_form = task.stage == "local" and rewritten(task.wide)  # it does not make the global graph faster
    has_bf16 = not cpu.features().isdisjoint(cpu.BF16)
    yield FP32
    if has_tiled_form:
        yield WINOGRAD
    if has_bf16:
        yield BF16
    if has_tiled_form and has_bf16:
        yield BF16_WINOGRAD


def _speed(point: SearchPoint, wholes: Sequence[SearchPoint]) -> float:
    """Latency as a share of that of FP32."""
    return point.latency_ms / wholes[0].latency_ms


def _tiled(task: StageSearch, form: SearchPoint) -> frozenset[str] | None:
    return rewritten(task.wide) if form.kind == WINOGRAD else None


def _widening(task: StageSearch, recipe: Recipe, saved: Mapping[str, float], report: Report) -> Iterator[SearchPoint]:
    """Bisection for the least number of wide blocks with which the mixture passes.

    Blocks that gain nothing from 8 bits are always wide; the others follow by error per gain, largest first. It is
    assumed that a mixture with more wide blocks agrees no worse.
    """
    gaining = [block for block in saved if saved[block] > 0]
    ranked = [block for block in saved if block not in gaining]
    least, most = max(len(ranked), 1), len(saved) - 1
    harms = sensitivity(task, recipe, gaining, report) if least <= most else {}
    ranked += sorted(harms, key=lambda block: harms[block] / saved[block], reverse=True)
    while least <= most:
        count = (least + most) // 2
        point = _measured(task, report, recipe, tuple(ranked[:count]))
        yield point
        least, most = (least, count - 1) if point.passed else (count + 1, most)


def sensitivity(
    task: StageSearch, recipe: Recipe, names: Sequence[str], report: Report = lambda line: None
) -> dict[str, float]:
    """Block -> mean absolute difference of the first image's saliency if this block alone is in 8 bits."""
    inputs, output = _inputs(task.stage, task.cases[0], task.network)
    every = list(blocks(task.wide))
    expected = task.engine(recipe, task.graph(recipe, every)).run(inputs)[output]
    harms = {}
    for number, name in enumerate(names, 1):
        report(f"{task.stage} graph: error of 8 bits in {name} alone, block {number} of {len(names)}")
        alone = task.graph(recipe, [other for other in every if other != name])
        found = task.engine(recipe, alone).run(inputs)[output]
        harms[name] = float(np.abs(found - expected).mean())
    return harms


def _measured(task: StageSearch, report: Report, recipe: Recipe, wide: tuple[str, ...] = ()) -> SearchPoint:
    report(f"measuring the {task.stage} graph, {recipe}" + (f" with {len(wide)} blocks wide" if wide else ""))
    graph = task.graph(recipe, wide)
    engine = task.engine(recipe, graph)
    engine.run(_inputs(task.stage, task.cases[0], task.network)[0])  # the first run allocates
    timed = [_timed(partial(_answer_with, engine, task.stage, case, task.network)) for case in task.cases]
    agreements = [
        compare_answers(found, case.expected, task.network, task.limits)
        for (found, _), case in zip(timed, task.cases, strict=True)
    ]
    lowest = [agreement.lowest for agreement in agreements]
    verdict = judge(agreements, task.limits)
    point = SearchPoint(
        stage=task.stage,
        kind=recipe,
        wide=wide,
        narrow_share=narrow_share(task.wide, graph),
        latency_ms=min(ms / _rows(task.stage, case) for (_, ms), case in zip(timed, task.cases, strict=True)),
        dice_median=median(lowest),
        dice_worst=min(lowest),
        same_patches=sum(agreement.same_patches for agreement in agreements) / len(agreements),
        passed=recipe == FP32 or verdict.passed,
        taken=False,
    )
    report(summary_line(point) + ("" if point.passed else f" ({verdict.failures[0]})"))
    return point


def _timed(work: Callable[[], Answer]) -> tuple[Answer, float]:
    before = perf_counter()
    found = work()
    return found, (perf_counter() - before) * 1e3


def _inputs(stage: Stage, case: Case, network: NetworkSpec) -> tuple[dict[str, Float32], str]:
    """Inputs of the stage for an image (the local stage gets FP32's patches), and the name of its saliency output."""
    if stage == "global":
        return {"image": case.image[None, None]}, "saliency_global"
    patches = patching.crop(case.image, case.expected["patch_locations"], network.patches.side)
    return {"patches": patches}, "saliency_patches"


def _rows(stage: Stage, case: Case) -> int:
    return 1 if stage == "global" else len(case.expected["patch_locations"])


def _answer_with(engine: Engine, stage: Stage, case: Case, network: NetworkSpec) -> Answer:
    """FP32's result with the outputs of this engine in place of its stage's outputs."""
    inputs, name = _inputs(stage, case, network)
    outputs = engine.run(inputs)
    if stage == "local":
        return {**case.expected, name: outputs[name]}
    maps = host_chain.global_maps(outputs)
    chosen = patching.select(inputs["image"], maps, len(case.expected["patch_locations"]), network)
    return {**case.expected, name: outputs[name][0], "patch_locations": chosen.locations[0]}
