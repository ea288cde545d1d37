"""Parts of the demo weights that several networks share: stem, thresholds, ResNet-22 trunk, ResNets.

A trunk's stem measures brightness and, by centre minus surround over a few pixels, grains; its blocks clean and grow
these signals and spread "grain" through the bright region that holds it. `circuit` has the signals and their rules.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from glam_export.demo import circuit
from glam_export.demo.circuit import ONE, ONE_CHANNEL, Rule, grow, keep, keep_inside, mean, plain, spread

State = dict[str, Tensor]
Step = Mapping[str, Rule]
Logits = Sequence[Mapping[str, float]]
"""For each class the weight of each signal and of the constant: bright without grains is benign; grains, or bright with
grains, are malignant."""

BRIGHT, GRAIN = 2.05, 0.24
"""Thresholds on the smoothed standardized image and on its centre-minus-surround, in standard deviations."""
STEEP = 8.0
"""Slope of both thresholds."""

TRUNK_SLOT = 1
"""Slot with the signals after the last block of a stage of the ResNet-22."""
NOTHING = Rule()
"""Remains 0: G starts only when B is clean, because G spreads from small errors."""


def step(bright: Rule, grain: Rule, region: Rule) -> Step:
    """Rules of one convolution for the three signals."""
    return {"B": bright, "F": grain, "G": region}


BLUR = step(mean("B"), mean("F"), mean("G"))
CLEAN = step(keep("B"), keep("F"), keep("G"))
FINE = (
    step(mean("B"), keep("F"), Rule(window={ONE: -1.0}, bias=8.5)),
    step(keep("B"), Rule(centre={"F": 2.5}, window={"G": -3.0}, bias=-0.75), NOTHING),
    *[step(keep("B"), grow("F"), spread("F", "G"))] * 2,
)
"""First stage of a ResNet. G first marks the outermost cells, which have missing neighbours, and F is removed in them
and beside them: there the stem takes the zero padding for a dark surround."""


def set_trunk(state: State, trunk: str, coarsest: Sequence[Step]) -> None:
    """A ResNet-22, stage after stage at half the resolution: block 0 writes slot 0, block 1 reads it, writes slot 1.

    `trunk`: prefix of its keys. `coarsest`: rules of the first three convolutions of the last stage.
    """
    state[f"{trunk}.first_conv.weight"] = _stem(state[f"{trunk}.first_conv.weight"])
    _set_threshold(state, f"{trunk}.layer_list.0.0.bn1")
    for stage, steps in enumerate(_trunk_steps(coarsest)):
        head, tail = f"{trunk}.layer_list.{stage}.0", f"{trunk}.layer_list.{stage}.1"
        after = f"{trunk}.layer_list.{stage + 1}.0.bn1" if stage < 4 else f"{trunk}.final_bn"
        source = TRUNK_SLOT if stage else 0
        _set_block(state, head, steps[:2], norms=(f"{head}.bn2", f"{tail}.bn1"), source=source, target=0)
        _set_block(state, tail, steps[2:], norms=(f"{tail}.bn2", after), source=0, target=TRUNK_SLOT)
        _carry_one(state, tail)


def set_resnet(state: State, resnet: str, blocks: Sequence[int], steps: Sequence[Step]) -> int:
    """A ResNet of basic blocks; returns the slot of the last block's signals.

    Each block writes the next free slot, and the shortcut keeps the others. Where the width changes the shortcut is 0,
    and slots are counted from 0 again. `resnet`: prefix of its keys, with the last dot. `blocks`: in each of its four
    stages. `steps`: rules of its convolutions, two for each block.
    """
    state[f"{resnet}conv1.weight"] = _stem(state[f"{resnet}conv1.weight"])
    _set_threshold(state, f"{resnet}bn1")
    rules, source = iter(steps), 0
    for layer, count in enumerate(blocks, start=1):
        for i in range(count):
            block, target = f"{resnet}layer{layer}.{i}", i + (layer == 1)
            norms = f"{block}.bn1", f"{block}.bn2"
            _set_block(state, block, (next(rules), next(rules)), norms=norms, source=source, target=target)
            source = target
    state[f"{block}.bn2.bias"][ONE_CHANNEL] = 1
    return source


def _stem(like: Tensor) -> Tensor:
    """7 x 7: brightness into the two channels of B, centre minus surround into those of F."""
    weight = torch.zeros_like(like)
    weight[0:2] = _gaussian(1.5)
    weight[2:4] = _gaussian(1.2) - _gaussian(3.0)
    return weight / like.shape[1]


def _gaussian(sigma: float) -> Tensor:
    line = torch.exp(-(torch.arange(-3.0, 4.0) ** 2) / (2 * sigma**2))
    return torch.outer(line, line) / line.sum() ** 2


def _set_threshold(state: State, batch_norm: str) -> None:
    """Map the stem's measures to B and F: STEEP * (measure - threshold), clipped later; and set the constant."""
    state[f"{batch_norm}.weight"][:4] = STEEP
    low = torch.tensor([-STEEP * BRIGHT, -STEEP * BRIGHT - 1, -STEEP * GRAIN, -STEEP * GRAIN - 1])
    state[f"{batch_norm}.bias"][:4] = low
    state[f"{batch_norm}.bias"][ONE_CHANNEL] = 1


def _trunk_steps(coarsest: Sequence[Step]) -> list[tuple[Step, ...]]:
    """Rules of the four convolutions of each stage; a head reads the last one without batch norm."""
    b, f, g = keep("B"), grow("F"), spread("F", "G")
    end = step(plain("B"), plain("F"), plain("G"))
    near = (step(b, keep_inside("F"), NOTHING), step(b, f, NOTHING), step(b, f, g), end)
    middle = (step(mean("B"), f, g), step(b, f, g), step(b, f, g), end)
    far = (BLUR, CLEAN, CLEAN, end)
    return [near, middle, far, far, (*coarsest, end)]


def _set_block(
    state: State, block: str, steps: Sequence[Step], *, norms: tuple[str, str], source: int, target: int
) -> None:
    """Two steps in the two convolutions of a block; `norms`: prefixes of the batch norms that follow them."""
    first, second = (state[f"{block}.conv{i}.weight"] for i in (1, 2))
    state[f"{block}.conv1.weight"] = circuit.kernel(steps[0], source=source, target=0, like=first)
    state[f"{block}.conv2.weight"] = circuit.kernel(steps[1], source=0, target=target, like=second)
    for norm, rules, slot in zip(norms, steps, (0, target), strict=True):
        state[f"{norm}.bias"] += circuit.bias(rules, target=slot, like=state[f"{norm}.bias"])


def _carry_one(state: State, block: str) -> None:
    """Make the last channel of a pre-activation block's output 1."""
    state[f"{block}.bn2.bias"][ONE_CHANNEL] = 1
    state[f"{block}.conv2.weight"][ONE_CHANNEL, ONE_CHANNEL, 1, 1] = 1


def set_attention(state: State, slot: int, strength: float) -> None:
    """Attention that prefers patches with a strong response in the signals of `slot`."""
    signals = [circuit.SLOT * slot + 2 * i for i in range(len(circuit.SIGNALS))]
    state["mil_attn_V.weight"][:, signals] = 0.5
    state["mil_attn_U.weight"][:, signals] = 0.5
    state["mil_attn_w.weight"][:] = strength


def set_fusion(state: State, logits: Logits, *, slot: int, share: float) -> None:
    """Fusion layer that adds both modules' evidence. `slot`: of z_k. `share`: of the evidence from z_k, 0..1."""
    z_g, z_k = torch.zeros(2, 256), torch.zeros(2, 512)
    parts = ((TRUNK_SLOT, z_g, 1 - share), (slot, z_k, share))
    state["fusion_dnn.weight"] = torch.cat(
        [
            circuit.read_out(_scaled(logits, part), source=source, clipped=True, like=like)
            for source, like, part in parts
        ],
        dim=1,
    )
    state["fusion_dnn.bias"] = torch.tensor([logit[ONE] for logit in logits])


def _scaled(logits: Logits, share: float) -> Logits:
    return [{name: value * share for name, value in logit.items() if name != ONE} for logit in logits]
