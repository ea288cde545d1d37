"""Where everything of a slot lies in one block of GPU memory; what is downloaded comes first, for one copy to take.

Shapes come from the contracts of the network's graphs. Every tensor begins at a multiple of ALIGNMENT, which is what
engines ask for.
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
"""Name -> (dtype, shape with the batch)."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A tensor's place in a block."""

    offset: int
    """Bytes from the block's beginning, a multiple of ALIGNMENT."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def end(self) -> int:
        return self.offset + self.nbytes

    def of(self, block: NDArray[np.uint8]) -> NDArray[Any]:
        """The tensor in a copy of the block on the host, without a copy. `block`: uint8 [bytes], contiguous."""
        return block[self.offset : self.end].view(self.dtype).reshape(self.shape)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Of a slot for `images` images of `patches` patches each."""

    network: NetworkSpec
    images: int
    patches: int
    fields: Mapping[str, Field]
    downloaded: tuple[str, ...]
    """The tensors at the beginning of the block that the host gets; `saliency_patches` is the last of them."""

    @property
    def nbytes(self) -> int:
        """Of the whole block."""
        return align(max(field.end for field in self.fields.values()))

    @property
    def result_bytes(self) -> int:
        """From the block's beginning to the end of what the host gets."""
        return self.fields[self.downloaded[-1]].end

    @property
    def used_result_bytes(self) -> int:
        """The same without the slots after the last patch in use of the last image: all that a download must bring."""
        unused = self.network.patches.slots - self.patches
        return self.result_bytes - unused * self.row_bytes("saliency_patches")

    def row_bytes(self, name: str) -> int:
        """Of one patch's part of `saliency_patches` or `z_k`, whose axis 1 are the six slots."""
        field = self.fields[name]
        return field.nbytes // math.prod(field.shape[:2])


def align(nbytes: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def slot_layout(network: NetworkSpec, *, images: int, patches: int, engine_scratch: int) -> Layout:
    """Everything that the device chain reads and writes; `engine_scratch` is the bytes that engines share.

    `raw` holds the staging areas of raw views. Where several images have fewer than six patches each, the local graph's
    rows (`packed_saliency`, `packed_z_k`) are not yet in their slots, and lie apart.
    """
    results, rest = _results(network, images), _inner(network, images, patches, engine_scratch)
    fields = _place({**results, **rest})
    return Layout(network=network, images=images, patches=patches, fields=fields, downloaded=tuple(results))


def is_packed(network: NetworkSpec, images: int, patches: int) -> bool:
    """Whether the local graph's rows lie apart from their slots: used slots of several images leave gaps."""
    return images > 1 and patches < network.patches.slots


def _results(network: NetworkSpec, images: int) -> Tensors:
    fusion = network.contract("fusion", composed=False)
    tensors = {**fusion.outputs, **fusion.inputs}
    stay = {"z_g", "z_k", "saliency_patches"}
    small = {name: (t.dtype, (images, *t.shape)) for name, t in tensors.items() if name not in stay}
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
