"""Image operations as convolution, batch norm and ReLU, from which the demo weights are made.

Three signals, each 0..1, flow through both modules: B "bright", F "fine bright grains", G "bright and connected to
grains". A signal takes two channels that carry the same sum; ReLU with biases b and b - 1 turns them into relu(s + b)
and relu(s + b - 1), whose difference is s + b clipped to 0..1. So every convolution reads `first - second`, and with
a clip after each one, sums and thresholds make dilation, erosion (dilation of the inverse), logical AND and, repeated,
reconstruction of a bright region from a mark inside it. Zero padding means "nothing there" for all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

SIGNALS = ("B", "F", "G")
ONE, ONE_CHANNEL = "1", -1
"""Name of the constant 1, and its channel: the last one of each layer."""
SLOT = 2 * len(SIGNALS)
"""Channels of one set of signals; a slot s holds them in channels SLOT * s onwards."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One signal's next value: clip(sum of centre taps + sum of window taps + bias)."""

    centre: Mapping[str, float] = field(default_factory=dict)
    """Weight of each signal's own pixel."""
    window: Mapping[str, float] = field(default_factory=dict)
    """Weight of each of the nine pixels around, for each signal."""
    bias: float = 0.0


def keep(signal: str) -> Rule:
    """The same value, amplified around one half, so that disturbances become smaller at each layer.

    With this factor hardly any pixel is still near one half in the last layer; there, rounding would decide its value.
    """
    return Rule(centre={signal: 2.5}, bias=-0.75)


def plain(signal: str) -> Rule:
    """The same value without bias: for convolutions that a head reads before any batch norm."""
    return Rule(centre={signal: 1.0})


def mean(signal: str) -> Rule:
    """Mean over 3 x 3."""
    return Rule(window={signal: 1 / 9})


def grow(signal: str) -> Rule:
    """Dilation by one pixel; disturbances up to 0.05 in all nine pixels stay below the threshold."""
    return Rule(window={signal: 2.0}, bias=-1.0)


def keep_inside(signal: str) -> Rule:
    """`keep`, but 0 in the outermost pixels: there the constant "1" has missing neighbours, and the stem took the zero
    padding around the picture for a dark surround."""
    kept = keep(signal)
    return Rule(centre=kept.centre, window={ONE: 4.0}, bias=kept.bias - 36)


def invert(signal: str) -> Rule:
    """One minus the value."""
    return Rule(centre={signal: -1.0}, bias=1.0)


def spread(*sources: str) -> Rule:
    """The sources grow by one pixel, but only where B is: 36 outweighs nine full neighbours of two sources."""
    return Rule(window=dict.fromkeys(sources, 2.0), centre={"B": 36.0}, bias=-39.5)


def kernel(rules: Mapping[str, Rule], *, source: int, target: int, like: Tensor) -> Tensor:
    """A 3 x 3 convolution that applies the rules: float32, shape of `like` [outputs, inputs, 3, 3].

    It reads the signals of slot `source` and writes slot `target`; a signal without a rule becomes 0.
    """
    weight = torch.zeros_like(like)
    for name, rule in rules.items():
        rows = slice(*_channels(name, target))
        for read, taps in rule.window.items():
            _tap(weight[rows], read, source, taps)
        for read, tap in rule.centre.items():
            _tap(weight[rows, :, 1:2, 1:2], read, source, tap)
    return weight


def bias(rules: Mapping[str, Rule], *, target: int, like: Tensor) -> Tensor:
    """The batch-norm bias that belongs to the rules: float32 [channels], the clipping channels one lower."""
    values = torch.zeros_like(like)
    for name, rule in rules.items():
        first = _channels(name, target)[0]
        values[first : first + 2] = torch.tensor([rule.bias, rule.bias - 1])
    return values


def read_out(logits: Sequence[Mapping[str, float]], *, source: int, clipped: bool, like: Tensor) -> Tensor:
    """A bias-free 1 x 1 head: float32, shape of `like` [classes, inputs, 1, 1] (or [classes, inputs]).

    `logits`: for each class the weight of each signal and of the constant. `clipped`: whether the signals went through
    ReLU, so that both channels of a pair are needed, or are still raw sums.
    """
    weight = torch.zeros_like(like)
    for i, weights in enumerate(logits):
        for name, value in weights.items():
            _tap(weight[i : i + 1], name, source, value)
    if not clipped:
        weight[:, SLOT * source + 1 : SLOT * (source + 1) : 2] = 0
    return weight


def _tap(weight: Tensor, read: str, source: int, value: float) -> None:
    """Add `value` to every tap on a signal: plus on its first channel, minus on its second; a view, in place."""
    if read == ONE:
        weight[:, ONE_CHANNEL] += value
        return
    first = _channels(read, source)[0]
    weight[:, first] += value
    weight[:, first + 1] -= value


def _channels(signal: str, slot: int) -> tuple[int, int]:
    first = SLOT * slot + 2 * SIGNALS.index(signal)
    return first, first + 2
