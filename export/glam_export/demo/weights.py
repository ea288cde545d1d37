"""Demo weights, made from code: they find the lesions of `glam_export.demo.phantom` and were not trained on patients.

Both modules are set by hand. The stem measures brightness and, by centre minus surround over a few pixels, grains; the
blocks clean and grow these signals and spread "grain" through the bright region that holds it; the heads read bright
without grains as benign, grains or a bright region with grains as malignant. A small random disturbance on every
tensor keeps every layer in play.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from glam_deploy.errors import UsageError
from glam_deploy.networks import GLAM, NetworkSpec
from glam_export.demo import circuit
from glam_export.demo.circuit import ONE, ONE_CHANNEL, Rule, grow, invert, keep, keep_inside, mean, plain, spread
from glam_export.reference.glam import GlamNetwork

State = dict[str, Tensor]
Step = Mapping[str, Rule]

BRIGHT, GRAIN = 2.05, 0.24
"""Thresholds on the smoothed standardized image and on its centre-minus-surround, in standard deviations."""
STEEP = 8.0
"""Slope of both thresholds."""
DISTURBANCE = 0.003
"""Size of the random part: of a layer's output for unit inputs, and of batch-norm tensors a tenth of it."""

GLOBAL_SLOT, LOCAL_SLOT = 1, 2
"""Slots with the signals after the last block of a stage of the global module, and of the local module."""
LOGITS = (
    MappingProxyType({"B": 10.0, "F": 1.0, "G": -9.0, ONE: -5.0}),
    MappingProxyType({"B": 1.5, "F": 9.0, "G": 9.0, ONE: -4.5}),
)


def demo_state_dict(*, network: NetworkSpec = GLAM, seed: int = 0) -> State:
    """The demo network's tensors by published key: float32 (and int64 batch counters), 24,086,140 parameters.

    `network`: GLAM has attention and fusion layers, GLAM_CONCATENATION has none. `seed` draws the disturbance; the
    same arguments give the same tensors. Raises UsageError for a negative seed.
    """
    if seed < 0:
        raise UsageError(f"demo weights: seed {seed}; give a whole number >= 0")
    with torch.device("meta"):
        shapes = GlamNetwork(network).state_dict()
    state = {name: _neutral(name, like) for name, like in shapes.items()}
    _set_global_module(state)
    _set_local_module(state)
    if network is GLAM:
        _set_attention_and_fusion(state)
    _disturb(state, torch.Generator().manual_seed(seed))
    return state


def _neutral(name: str, like: Tensor) -> Tensor:
    """Identity for batch norms, zeros for convolutions."""
    one = name.endswith("running_var") or (like.ndim == 1 and name.endswith("weight"))
    return torch.full(like.shape, int(one), dtype=like.dtype)


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


def _step(bright: Rule, grain: Rule, region: Rule) -> Step:
    return {"B": bright, "F": grain, "G": region}


def _set_global_module(state: State) -> None:
    """Stage after stage at half the resolution: block 0 writes slot 0, block 1 reads it and writes slot 1."""
    branch = "global_network.downsampling_branch"
    state[f"{branch}.first_conv.weight"] = _stem(state[f"{branch}.first_conv.weight"])
    _set_threshold(state, f"{branch}.layer_list.0.0.bn1")
    for stage, steps in enumerate(_global_steps()):
        head, tail = f"{branch}.layer_list.{stage}.0", f"{branch}.layer_list.{stage}.1"
        after = f"{branch}.layer_list.{stage + 1}.0.bn1" if stage < 4 else f"{branch}.final_bn"
        _set_block(state, head, steps[:2], after=f"{tail}.bn1", source=GLOBAL_SLOT if stage else 0, target=0)
        _set_block(state, tail, steps[2:], after=after, source=0, target=GLOBAL_SLOT)
        _carry_one(state, tail)
    _set_scale_heads(state)


NOTHING = Rule()
"""Remains 0: G starts only when B is clean, because G spreads from small errors."""


def _global_steps() -> list[tuple[Step, ...]]:
    """Rules of the four convolutions of each stage; a head reads the last one without batch norm."""
    b, f, g = keep("B"), grow("F"), spread("F", "G")
    end = _step(plain("B"), plain("F"), plain("G"))
    near = (_step(b, keep_inside("F"), NOTHING), _step(b, f, NOTHING), _step(b, f, g), end)
    middle = (_step(mean("B"), f, g), _step(b, f, g), _step(b, f, g), end)
    far = (_step(mean("B"), mean("F"), mean("G")), _step(b, keep("F"), keep("G")), _step(b, keep("F"), keep("G")), end)
    blur = _step(mean("B"), mean("F"), mean("G"))
    # soft tails at the coarsest scale, so that the patch with the largest sum has the lesion well inside
    return [near, middle, far, far, (blur, blur, blur, end)]


def _set_block(state: State, block: str, steps: Sequence[Step], *, after: str, source: int, target: int) -> None:
    """Two steps in the two convolutions of a block; `after` is the batch norm that follows the second."""
    first, second = (state[f"{block}.conv{i}.weight"] for i in (1, 2))
    state[f"{block}.conv1.weight"] = circuit.kernel(steps[0], source=source, target=0, like=first)
    state[f"{block}.conv2.weight"] = circuit.kernel(steps[1], source=0, target=target, like=second)
    inner = _bias_between(block)
    state[inner] += circuit.bias(steps[0], target=0, like=state[inner])
    state[f"{after}.bias"] += circuit.bias(steps[1], target=target, like=state[f"{after}.bias"])


def _bias_between(block: str) -> str:
    """Bias of the batch norm between a block's convolutions: the global module has one before them too."""
    return f"{block}.bn2.bias" if block.startswith("global") else f"{block}.bn1.bias"


def _carry_one(state: State, block: str) -> None:
    """Make the last channel of a pre-activation block's output 1."""
    state[f"{block}.bn2.bias"][ONE_CHANNEL] = 1
    state[f"{block}.conv2.weight"][ONE_CHANNEL, ONE_CHANNEL, 1, 1] = 1


def _set_scale_heads(state: State) -> None:
    for scale, clipped in (("1", False), ("2", False), ("last", True)):
        key = f"global_network.postprocess_module.gn_conv_{scale}.weight"
        like = state[key]
        state[key] = circuit.read_out(LOGITS, source=GLOBAL_SLOT, clipped=clipped, like=like)


def _set_local_module(state: State) -> None:
    """Sixteen blocks at one resolution; each writes the next free slot, and the shortcut keeps the other slots."""
    net = "detection_network.dn_resnet"
    state[f"{net}.conv1.weight"] = _stem(state[f"{net}.conv1.weight"])
    _set_threshold(state, f"{net}.bn1")
    steps = iter(_local_steps())
    source = 0
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        for i in range(blocks):
            block, target = f"{net}.layer{layer}.{i}", i + (layer == 1)
            _set_block(state, block, (next(steps), next(steps)), after=f"{block}.bn2", source=source, target=target)
            source = target
    state[f"{block}.bn2.bias"][ONE_CHANNEL] = 1
    key = "detection_network.gn_conv_last.weight"
    state[key] = circuit.read_out(LOGITS, source=LOCAL_SLOT, clipped=True, like=state[key])


def _local_steps() -> list[Step]:
    """32 convolutions, 4 pixels a step: grains 9 steps out and 7 back (their hull), regions filled on the way."""
    out, back = [keep_inside("F"), *[grow("F")] * 9], [invert("F"), *[grow("F")] * 7, invert("F")]
    grains = [*out, *back, *[keep("F")] * (32 - len(out) - len(back))]
    bright = [mean("B"), *[keep("B")] * 31]
    # from the grains only while F is not inverted
    regions = [NOTHING, NOTHING, *[spread("F", "G")] * 9, *[spread("G")] * 20, keep("G")]
    return [_step(*rules) for rules in zip(bright, grains, regions, strict=True)]


def _set_attention_and_fusion(state: State) -> None:
    """Attention prefers patches with a strong response; the fusion layer adds both modules' evidence."""
    signals = [circuit.SLOT * LOCAL_SLOT + 2 * i for i in range(len(circuit.SIGNALS))]
    state["mil_attn_V.weight"][:, signals] = 0.5
    state["mil_attn_U.weight"][:, signals] = 0.5
    state["mil_attn_w.weight"][:] = 0.05
    z_g, z_l = torch.zeros(2, 256), torch.zeros(2, 512)
    half = [{name: value / 2 for name, value in logit.items() if name != ONE} for logit in LOGITS]
    state["fusion_dnn.weight"] = torch.cat(
        [
            circuit.read_out(half, source=GLOBAL_SLOT, clipped=True, like=z_g),
            circuit.read_out(half, source=LOCAL_SLOT, clipped=True, like=z_l),
        ],
        dim=1,
    )
    state["fusion_dnn.bias"] = torch.tensor([logit[ONE] for logit in LOGITS])


def _disturb(state: State, generator: torch.Generator) -> None:
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        fan_in = tensor[0].numel() if tensor.ndim > 1 else 100
        noise = torch.randn(tensor.shape, generator=generator) * DISTURBANCE / math.sqrt(fan_in)
        tensor.add_(noise.abs() if name.endswith("running_var") else noise)
