"""Engines of one TensorRT flavour in a copy of the bundle; what the library refuses is kept in its own words."""

import shutil
from time import perf_counter
from typing import Any

from glam_bench.gpu_check.context import Context
from glam_bench.gpu_check.steps import HALF_FIRST
from glam_deploy.bundle import graph_file, open_bundle
from glam_deploy.device.gpu import Gpu
from glam_deploy.engines.tensorrt import store
from glam_deploy.engines.tensorrt.identity import Machine, machine_of
from glam_deploy.errors import BackendBuildError, GlamError
from glam_deploy.spec import Precision


def run(context: Context) -> None:
    """Every precision that the bundle has graphs of, half precisions first.

    Raises BackendUnavailable where the flavour is not installed, BackendBuildError where it refuses every graph.
    """
    if not context.bundle.exists():
        shutil.copytree(context.options.bundle, context.bundle)
    machine = machine_of(Gpu(context.options.device))
    files = open_bundle(context.bundle).files
    built: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for precision in (p for p in HALF_FIRST if graph_file("local", p) in files):
        try:
            built[precision] = _build(context, precision, machine)
        except GlamError as error:
            refused[precision] = f"{type(error).__name__}: {error}"
        context.add(built=built, refused=refused)
    if not built:
        raise BackendBuildError("; ".join(dict.fromkeys(refused.values())))


def _build(context: Context, precision: Precision, machine: Machine) -> dict[str, Any]:
    start = perf_counter()
    settled = store.plan(store.BuildRequest(precision=precision, flavour=context.argument), machine)
    outcome = store.build_engines(context.bundle, settled, lambda *_: None)
    return {
        "seconds": perf_counter() - start,
        "library": str(settled.library),
        "made_for": outcome.entry["made_for"],
        "confirmed_share": {stage: part["confirmed_share"] for stage, part in outcome.entry["stages"].items()},
        "warnings": list(outcome.warnings),
    }
