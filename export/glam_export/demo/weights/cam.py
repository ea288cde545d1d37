"""Demo weights of CAM: a ResNet-18.

The score is the sigmoid of the mean logit over all cells, of which a lesion covers about one in a hundred. So a cell of
a lesion has a logit of some hundreds, and all others have one that is exactly that of the bias.
"""

import torch

from glam_export.demo import circuit
from glam_export.demo.circuit import Rule, grow, keep, mean, spread
from glam_export.demo.weights.parts import BLUR, CLEAN, FINE, NOTHING, State, Step, set_resnet, step
from glam_export.reference.cam.keys import Layout

LAYOUT = Layout(blocks=(2, 2, 2, 2), has_bottlenecks=False, channels=3)
LESION, REST = 1000.0, -1.5
"""Logit of a cell inside a lesion over that of the others, and that of the others."""


def set_weights(state: State) -> None:
    """Fill the neutral tensors of CAM, in place."""
    slot = set_resnet(state, "", LAYOUT.blocks, _steps())
    logits = ({"B": LESION}, {"G": LESION})
    state["fc.weight"] = circuit.read_out(logits, source=slot, clipped=True, like=state["fc.weight"])
    state["fc.bias"] = torch.full((2,), REST)


def _steps() -> list[Step]:
    """16 convolutions at 4, 8, 16 and 32 pixels a cell, four each; at the end B is benign and G malignant."""
    b, f, g = keep("B"), grow("F"), spread("F", "G")
    middle = [step(mean("B"), f, g), step(b, f, g), step(b, keep("F"), g), step(b, keep("F"), g)]
    coarse = [step(mean("B"), keep("F"), g), *[step(b, keep("F"), g)] * 3]
    apart = step(
        Rule(centre={"B": 2.5}, window={"G": -2.0}, bias=-0.75), NOTHING, Rule(centre={"G": 2.5, "F": 2.5}, bias=-0.75)
    )
    last = [BLUR, CLEAN, apart, CLEAN]
    return [*FINE, *middle, *coarse, *last]
