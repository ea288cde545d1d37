"""What an export needs of each network: its reference, its graphs and the keys of its checkpoints.

A further network is a package in `reference/`, a module in `graphs/` and an entry in `FAMILIES`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from glam_deploy.networks import NetworkSpec, Stage
from glam_export.graphs import cam as cam_graphs
from glam_export.graphs import glam as glam_graphs
from glam_export.graphs import gmic as gmic_graphs
from glam_export.reference.base import ReferenceNetwork
from glam_export.reference.cam import CamNetwork
from glam_export.reference.cam import keys as cam_keys
from glam_export.reference.glam import GlamNetwork, keys
from glam_export.reference.gmic import GmicNetwork
from glam_export.reference.gmic import keys as gmic_keys


@dataclass(frozen=True, kw_only=True)
class NetworkFamily:
    """The networks of one `NetworkSpec.name`, which may differ in their aggregation."""

    name: str
    licence: str
    """A sentence about the licence of the published weights."""
    roots: tuple[str, ...]
    """Beginnings of state-dict keys, each with its last dot, that with `needs` no other family has."""
    spec_of: Callable[[Mapping[str, Tensor]], NetworkSpec]
    """State dict -> the network. Raises CheckpointError, without the file's name, for tensors of no network."""
    reference: type[ReferenceNetwork]
    graph_modules: Callable[[Any], dict[Stage, nn.Module]]
    """A `reference` -> the module of each stage that is traced into an ONNX graph."""
    needs: tuple[str, ...] = ()
    """Keys that must be in a state dict beside those of `roots`, where another family has these too."""
    assumption: str = ""
    """What a checkpoint's keys cannot show and an export assumes, for the user; "" for nothing."""
    no_weights: tuple[str, ...] = ()
    """Keys of published checkpoints that inference does not use."""


FAMILIES = (
    NetworkFamily(
        name="GLAM",
        licence=(
            "The weights published with the GLAM paper are for research only and may not be passed on; their README "
            "and LICENSE contradict each other."
        ),
        roots=keys.ROOTS,
        spec_of=keys.spec_of,
        reference=GlamNetwork,
        graph_modules=glam_graphs.graph_modules,
    ),
    NetworkFamily(
        name="GMIC",
        licence="The weights published with the GMIC paper are under the GNU AGPL version 3.",
        roots=gmic_keys.ROOTS,
        spec_of=gmic_keys.spec_of,
        reference=GmicNetwork,
        graph_modules=gmic_graphs.graph_modules,
        no_weights=gmic_keys.NO_WEIGHTS,
    ),
    NetworkFamily(
        name="CAM",
        licence="No CAM weights for mammograms are published; the licence is the one of the checkpoint's authors.",
        roots=cam_keys.ROOTS,
        spec_of=cam_keys.spec_of,
        reference=CamNetwork,
        graph_modules=cam_graphs.graph_modules,
        needs=(cam_keys.CLASSIFIER,),
        assumption=cam_keys.ASSUMPTION,
    ),
)


def family_of(spec: NetworkSpec) -> NetworkFamily:
    """The family of a network."""
    return next(family for family in FAMILIES if family.name == spec.name)


def graph_modules(network: ReferenceNetwork) -> dict[Stage, nn.Module]:
    """The module of each stage that is traced into an ONNX graph, in eval mode."""
    return family_of(network.spec).graph_modules(network)
