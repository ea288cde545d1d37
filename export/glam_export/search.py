"""Which blocks must stay wide: the fastest mixture of int8, bf16 and FP32 whose maps agree with FP32.

For each stage one block alone is put into 8 bits, block by block; those that then harm most are widened first, as many
as it takes. (With all others in 8 bits too, the share of one block is lost below theirs.) Every mixture that was tried
is a point of the frontier, kept or not. A stage whose 8 bits are too rough or no faster is bf16 where the CPU has it
and that is good enough, else FP32.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from glam_deploy.engines import cpu_features
from glam_deploy.engines.base import Engine, OpenedEngines
from glam_deploy.engines.openvino import Float, graph_engine
from glam_deploy.gate.limits import Limits
from glam_deploy.gate.parity import compare_maps
from glam_deploy.patches import host
from glam_deploy.records import Float32, GlobalMaps
from glam_deploy.runtime.agreement import Answer, answer
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.spec import Precision, Stage
from glam_export.quantize import blocks, narrow_share, widened

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image and what FP32 makes of it."""

    image: Float32
    """[2944, 1920], standardized."""
    expected: Answer


@dataclass(frozen=True, kw_only=True)
class Point:
    """One mixture of one stage, as it was measured."""

    stage: Stage
    precision: Precision
    wide: tuple[str, ...]
    """The blocks that are not in 8 bits, where the others are."""
    narrow_share: float
    """Of the convolutions' multiplications, those in 8 bits, 0..1."""
    latency_ms: float
    """Least over the images, for one image or one patch: whatever else the machine does only adds to it."""
    dice_median: float
    dice_worst: float
    """Over the images, of the lowest of all maps, classes and thresholds; 0 where a lesion is lost or new."""
    same_patches: float
    """Share of the images whose patches lie where FP32 puts them; 1 for the local stage."""
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search ends with."""

    mixture: Mapping[Stage, Precision]
    graphs: Mapping[Stage, bytes]
    """The int8 graph of each stage, in the mixture that was chosen; where none was good enough, with all in 8 bits."""
    frontier: tuple[Point, ...]

    def as_facts(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"mixture": dict(self.mixture), "frontier": [asdict(point) for point in self.frontier]}


@dataclass(frozen=True, kw_only=True)
class StageSearch:
    """What the search of one stage needs."""

    stage: Stage
    wide: bytes
    """The FP32 graph."""
    narrow: bytes
    """All that can be, in 8 bits."""
    cases: Sequence[Case]
    limits: Limits
    fusion_head: bool

    def engine(self, graph: bytes, floats: Float = "fp32") -> Engine:
        return graph_engine(graph, self.stage, floats=floats, fusion_head=self.fusion_head)

    def mixed(self, keep: Sequence[str]) -> bytes:
        """The graph with these blocks wide."""
        of_block = blocks(self.wide)
        return widened(self.wide, self.narrow, [node for name in keep for node in of_block[name]])


def searches(
    wide: Mapping[Stage, bytes],
    narrow: Mapping[Stage, bytes],
    images: Sequence[Float32],
    *,
    limits: Limits,
    patches: int,
    fusion_head: bool,
) -> list[StageSearch]:
    """The stages that have `narrow` graphs, ready to be searched on `images`, float32 [2944, 1920], standardized."""
    engines = {stage: graph_engine(graph, stage, fusion_head=fusion_head) for stage, graph in wide.items()}
    pipeline = Pipeline(OpenedEngines(engines=engines, provenance={}), patches=patches, provenance={})
    cases = [Case(image=image, expected=answer(pipeline(image))) for image in images]
    return [
        StageSearch(stage=stage, wide=wide[stage], narrow=graph, cases=cases, limits=limits, fusion_head=fusion_head)
        for stage, graph in narrow.items()
    ]


def search(stages: Sequence[StageSearch], report: Report = lambda step: None) -> Found:
    """The fastest that passes, stage by stage; each stage is judged with the other one in FP32.

    Raises BackendBuildError, BackendRunError.
    """
    mixture: dict[Stage, Precision] = {"fusion": "fp32"}
    graphs, frontier = {}, []
    for task in stages:
        points = list(_points(task, report))
        best = min((point for point in points if point.passed), key=lambda point: point.latency_ms)
        mixture[task.stage] = best.precision
        graphs[task.stage] = task.mixed(best.wide)
        frontier += points
    return Found(mixture=mixture, graphs=graphs, frontier=tuple(frontier))


def _points(task: StageSearch, report: Report) -> Iterator[Point]:
    """FP32 first, which passes by definition, then bf16 where it can be had, then 8 bits, ever wider."""
    report(f"measuring the {task.stage} graph in fp32")
    yield _measured(task, task.wide, "fp32")
    if not cpu_features.features().isdisjoint(cpu_features.BF16):
        report(f"measuring the {task.stage} graph in bf16")
        yield _measured(task, task.wide, "bf16", floats="bf16")
    yield (narrowest := _measured(task, task.mixed([]), "int8"))
    if not narrowest.passed:
        yield from _widening(task, report)


def _widening(task: StageSearch, report: Report) -> Iterator[Point]:
    """Halvings find the least number of blocks, the most sensitive first, that must be wide; more wide is no worse."""
    ranked = sensitivity(task, report)
    least, most = 1, len(ranked) - 1
    while least <= most:
        count = (least + most) // 2
        report(f"trying the {task.stage} graph with {count} of {len(ranked)} blocks wide")
        point = _measured(task, task.mixed(ranked[:count]), "int8", wide=tuple(ranked[:count]))
        yield point
        least, most = (least, count - 1) if point.passed else (count + 1, most)


def sensitivity(task: StageSearch, report: Report = lambda step: None) -> list[str]:
    """Names of a stage's blocks, first the one that alone in 8 bits harms the saliency most; on the first image."""
    inputs, name = _inputs(task.stage, task.cases[0])
    expected = task.engine(task.wide).run(inputs)[name]
    errors = {}
    names = list(blocks(task.wide))
    for block in names:
        report(f"what 8 bits in block {block} of the {task.stage} graph do")
        alone = task.mixed([other for other in names if other != block])
        errors[block] = float(np.abs(task.engine(alone).run(inputs)[name] - expected).mean())
    return sorted(errors, key=errors.__getitem__, reverse=True)


def _measured(
    task: StageSearch, graph: bytes, precision: Precision, *, floats: Float = "fp32", wide: tuple[str, ...] = ()
) -> Point:
    engine = task.engine(graph, floats)
    engine.run(_inputs(task.stage, task.cases[0])[0])  # the first run allocates
    timed = [_timed(partial(_found, engine, task.stage, case)) for case in task.cases]
    lowest = [_lowest(found, case) for (found, _), case in zip(timed, task.cases, strict=True)]
    same = [_same_patches(found, case) for (found, _), case in zip(timed, task.cases, strict=True)]
    limits = task.limits
    agree = sum(same) / len(same)
    good = median(lowest) >= limits.dice_median and min(lowest) >= limits.dice_worst and agree >= limits.patch_agreement
    return Point(
        stage=task.stage,
        precision=precision,
        wide=wide,
        narrow_share=narrow_share(task.wide, graph) if precision == "int8" else 0.0,
        latency_ms=min(ms / _rows(task.stage, case) for (_, ms), case in zip(timed, task.cases, strict=True)),
        dice_median=median(lowest),
        dice_worst=min(lowest),
        same_patches=agree,
        passed=good or precision == "fp32",
    )


def _timed(work: Callable[[], Answer]) -> tuple[Answer, float]:
    before = perf_counter()
    found = work()
    return found, (perf_counter() - before) * 1e3


def _inputs(stage: Stage, case: Case) -> tuple[dict[str, Float32], str]:
    """What the stage takes of an image, FP32's patches for the local one, and the name of its saliency."""
    if stage == "global":
        return {"image": case.image[None, None]}, "saliency_global"
    return {"patches": host.crop(case.image, case.expected["patch_locations"])}, "saliency_patches"


def _rows(stage: Stage, case: Case) -> int:
    return 1 if stage == "global" else len(case.expected["patch_locations"])


def _found(engine: Engine, stage: Stage, case: Case) -> Answer:
    """FP32's answer with this engine's part in the place of its own."""
    inputs, name = _inputs(stage, case)
    outputs = engine.run(inputs)
    if stage == "local":
        return case.expected | {name: outputs[name]}
    maps = GlobalMaps(saliency=outputs[name], y_scale=outputs["y_scale"], z_g=outputs["z_g"])
    chosen = host.select(inputs["image"], maps, len(case.expected["patch_locations"]))
    return case.expected | {name: outputs[name][0], "patch_locations": chosen.locations[0]}


def _lowest(found: Answer, case: Case) -> float:
    return min(parity.lowest for parity in compare_maps(found, case.expected))


def _same_patches(found: Answer, case: Case) -> bool:
    return bool((found["patch_locations"] == case.expected["patch_locations"]).all())
