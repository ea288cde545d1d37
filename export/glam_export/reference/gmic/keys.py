"""Which tensors a GMIC checkpoint has: their first parts, and what the published files have beside them."""

from collections.abc import Collection

from glam_deploy.errors import CheckpointError
from glam_deploy.networks import GMIC, NetworkSpec

ROOTS = ("ds_net.", "left_postprocess_net.")
"""First parts of the keys that only GMIC has; `dn_resnet.` alone is a part of GLAM's keys too."""
NO_WEIGHTS = ("shared_rep_filter.weight",)
"""In the published files beside the weights; no part of the network."""
OTHER_TRUNK = "ds_net.conv1.weight"
"""Only a variant of GMIC with a ResNet-18 as trunk has it; no published checkpoint."""


def spec_of(keys: Collection[str]) -> NetworkSpec:
    """GMIC. Raises CheckpointError for the variant with another trunk."""
    if OTHER_TRUNK in keys:
        raise CheckpointError(
            f"is a GMIC network with a ResNet-18 as global module, by its key {OTHER_TRUNK}. Expected the published "
            f"one, a ResNet-22, whose first key is ds_net.first_conv.weight."
        )
    return GMIC
