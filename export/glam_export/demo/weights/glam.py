"""Demo weights of GLAM."""

from types import MappingProxyType

from glam_deploy.networks import GLAM, NetworkSpec
from glam_export.demo import circuit
from glam_export.demo.circuit import ONE, grow, invert, keep, keep_inside, mean, spread
from glam_export.demo.weights.parts import (
    BLUR,
    NOTHING,
    TRUNK_SLOT,
    State,
    Step,
    set_attention,
    set_fusion,
    set_resnet,
    set_trunk,
    step,
)

LOCAL_BLOCKS = (3, 4, 6, 3)
LOGITS = (
    MappingProxyType({"B": 10.0, "F": 1.0, "G": -9.0, ONE: -5.0}),
    MappingProxyType({"B": 1.5, "F": 9.0, "G": 9.0, ONE: -4.5}),
)


def set_weights(state: State, network: NetworkSpec) -> None:
    """Fill the neutral tensors of GLAM, in place; without attention and fusion layers for GLAM_CONCATENATION."""
    # soft tails at the coarsest scale, so that the patch with the largest sum has the lesion well inside
    set_trunk(state, "global_network.downsampling_branch", [BLUR] * 3)
    for scale, clipped in (("1", False), ("2", False), ("last", True)):
        key = f"global_network.postprocess_module.gn_conv_{scale}.weight"
        state[key] = circuit.read_out(LOGITS, source=TRUNK_SLOT, clipped=clipped, like=state[key])
    slot = set_resnet(state, "detection_network.dn_resnet.", LOCAL_BLOCKS, _local_steps())
    key = "detection_network.gn_conv_last.weight"
    state[key] = circuit.read_out(LOGITS, source=slot, clipped=True, like=state[key])
    if network is GLAM:
        set_attention(state, slot, 0.05)
        set_fusion(state, LOGITS, slot=slot, share=0.5)


def _local_steps() -> list[Step]:
    """32 convolutions, 4 pixels a step: grains 9 steps out and 7 back (their hull), regions filled on the way."""
    out, back = [keep_inside("F"), *[grow("F")] * 9], [invert("F"), *[grow("F")] * 7, invert("F")]
    grains = [*out, *back, *[keep("F")] * (32 - len(out) - len(back))]
    bright = [mean("B"), *[keep("B")] * 31]
    # from the grains only while F is not inverted
    regions = [NOTHING, NOTHING, *[spread("F", "G")] * 9, *[spread("G")] * 20, keep("G")]
    return [step(*rules) for rules in zip(bright, grains, regions, strict=True)]
