"""Memory layout of a slot: offsets of all tensors in one block of GPU memory.

Tensors that are downloaded come first, so that one copy downloads them. Shapes follow from the contracts of the
network's graphs. Offsets are multiples of ALIGNMENT, as engines require.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.gpu.device.context import ALIGNMENT
from glam_deploy.gpu.kernels import launch, staging
from glam_deploy.networks import NetworkSpec

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name -> (dtype, shape with the batch axis)."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """Position and type of a tensor in a block."""

    offset: int
    """Offset from the start of the block in bytes, a multiple of ALIGNMENT."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def end(self) -> int:
        return self.offset + self.nbytes

    def of(self, block: NDArray[np.uint8]) -> NDArray[Any]:
        """View of the tensor in a host copy of the block. `block`: uint8 [bytes], contiguous."""
        return block[self.offset : self.end].view(self.dtype).reshape(self.shape)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Layout of a slot for `images` images with `patches` patches each."""

    network: NetworkSpec
    images: int
    patches: int
    fields: Mapping[str, Field]
    downloaded: tuple[str, ...]
    """Names of the downloaded tensors, at the start of the block; `saliency_patches` is the last of them."""

    @property
    def nbytes(self) -> int:
        """Size of the block in bytes."""
        return align(max(field.end for field in self.fields.values()))

    @property
    def result_bytes(self) -> int:
        """Bytes from the start of the block to the end of the downloaded tensors."""
        return self.fields[self.downloaded[-1]].end

    @property
    def used_result_bytes(self) -> int:
        """Bytes of a download: `result_bytes` without the unused patch slots of the last image."""
        unused = self.network.patches.slots - self.patches
        return self.result_bytes - unused * self.row_bytes("saliency_patches")

    def row_bytes(self, name: str) -> int:
        """Bytes of one patch in `saliency_patches` or `z_k`, whose axis 1 is the six patch slots."""
        field = self.fields[name]
        return field.nbytes // math.prod(field.shape[:2])


def align(nbytes: int) -> int:
    """Round up to a multiple of ALIGNMENT."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def slot_layout(network: NetworkSpec, *, images: int, patches: int, engine_scratch: int) -> Layout:
    """Layout of all tensors of the GPU chain; `engine_scratch`: bytes of scratch memory, shared by the engines.

    `raw` has the staging areas of raw views. For several images with fewer than six patches each, the outputs of the
    local graph (`packed_saliency`, `packed_z_k`) have no gaps for unused slots and are copied to their slots later.
    """
    results, rest = _results(network, images), _inner(network, images, patches, engine_scratch)
    fields = _place({**results, **rest})
    return Layout(network=network, images=images, patches=patches, fields=fields, downloaded=tuple(results))


def is_packed(network: NetworkSpec, images: int, patches: int) -> bool:
    """Whether outputs of the local graph need copying to their patch slots, because unused slots leave gaps."""
    return images > 1 and patches < network.patches.slots


def _results(network: NetworkSpec, images: int) -> Tensors:
    fusion = network.contract("fusion", composed=False)
    tensors = {**fusion.outputs, **fusion.inputs}
    not_small = {"z_g", "z_k", "saliency_patches"}
    small = {name: (t.dtype, (images, *t.shape)) for name, t in tensors.items() if name not in not_small}
    last = tensors["saliency_patches"]
    return {**small, "flags": ("uint32", (images,)), "saliency_patches": (last.dtype, (images, *last.shape))}


def _inner(network: NetworkSpec, images: int, patches: int, engine_scratch: int) -> Tensors:
    rows, whole, local = images * patches, network.contract("global"), network.contract("local")
    z_k, saliency = local.outputs["z_k"].shape, local.outputs["saliency_patches"].shape
    inner: dict[str, tuple[str, tuple[int, ...]]] = {
        "z_g": ("float32", (images, *whole.outputs["z_g"].shape)),
        "z_k": ("float32", (images, network.patches.slots, *z_k)),
        "image": ("float32", (images, *whole.inputs["image"].shape)),
        "patches": ("float32", (rows, *local.inputs["patches"].shape)),
        "saliency": ("float32", (images, len(network.classes), *network.input_shape)),
        "raw": ("uint8", (images * staging.largest_area(network.input_shape),)),
        "kernel_scratch": ("uint8", (launch.scratch_bytes(images, network),)),
        "engine_scratch": ("uint8", (engine_scratch,)),
    }
    if is_packed(network, images, patches):
        inner["packed_saliency"] = ("float32", (rows, *saliency))
        inner["packed_z_k"] = ("float32", (rows, *z_k))
    return inner


def _place(tensors: Tensors) -> dict[str, Field]:
    fields, offset = {}, 0
    for name, (dtype, shape) in tensors.items():
        fields[name] = Field(offset=offset, dtype=np.dtype(dtype), shape=shape)
        offset = align(fields[name].end)
    return fields
