"""Memory layout of a slot: offsets of all tensors in one block of GPU memory.

Tensors that are downloaded come first, so that one copy downloads them. Shapes follow from the contracts of the
network's graphs. Offsets are multiples of ALIGNMENT, as engines require.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.gpu.device.context import ALIGNMENT
from glam_deploy.gpu.kernels import launch, placed, staging
from glam_deploy.gpu.kernels.head import pooled_shape
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
    """Names of the downloaded tensors, at the start of the block; if there are `saliency_patches`, they are the last of
    them."""
    packed: tuple[str, ...]
    """Outputs of the local graph that it writes to `packed_<name>`; they are then copied to their patch slots."""

    @property
    def nbytes(self) -> int:
        """Size of the block in bytes."""
        return align(max(field.end for field in self.fields.values()))

    @property
    def zeroed_bytes(self) -> int:
        """Bytes from the start that are filled with zeros when a slot is made: all but the memory of raw views."""
        return self.fields["raw"].offset

    @property
    def result_bytes(self) -> int:
        """Bytes from the start of the block to the end of the downloaded tensors."""
        return self.fields[self.downloaded[-1]].end

    @property
    def used_result_bytes(self) -> int:
        """Bytes of a download: `result_bytes` without the patch maps of the last image's unused patch slots."""
        if not self.network.has_patch_maps:
            return self.result_bytes
        unused = self.network.patches.slots - self.patches
        return self.result_bytes - unused * self.row_bytes("saliency_patches")

    def row_bytes(self, name: str) -> int:
        """Bytes of one patch in `saliency_patches` or `z_k`, whose axis 1 is the patch slots."""
        field = self.fields[name]
        return field.nbytes // math.prod(field.shape[:2])


def align(nbytes: int) -> int:
    """Round up to a multiple of ALIGNMENT."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def slot_layout(network: NetworkSpec, *, images: int, patches: int, engine_scratch: int) -> Layout:
    """Layout of all tensors of the GPU chain; `engine_scratch`: bytes of scratch memory, shared by the engines.

    `raw` has the staging areas of raw views, `samples` what `place` found in them. For several images with fewer
    patches than patch slots, the outputs of the local graph have no gaps for unused slots (`packed_<name>`) and are
    copied to their slots later.
    """
    by_image, packed = _tensors_by_image(network, images), _packed(network, images, patches)
    results = {name: by_image[name] for name in _downloaded(network, by_image)}
    steps: Tensors = {
        "saliency": ("float32", (images, len(network.classes), *network.input_shape)),
        "kernel_scratch": ("uint8", (launch.scratch_bytes(images, network),)),
        "engine_scratch": ("uint8", (engine_scratch,)),
    }
    if shape := pooled_shape(network, images):
        steps = {**steps, "pooled": ("float32", shape)}
    raw: Tensors = {
        "raw": ("uint8", (images * staging.LARGEST_BYTES,)),
        "place_scratch": ("uint8", (placed.place_scratch_bytes(images),)),
        "samples": ("uint8", (images * placed.samples_bytes(),)),
    }
    local = _local_tensors(network, images * patches, by_image, packed)
    fields = _place({**results, **by_image, **local, **steps, **raw})
    return Layout(
        network=network, images=images, patches=patches, fields=fields, downloaded=tuple(results), packed=packed
    )


def _tensors_by_image(network: NetworkSpec, images: int) -> Tensors:
    """The flags, and all inputs and outputs of the global and the fusion graph: axis 0 is the image."""
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {"flags": ("uint32", (images,))}
    for stage in network.stages:
        if stage != "local":
            contract = network.contract(stage, composed=False)
            both = {**contract.inputs, **contract.outputs}
            tensors |= {name: (t.dtype, (images, *t.shape)) for name, t in both.items()}
    return tensors


def _downloaded(network: NetworkSpec, by_image: Iterable[str]) -> list[str]:
    """Names of the downloaded tensors, patch maps last, because unused slots at the end need no download.

    The representations `z_g` and `z_k` are not needed for a result. They are downloaded only if there are no patch
    maps, because then nothing else shows NaN or infinite values of the local graph: scores may hide them.
    """
    left = {"image", *(("z_g", "z_k") if network.has_patch_maps else ())}
    return sorted((name for name in by_image if name not in left), key=lambda name: name == "saliency_patches")


def _packed(network: NetworkSpec, images: int, patches: int) -> tuple[str, ...]:
    if "local" not in network.stages or images == 1 or patches == network.patches.slots:
        return ()
    return tuple(name for name in network.contract("local").outputs if name in network.contract("fusion").inputs)


def _local_tensors(network: NetworkSpec, rows: int, by_image: Tensors, packed: tuple[str, ...]) -> Tensors:
    """Tensors of the local graph that are not in `by_image`: axis 0 is the patches of all images, without gaps."""
    if "local" not in network.stages:
        return {}
    local = network.contract("local")
    shapes = {name: (t.dtype, (rows, *t.shape)) for name, t in {**local.inputs, **local.outputs}.items()}
    own = {name: shape for name, shape in shapes.items() if name not in by_image}
    return {**own, **{f"packed_{name}": shapes[name] for name in packed}}


def _place(tensors: Tensors) -> dict[str, Field]:
    fields, offset = {}, 0
    for name, (dtype, shape) in tensors.items():
        fields[name] = Field(offset=offset, dtype=np.dtype(dtype), shape=shape)
        offset = align(fields[name].end)
    return fields
