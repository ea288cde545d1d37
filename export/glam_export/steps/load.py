"""Checkpoint file -> network, and the first manifest of its bundle."""

import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import onnx
import onnxruntime
import torch

from glam_deploy import __version__
from glam_deploy.agreement.golden import GOLDEN_FILE
from glam_deploy.bundle import CheckpointEntry, Golden, GraphEntry, Manifest, NetworkEntry, TensorEntry, graph_file
from glam_deploy.networks import NetworkSpec, Stage
from glam_deploy.precision import Precision
from glam_export.checkpoint import Checkpoint, load_checkpoint
from glam_export.networks import family_of
from glam_export.steps.base import Report

LICENCE = (
    "This bundle is a derivative of the weights it was made from and carries their licence. {} glam-deploy ships no "
    "weights."
)


@dataclass(frozen=True, kw_only=True)
class LoadCheckpoint:
    """The first step of an export, before there is a draft."""

    weights: Path
    network: str | None
    key: str | None
    """As of `checkpoint.load_checkpoint`."""
    ignore_keys: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"reading {self.weights.name}"

    def run(self, report: Report) -> Checkpoint:
        """The network. Raises UsageError, CheckpointError."""
        checkpoint = load_checkpoint(self.weights, key=self.key, ignore=self.ignore_keys, network=self.network)
        for note in checkpoint.notes:
            report(f"{self.weights.name}: {note}")
        return checkpoint


def first_manifest(checkpoint: Checkpoint, *, patches: int | None, precisions: tuple[Precision, ...]) -> Manifest:
    """The manifest of a bundle without files and before any comparison with the reference.

    `patches`: the bundle's default; None takes that of the network. Raises UsageError for a number that the network
    does not support.
    """
    network = checkpoint.network.spec
    patches = network.patch_count(patches)
    return Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        licence=LICENCE.format(family_of(network).licence),
        network=NetworkEntry(
            name=network.name, aggregation=network.aggregation, patches=patches, precisions=precisions
        ),
        checkpoint=CheckpointEntry(
            name=checkpoint.path.name,
            sha256=checkpoint.sha256,
            parameters=checkpoint.parameters,
            ignored_keys=tuple(checkpoint.ignored),
            key=checkpoint.key or None,
        ),
        graphs={stage: _graph_entry(stage, network, precisions) for stage in network.stages},
        versions={
            "glam_deploy": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        golden=Golden(file=GOLDEN_FILE, patches=patches),
        parity=(),
        files={},
    )


def _graph_entry(stage: Stage, network: NetworkSpec, precisions: tuple[Precision, ...]) -> GraphEntry:
    contract = network.contract(stage)
    inputs, outputs = (
        {name: TensorEntry(dtype=t.dtype, shape=("batch", *t.shape)) for name, t in tensors.items()}
        for tensors in (contract.inputs, contract.outputs)
    )
    return GraphEntry(files={p: graph_file(stage, p) for p in precisions}, inputs=inputs, outputs=outputs)
