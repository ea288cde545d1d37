"""Engines of one precision and one TensorRT flavour in a copy of the bundle."""

from time import perf_counter
from typing import Any, cast

from glam_bench.gpu.plan import GpuContext
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.engines.tensorrt import store
from glam_deploy.gpu.engines.tensorrt.identity import Machine, machine_of
from glam_deploy.json_records import to_json
from glam_deploy.precision import Precision


def run(context: GpuContext) -> None:
    """Raises what `store` raises, with the message of the library: it is not installed, or it refuses a graph.

    Layer reports that the build has kept are copied beside the record, because the copy of the bundle is deleted.
    """
    precision, _, flavour = context.argument.partition("@")
    machine = machine_of(Gpu(context.options.device))
    try:
        context.add(**_build(context, cast(Precision, precision), flavour, machine))
    finally:
        kept = sorted(context.bundle.glob(f"**/{flavour}-{precision}-*/*.layers.*"))
        names = [context.keep(f"{precision}@{flavour}-{path.name}", path.read_text("utf-8")) for path in kept]
        context.add(reports=names)


def _build(context: GpuContext, precision: Precision, flavour: str, machine: Machine) -> dict[str, Any]:
    start = perf_counter()
    settled = store.plan(store.BuildRequest(precision=precision, flavour=flavour), machine)
    outcome = store.build_engines(context.bundle, settled, lambda *_: None)
    return {
        "seconds": perf_counter() - start,
        "library": str(settled.library),
        "made_for": to_json(outcome.entry.made_for),
        "confirmed_share": {stage: part.confirmed_share for stage, part in outcome.entry.stages.items()},
        "warnings": list(outcome.warnings),
    }
