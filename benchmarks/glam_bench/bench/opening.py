"""Plan -> runner, in the rung's own process."""

from pathlib import Path

from glam_bench.bench.rungs import RungPlan
from glam_bench.bench.runner import PipelineRunner, Runner
from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.registry import open_engines
from glam_deploy.errors import BackendUnavailable
from glam_deploy.installation import is_installed


def open_rung(plan: RungPlan, bundle_folder: Path, *, patches: int, threads: int | None) -> Runner:
    """Raises BackendUnavailable where this machine lacks something, and what the engine itself raises."""
    if missing := [package for package in plan.needs if not is_installed(package)]:
        raise BackendUnavailable(f"{', '.join(missing)} not installed")
    bundle = open_bundle(bundle_folder)
    if plan.opener == "torch":
        from glam_bench.bench.torch_rungs import TorchOptions, open_torch

        return open_torch(bundle, patches, threads, TorchOptions(**plan.options))
    if plan.opener == "openvino":
        from glam_bench.bench.openvino_default import open_default

        return PipelineRunner(open_default(bundle), patches)
    return _engine(plan, bundle, patches, threads)


def _engine(plan: RungPlan, bundle: Bundle, patches: int, threads: int | None) -> Runner:
    name, flavour = plan.options["engine"], plan.options["flavour"]
    return PipelineRunner(open_engines(name, bundle, EngineOptions(threads=threads, flavour=flavour)), patches)
