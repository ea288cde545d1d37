"""The networks that this release knows, one frozen `NetworkSpec` each."""

import copyreg

from glam_deploy.networks.base import (
    COMPOSED_MAP,
    PUBLISHED_FRAME,
    STAGES,
    GraphContract,
    NetworkSpec,
    PatchSelection,
    Stage,
    Tensor,
)
from glam_deploy.networks.glam import GLAM, GLAM_CONCATENATION

__all__ = [
    "COMPOSED_MAP",
    "GLAM",
    "GLAM_CONCATENATION",
    "MOST_PATCHES",
    "NETWORKS",
    "PUBLISHED_FRAME",
    "STAGES",
    "GraphContract",
    "NetworkSpec",
    "PatchSelection",
    "Stage",
    "Tensor",
    "network",
]

NETWORKS = (GLAM, GLAM_CONCATENATION)

MOST_PATCHES = max(spec.patches.slots for spec in NETWORKS if spec.selection)
"""Patches of an image that some network takes; before a bundle is open, no smaller limit is known."""


def network(name: str, aggregation: str) -> NetworkSpec:
    """The network of that name and aggregation. Raises LookupError, which names those there are, for any other."""
    for spec in NETWORKS:
        if (spec.name, spec.aggregation) == (name, aggregation):
            return spec
    known = ", ".join(f"{spec.name} with {spec.aggregation} aggregation" for spec in NETWORKS)
    raise LookupError(f"the network {name!r} with {aggregation!r} aggregation is unknown; this release has {known}")


# pickled by name, because a process that reads it has the same networks and their mappings are read-only proxies
copyreg.pickle(NetworkSpec, lambda spec: (network, (spec.name, spec.aggregation)))
