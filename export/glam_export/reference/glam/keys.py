"""Which tensors a GLAM checkpoint has: their first parts, and the network that its attention and fusion keys imply."""

from collections.abc import Collection

from glam_deploy.errors import CheckpointError
from glam_deploy.networks import GLAM, GLAM_CONCATENATION, NetworkSpec

ROOTS = ("global_network.", "detection_network.")
"""First parts of the keys that only GLAM has. Its attention and fusion keys (`HEAD_KEYS`) are GMIC's too."""
HEAD_KEYS = frozenset(
    {"mil_attn_V.weight", "mil_attn_U.weight", "mil_attn_w.weight", "fusion_dnn.weight", "fusion_dnn.bias"}
)


def spec_of(keys: Collection[str]) -> NetworkSpec:
    """GLAM for a state dict with all attention and fusion keys, GLAM_CONCATENATION for one without any of them.

    Raises CheckpointError for one with only some of them.
    """
    found = HEAD_KEYS.intersection(keys)
    if found and found != HEAD_KEYS:
        raise CheckpointError(
            f"has {', '.join(sorted(found))} but lacks {', '.join(sorted(HEAD_KEYS - found))}. Attention and fusion "
            f"layers come all together or not at all."
        )
    return GLAM if found else GLAM_CONCATENATION
