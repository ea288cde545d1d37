"""Which tensors a ResNet classifier has for CAM, and what their names and shapes say about the network.

The keys are those of torchvision's ResNets, which most training programs use: `conv1`, `bn1`,
`layer{1..4}.{i}.{conv1,bn1,conv2,bn2}` (of bottlenecks also `conv3` and `bn3`), `layer{n}.0.downsample.{0,1}`, `fc`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from glam_deploy.errors import CheckpointError
from glam_deploy.networks import CAM, NetworkSpec

ROOTS = ("layer1.0.conv1.",)
"""GLAM's and GMIC's local modules have this key too, without a classifier beside it."""
CLASSIFIER = "fc.weight"
MOST_BLOCKS = 200
"""Blocks of a stage; ResNet-152 has 36. More would only cost time before the keys are refused."""
ASSUMPTION = (
    "two outputs of fc, taken as benign and malignant in this order, each with a sigmoid of its own; a strided "
    "bottleneck has its stride in the 3x3 convolution. The keys cannot show either"
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What distinguishes the ResNets of one set of keys."""

    blocks: tuple[int, ...]
    """Number of blocks of each of the four stages."""
    has_bottlenecks: bool
    channels: int
    """Inputs of the first convolution: 1, or 3 for three copies of the grey image."""


def spec_of(tensors: Mapping[str, Tensor]) -> NetworkSpec:
    """CAM. Raises CheckpointError for a classifier with another number of classes, and for more than MOST_BLOCKS."""
    shape = list(tensors[CLASSIFIER].shape)
    if shape[:1] != [len(CAM.classes)]:
        origin = " (the classes of ImageNet)" if shape[:1] == [1000] else ""
        raise CheckpointError(
            f"is a ResNet with {CLASSIFIER} {shape}, one row for each output{origin}. CAM needs two outputs, "
            f"{' and '.join(CAM.classes)} in this order: train the classifier on mammograms with these labels."
        )
    counts = _blocks(tensors)
    if (most := max(counts)) > MOST_BLOCKS:
        raise CheckpointError(f"layer{1 + counts.index(most)} has {most} blocks, expected at most {MOST_BLOCKS}.")
    return CAM


def _blocks(tensors: Mapping[str, Tensor]) -> list[int]:
    """Number of blocks of each of the four stages."""
    found = [match.groups() for key in tensors if (match := re.match(r"layer([1-4])\.(\d+)\.", key))]
    return [len({number for layer, number in found if layer == stage}) for stage in "1234"]


def layout_of(tensors: Mapping[str, Tensor]) -> Layout:
    """Depth, kind of block and input channels by the keys and shapes of a checkpoint.

    Blocks are counted, so that keys with a gap in their numbers are reported as missing and unexpected ones.
    """
    stem = tensors.get("conv1.weight")
    return Layout(
        blocks=tuple(max(1, count) for count in _blocks(tensors)),
        has_bottlenecks="layer1.0.conv3.weight" in tensors,
        channels=1 if stem is not None and stem.shape[1:2] == (1,) else 3,
    )
