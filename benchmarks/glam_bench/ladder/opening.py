"""Opens a rung of the ladder, in the process of that rung."""

from pathlib import Path

from glam_bench.ladder.rungs import Run, RungPlan, Runner
from glam_bench.opening import open_engine, pipeline_of
from glam_deploy.agreement.answers import answer
from glam_deploy.bundle import open_bundle
from glam_deploy.engines.base import OpenedEngines, Stopwatch
from glam_deploy.errors import BackendUnavailable
from glam_deploy.installation import is_installed
from glam_deploy.records import NetworkInput


class PipelineRunner:
    """Engines behind the engine contract, in the pipeline of this package."""

    build_s: float | None = None

    def __init__(self, opened: OpenedEngines, patches: int) -> None:
        self.identity = opened.identity
        self._pipeline = pipeline_of(opened, patches)

    def __call__(self, view: NetworkInput) -> Run:
        result = self._pipeline(view)
        clock = Stopwatch()
        clock.times_ms |= result.timings_ms
        with clock("fusion"):
            result.saliency()
        return Run(answer=answer(result), stages_ms=clock.times_ms)


def open_rung(plan: RungPlan, bundle_folder: Path, *, patches: int, threads: int | None) -> Runner:
    """Open what a plan names. Raises BackendUnavailable where this machine lacks something, and the engine's errors."""
    if missing := [package for package in plan.needs if not is_installed(package)]:
        raise BackendUnavailable(f"{', '.join(missing)} not installed")
    bundle = open_bundle(bundle_folder)
    if plan.opener == "torch":
        from glam_bench.ladder.torch_rungs import TorchOptions, open_torch

        return open_torch(bundle, patches, threads, TorchOptions(**plan.options))
    if plan.opener == "openvino":
        from glam_bench.ladder.openvino_default import open_default

        return PipelineRunner(open_default(bundle), patches)
    return PipelineRunner(open_engine(plan.options["engine"], bundle, threads=threads), patches)
