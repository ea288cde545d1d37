"""The networks that this release supports, one frozen `NetworkSpec` for each."""

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
    final_score,
)
from glam_deploy.networks.cam import CAM
from glam_deploy.networks.glam import GLAM, GLAM_CONCATENATION
from glam_deploy.networks.gmic import GMIC

__all__ = [
    "CAM",
    "COMPOSED_MAP",
    "GLAM",
    "GLAM_CONCATENATION",
    "GMIC",
    "MOST_PATCHES",
    "NETWORKS",
    "PUBLISHED_FRAME",
    "STAGES",
    "GraphContract",
    "NetworkSpec",
    "PatchSelection",
    "Stage",
    "Tensor",
    "final_score",
    "network",
]

NETWORKS = (GLAM, GLAM_CONCATENATION, GMIC, CAM)

MOST_PATCHES = max(spec.patches.slots for spec in NETWORKS if spec.selection)
"""Maximum number of patches per image over all networks: the limit before the bundle's network is known."""


def network(name: str, aggregation: str) -> NetworkSpec:
    """The network of this name and aggregation. Raises LookupError, which lists the known networks, for any other."""
    for spec in NETWORKS:
        if (spec.name, spec.aggregation) == (name, aggregation):
            return spec
    known = ", ".join(f"{spec.name} with {spec.aggregation} aggregation" for spec in NETWORKS)
    raise LookupError(f"the network {name!r} with {aggregation!r} aggregation is unknown; this release has {known}")


# pickled by name and aggregation, because mappingproxy cannot be pickled; the reading process has the same networks
copyreg.pickle(NetworkSpec, lambda spec: (network, (spec.name, spec.aggregation)))
