"""Steps that write files of a bundle: graphs, weights, manifest."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from glam_deploy.bundle import CHECKPOINT_FILE, FUSION_WEIGHTS_FILE, WINOGRAD_FILE, graph_file, write_manifest
from glam_deploy.errors import UsageError
from glam_deploy.networks import NetworkSpec
from glam_deploy.precision import WINOGRAD_RECIPES, Precision
from glam_export.checkpoint import save_weights
from glam_export.graphs.layers import in_precision
from glam_export.graphs.onnx_file import write_graph
from glam_export.networks import graph_modules
from glam_export.precision.winograd import winograd
from glam_export.reference.base import ReferenceNetwork
from glam_export.steps.base import Draft, Report, Step


@dataclass(frozen=True, kw_only=True)
class WriteGraphs(Step):
    """Trace the graphs of one floating-point precision; a graph that another precision shares is written once.

    The weights of the fusion graph are also written as arrays, which the CUDA kernels of the fusion head need.
    """

    precision: Precision

    @property
    def title(self) -> str:
        return f"writing the graphs in {self.precision}"

    def run(self, draft: Draft, report: Report) -> Draft:
        network = draft.checkpoint.network
        for stage, module in graph_modules(network).items():
            path = draft.folder / graph_file(stage, self.precision)
            if not path.exists():
                report(f"{self.title}: {stage}")
                path.parent.mkdir(exist_ok=True)
                typed = in_precision(module, self.precision)
                write_graph(typed, stage, path, network=network.spec, precision=self.precision)
        if "fusion" in network.spec.stages:
            (draft.folder / FUSION_WEIGHTS_FILE).write_bytes(fusion_weights(network))
        return draft


def fusion_weights(network: ReferenceNetwork) -> bytes:
    """An npz file with `NetworkSpec.fusion_weights`; equal weights give equal bytes."""
    weights = ((name, network.get_parameter(name)) for name in network.spec.fusion_weights)
    arrays: dict[str, Any] = {name: weight.detach().numpy() for name, weight in weights}
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@dataclass(frozen=True, kw_only=True)
class WriteWinograd(Step):
    """Write the local graph in Winograd's form."""

    only_in_mixture: bool
    """Whether to write it only if the mixture of the precision search has that form."""

    @property
    def title(self) -> str:
        condition = ", if the search has chosen it" if self.only_in_mixture else ""
        return f"writing the local graph in Winograd's form{condition}"

    def check(self, network: NetworkSpec) -> None:
        if "local" not in network.stages:
            raise UsageError(f"--winograd rewrites the local graph, which {network.title} does not have. Leave it out.")

    def run(self, draft: Draft, report: Report) -> Draft:
        mixture = draft.manifest.mixture or {}
        if not self.only_in_mixture or any(one in WINOGRAD_RECIPES for one in mixture.values()):
            graph = (draft.folder / graph_file("local")).read_bytes()
            (draft.folder / WINOGRAD_FILE).write_bytes(winograd(graph))
        return draft


@dataclass(frozen=True, kw_only=True)
class WriteWeights(Step):
    """Write the weights, which the engine "torch" needs."""

    @property
    def title(self) -> str:
        return "writing the weights"

    def run(self, draft: Draft, report: Report) -> Draft:
        save_weights(draft.checkpoint.network, draft.folder / CHECKPOINT_FILE)
        return draft


@dataclass(frozen=True, kw_only=True)
class WriteManifest(Step):
    """Write the manifest, with the hash of every file that is there."""

    @property
    def title(self) -> str:
        return "writing the manifest"

    def run(self, draft: Draft, report: Report) -> Draft:
        write_manifest(draft.folder, draft.manifest)
        return draft
