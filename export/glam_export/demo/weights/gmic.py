"""Demo weights of GMIC.

The local module has no map: z_k is the mean of its last 8 x 8 cells. So its last blocks grow what they have found over
the whole patch, and the mean is near 1 for a patch with a lesion.
"""

from types import MappingProxyType

from glam_export.demo import circuit
from glam_export.demo.circuit import ONE, grow, keep, mean, spread
from glam_export.demo.weights.parts import (
    BLUR,
    CLEAN,
    FINE,
    TRUNK_SLOT,
    State,
    Step,
    set_attention,
    set_fusion,
    set_resnet,
    set_trunk,
    step,
)

LOCAL_BLOCKS = (2, 2, 2, 2)
LOGITS = (
    MappingProxyType({"B": 14.0, "F": 1.0, "G": -13.0, ONE: -5.0}),
    MappingProxyType({"B": 1.5, "F": 10.0, "G": 10.0, ONE: -4.5}),
)
LOCAL_SHARE = 0.3
"""Share of the local module's evidence in y_fusion: less than half, because a patch may cut the grains off a mass."""


def set_weights(state: State) -> None:
    """Fill the neutral tensors of GMIC, in place."""
    # sharper than GLAM's coarsest scale, because a lesion has a few cells only; the last blur avoids ties of windows
    set_trunk(state, "ds_net", [BLUR, CLEAN, BLUR])
    key = "left_postprocess_net.gn_conv_last.weight"
    state[key] = circuit.read_out(LOGITS, source=TRUNK_SLOT, clipped=True, like=state[key])
    slot = set_resnet(state, "dn_resnet.", LOCAL_BLOCKS, _local_steps())
    key = "classifier_linear.weight"
    state[key] = circuit.read_out(LOGITS, source=slot, clipped=True, like=state[key])
    set_attention(state, slot, 0.1)
    set_fusion(state, LOGITS, slot=slot, share=LOCAL_SHARE)


def _local_steps() -> list[Step]:
    """16 convolutions at 4, 8, 16 and 32 pixels a cell, four each."""
    b, f, g = keep("B"), grow("F"), spread("F", "G")
    middle = [step(mean("B"), f, g), step(b, f, g), step(b, keep("F"), g), step(b, keep("F"), g)]
    coarse = [step(mean("B"), keep("F"), g), *[step(b, keep("F"), g)] * 3]
    whole = [step(grow("B"), grow("F"), grow("G"))] * 4
    return [*FINE, *middle, *coarse, *whole]
