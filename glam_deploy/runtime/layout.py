"""Where everything of a slot lies in one block of GPU memory; what is downloaded comes first, for one copy to take.

Shapes come from `spec.graph_contract`. Every tensor begins at a multiple of ALIGNMENT, which is what engines ask for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy import spec
from glam_deploy.device.memory import ALIGNMENT
from glam_deploy.kernels import launch, staging
from glam_deploy.spec import graph_contract

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
        unused = spec.MAX_PATCHES - self.patches
        return self.result_bytes - unused * self.row_bytes("saliency_patches")

    def row_bytes(self, name: str) -> int:
        """Of one patch's part of `saliency_patches` or `z_k`, whose axis 1 are the six slots."""
        field = self.fields[name]
        return field.nbytes // math.prod(field.shape[:2])


def align(nbytes: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def slot_layout(*, images: int, patches: int, engine_scratch: int) -> Layout:
    """Everything that the device chain reads and writes; `engine_scratch` is the bytes that engines share.

    `raw` holds the staging areas of raw views. Where several images have fewer than six patches each, the local graph's
    rows (`packed_saliency`, `packed_z_k`) are not yet in their slots, and lie apart.
    """
    results, rest = _results(images), _inner(images, patches, engine_scratch)
    return Layout(images=images, patches=patches, fields=_place({**results, **rest}), downloaded=tuple(results))


def is_packed(images: int, patches: int) -> bool:
    """Whether the local graph's rows lie apart from their slots: used slots of several images leave gaps."""
    return images > 1 and patches < spec.MAX_PATCHES


def _results(images: int) -> Tensors:
    fusion = graph_contract("fusion", fusion_head=True, composed=False)
    tensors = {**fusion.outputs, **fusion.inputs}
    stay = {"z_g", "z_k", "saliency_patches"}
    small = {name: (t.dtype, (images, *t.shape)) for name, t in tensors.items() if name not in stay}
    last = tensors["saliency_patches"]
    return {**small, "flags": ("uint32", (images,)), "saliency_patches": (last.dtype, (images, *last.shape))}


def _inner(images: int, patches: int, engine_scratch: int) -> Tensors:
    rows = images * patches
    inner: dict[str, tuple[str, tuple[int, ...]]] = {
        "z_g": ("float32", (images, spec.Z_GLOBAL)),
        "z_k": ("float32", (images, spec.MAX_PATCHES, spec.Z_PATCH)),
        "image": ("float32", (images, 1, *spec.INPUT_SHAPE)),
        "patches": ("float32", (rows, 1, spec.PATCH, spec.PATCH)),
        "saliency": ("float32", (images, len(spec.CLASSES), *spec.INPUT_SHAPE)),
        "raw": ("uint8", (images * staging.AREA_BYTES,)),
        "kernel_scratch": ("uint8", (launch.scratch_bytes(images),)),
        "engine_scratch": ("uint8", (engine_scratch,)),
    }
    if is_packed(images, patches):
        inner["packed_saliency"] = ("float32", (rows, len(spec.CLASSES), spec.PATCH_MAP, spec.PATCH_MAP))
        inner["packed_z_k"] = ("float32", (rows, spec.Z_PATCH))
    return inner


def _place(tensors: Tensors) -> dict[str, Field]:
    fields, offset = {}, 0
    for name, (dtype, shape) in tensors.items():
        fields[name] = Field(offset=offset, dtype=np.dtype(dtype), shape=shape)
        offset = align(fields[name].end)
    return fields
