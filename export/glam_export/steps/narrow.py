"""Steps that make graphs in 8 bits. Imported only for exports with such graphs: they need NNCF and OpenVINO."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from glam_deploy.agreement.limits import Limits
from glam_deploy.bundle import graph_file
from glam_deploy.errors import UsageError
from glam_deploy.networks import NetworkSpec
from glam_deploy.records import Float32
from glam_export.precision.calibration import JUDGED, calibration, images_in, phantoms
from glam_export.precision.frontier import frontier_svg
from glam_export.precision.quantize import quantized
from glam_export.precision.search import search, stage_searches
from glam_export.steps.base import Draft, Report, Step
from glam_export.torch_engine import network_engines

FRONTIER_FILE = "frontier.svg"


@dataclass(frozen=True, kw_only=True)
class PrepareImages(Step):
    """Read and standardize the calibration images, before graphs take minutes."""

    images: Path | None
    """A folder of mammograms; None for phantoms."""

    @property
    def title(self) -> str:
        return "preparing the calibration images"

    def run(self, draft: Draft, report: Report) -> Draft:
        return replace(draft, images=images_in(self.images) if self.images else phantoms())


@dataclass(frozen=True, kw_only=True)
class Quantize(Step):
    """Calibrate the global and the local graph with all convolutions in 8 bits."""

    @property
    def title(self) -> str:
        return "calibrating the graphs in int8"

    def run(self, draft: Draft, report: Report) -> Draft:
        reference = network_engines(draft.checkpoint.network)["global"]
        for stage, inputs in calibration(reference, draft.images).items():
            report(f"{self.title}: {stage}")
            graph = (draft.folder / graph_file(stage)).read_bytes()
            (draft.folder / graph_file(stage, "int8")).write_bytes(quantized(graph, inputs))
        return draft


@dataclass(frozen=True, kw_only=True)
class SearchMixture(Step):
    """Search the fastest mixture of precisions within the limits; its int8 graphs replace those of `Quantize`."""

    limits: Limits
    own_images: bool
    """Whether the calibration images are the user's: mixtures are then judged by them, otherwise by more phantoms."""

    @property
    def title(self) -> str:
        return "searching the fastest mixture of precisions"

    def check(self, network: NetworkSpec) -> None:
        """The search judges the local stage by the maps of patches."""
        if network.selection is None or network.selection.map_side is None:
            raise UsageError(
                f"--precision auto judges mixtures by the saliency maps of patches, and {network.title} has none. "
                f"Export it with --precision fp16."
            )

    def run(self, draft: Draft, report: Report) -> Draft:
        images: Sequence[Float32] = draft.images if self.own_images else phantoms(JUDGED)
        network = draft.checkpoint.network.spec
        wide = {stage: (draft.folder / graph_file(stage)).read_bytes() for stage in network.stages}
        own = [stage for stage in network.stages if graph_file(stage, "int8") != graph_file(stage)]
        stages = stage_searches(
            wide,
            {stage: (draft.folder / graph_file(stage, "int8")).read_bytes() for stage in own},
            images,
            limits=self.limits,
            patches=draft.manifest.network.patches,
            network=network,
            report=report,
        )
        result = search(stages, report)
        for stage, graph in result.graphs.items():
            (draft.folder / graph_file(stage, "int8")).write_bytes(graph)
        (draft.folder / FRONTIER_FILE).write_text(frontier_svg(result.frontier), "utf-8")
        return replace(draft, manifest=replace(draft.manifest, mixture=result.mixture, frontier=result.frontier))
