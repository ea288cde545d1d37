"""The numbers of the GLAM network (Liu et al., MIDL 2021) and the contract of its three graphs.

Everything spatial is (rows, columns), row first. "Map" is the 184 x 120 grid of the global saliency, "network frame"
is the 2944 x 1920 input: upright, facing right, chest wall on the left.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

CLASSES = ("benign", "malignant")

INPUT_SHAPE = (2944, 1920)
"""Rows and columns of the network's input, in pixels."""

MAP_SHAPE = (184, 120)
"""Rows and columns of the global saliency map, in cells."""

CELL = 16
"""Input pixels per map cell, along both axes."""

PATCH = 512
"""Side of a patch, in input pixels."""

PATCH_MAP = 128
"""Side of a patch's saliency map, in cells."""

PATCH_CELL = PATCH // PATCH_MAP
"""Input pixels per cell of a patch's map, along both axes (4)."""

WINDOW = PATCH // CELL
"""Side of a patch on the global map, in cells (32)."""

MAX_PATCHES = 6
"""Patch slots of the fusion graph; the number in use is chosen at run time, 1..6."""

SCALE_POOL_FRACTION = 0.03
"""Share of the map that a scale's prediction averages (paper, section 2; published configuration)."""

PATCH_POOL_FRACTION = 0.3
"""Share of the patch maps that the local prediction averages."""

SCALE_WEIGHTS = (0.2, 0.6, 0.2)
"""Weights of the three scales' saliency, finest first, in the global saliency."""

Z_GLOBAL = 256
Z_PATCH = 512
"""Lengths of the representations z_g and z_k."""

Stage = Literal["global", "local", "fusion"]
STAGES: tuple[Stage, ...] = ("global", "local", "fusion")

Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""Type of the convolutions; probabilities, pooling, sums and patch selection are FP32 in each."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
"""Those that a whole graph can be typed in, and that engines for GPUs come in."""
GRAPH_PRECISIONS: tuple[Precision, ...] = (*PRECISIONS, "int8")
"""Those that a bundle has graphs in. In int8 the convolutions that could bear it are in 8 bits, the others in FP32."""

Float = Literal["fp32", "bf16"]
Kind = Literal["fp32", "bf16", "winograd", "int8", "int8+bf16", "int8+winograd"]
"""What a stage of a mixture is made of. "winograd" is Winograd's form of FP32. After a plus stands what is wide where
the rest is in 8 bits; where nothing stands, FP32. Only the local stage may have Winograd's form."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One input or output of a graph; axis 0 is always the batch and its only dynamic axis."""

    dtype: str
    shape: tuple[int, ...]
    """Shape without the batch axis."""


@dataclass(frozen=True, kw_only=True)
class GraphContract:
    """Names, types and shapes that every engine of a stage offers, whoever compiled it."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


def _tensors(**shapes: tuple[int, ...]) -> Mapping[str, Tensor]:
    return MappingProxyType(
        {name: Tensor(dtype="int64" if name == "patch_locations" else "float32", shape=s) for name, s in shapes.items()}
    )


def graph_contract(stage: Stage, *, fusion_head: bool, composed: bool = True) -> GraphContract:
    """Inputs and outputs of a stage's graph.

    `fusion_head` says whether the checkpoint has attention and fusion layers: with them the fusion graph also takes
    z_g and z_k and also gives `attention` and `y_fusion`. `composed` says whether the fusion stage gives `saliency`:
    the graph does, but OpenVINO's engines and those on a GPU do not, for there a result or a kernel composes the map.

    - global: `image` -> `saliency_global` (0..1), `y_scale` (0..1, finest scale first), `z_g`.
    - local: `patches` -> `saliency_patches` (0..1), `z_k`; a batch row is one patch.
    - fusion: slots 0..K-1 of the six hold patches, in order of selection; an unused slot has location (-1, -1) and
      zeros elsewhere. `patch_locations` are (row, column) of upper-left corners in input pixels, multiples of 4.
      `saliency` is the fused map in the network frame.
    """
    k, n = MAX_PATCHES, len(CLASSES)
    if stage == "global":
        return GraphContract(
            inputs=_tensors(image=(1, *INPUT_SHAPE)),
            outputs=_tensors(saliency_global=(n, *MAP_SHAPE), y_scale=(3, n), z_g=(Z_GLOBAL,)),
        )
    if stage == "local":
        return GraphContract(
            inputs=_tensors(patches=(1, PATCH, PATCH)),
            outputs=_tensors(saliency_patches=(n, PATCH_MAP, PATCH_MAP), z_k=(Z_PATCH,)),
        )
    inputs = {
        "saliency_global": (n, *MAP_SHAPE),
        "y_scale": (3, n),
        "saliency_patches": (k, n, PATCH_MAP, PATCH_MAP),
        "patch_locations": (k, 2),
    }
    outputs: dict[str, tuple[int, ...]] = {"y_global": (n,), "y_local": (n,)}
    if composed:
        outputs["saliency"] = (n, *INPUT_SHAPE)
    if fusion_head:
        inputs |= {"z_g": (Z_GLOBAL,), "z_k": (k, Z_PATCH)}
        outputs |= {"y_fusion": (n,), "attention": (k,)}
    return GraphContract(inputs=_tensors(**inputs), outputs=_tensors(**outputs))
