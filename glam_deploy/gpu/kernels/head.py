"""The fusion head as kernels: launches, and the weights as one array in GPU memory."""

from collections.abc import Mapping
from math import prod

import numpy as np

from glam_deploy.gpu.kernels import geometry
from glam_deploy.gpu.kernels.launch import Memory, Module, Stream
from glam_deploy.networks import NetworkSpec
from glam_deploy.records import Float32

WEIGHTS = (
    "mil_attn_V.weight",
    "mil_attn_U.weight",
    "mil_attn_w.weight",
    "classifier_linear.weight",
    "fusion_dnn.weight",
    "fusion_dnn.bias",
)
"""Keys of all weights that the kernels know, in the order in which `pack_weights` writes them; rows are multiples of 16
bytes, and the bias is last."""


def pack_weights(weights: Mapping[str, Float32]) -> Float32:
    """All weights of a network one after another, float32 [values]; `weights` as in `NetworkSpec.fusion_weights`."""
    return np.concatenate([weights[name].ravel() for name in WEIGHTS if name in weights])


def head_constants(network: NetworkSpec) -> dict[str, int | float]:
    """Constants of `pool` and `attend`: shapes, and the offset of each weight in `pack_weights`, -1 if it is absent."""
    constants: dict[str, int | float] = {}
    if network.selection and network.selection.pool_fraction is not None:
        scales = network.contract("fusion").inputs["y_scale"].shape[0]
        constants |= {"SCALES": scales, "POOL_FRACTION": network.selection.pool_fraction}
    if weights := network.fusion_weights:
        inputs, width = network.contract("fusion").inputs, weights["mil_attn_V.weight"][0]
        z_global, z_patch = inputs["z_g"].shape[0], inputs["z_k"].shape[1]
        constants |= {"Z_GLOBAL": z_global, "Z_PATCH": z_patch, "ATTENTION_WIDTH": width}
        offset = 0
        for name in WEIGHTS:
            constants[name.replace(".", "_").upper()] = offset if name in weights else -1
            offset += prod(weights.get(name, (0,)))
    return constants


class HeadKernels:
    """The scores of the fusion stage, in one launch (GMIC, or GLAM without attention) or two (GLAM with attention).

    May be captured in a CUDA graph. Reference in numpy: `engines.fusion_head`.
    """

    def __init__(self, module: Module, network: NetworkSpec, weights: Memory | None) -> None:
        """`module`: the kernels compiled from `source.source(network)`.

        `weights`: the array of `pack_weights` in GPU memory; None for a network without weights in the fusion stage.
        """
        self._network, self._weights = network, weights
        self._pool = module.kernel("pool") if network.has_patch_maps else None
        self._attend = module.kernel("attend") if network.fusion_weights else None

    def launch(self, stream: Stream, tensors: Mapping[str, int], *, n: int) -> None:
        """Compute all outputs of the fusion stage but the fused map, for `n` images; does not wait.

        `tensors`: GPU addresses of the inputs and outputs of `NetworkSpec.contract("fusion", composed=False)`, and of
        `pooled`, scratch memory of `pooled_shape`; `saliency_global` is not read. Patch slots with location (-1, -1)
        are not read. An output is NaN or infinite if an input on which it depends is not finite.
        """
        classes = len(self._network.classes)
        if self._pool is not None:
            together = self._attend is None
            slots, pooled = (self._network.patches.slots, "y_local") if together else (1, "pooled")
            grid = (self._network.patches.slots // slots, classes, n)
            arrays = (tensors[name] for name in ("saliency_patches", "patch_locations", "y_scale", pooled, "y_global"))
            stream.launch(self._pool, grid, (geometry.POOL_THREADS, 1, 1), *arrays, np.int32(slots))
        if self._attend is not None:
            assert self._weights is not None, "attention needs weights"
            inputs = [tensors.get("pooled", 0), *(tensors[name] for name in ("patch_locations", "z_g", "z_k"))]
            outputs = [tensors[name] for name in ("y_local", "y_fusion", "attention")]
            block = (geometry.ATTEND_THREADS, 1, 1)
            stream.launch(self._attend, (1, 1, n), block, *inputs, self._weights.address, *outputs)


def pooled_shape(network: NetworkSpec, images: int) -> tuple[int, ...] | None:
    """Shape of the scratch memory `pooled`, float32; None for a network that needs none."""
    if not (network.has_patch_maps and network.fusion_weights):
        return None
    return (images, network.patches.slots, len(network.classes))
