"""Where things lie in a slot."""

from itertools import pairwise

import numpy as np
import pytest

from glam_deploy.gpu.layout import slot_layout
from glam_deploy.networks import CAM, GLAM, GLAM_CONCATENATION, GMIC, NETWORKS, NetworkSpec

SHAPES = [(images, patches) for images in (1, 4) for patches in (1, 3, 6)]


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize(("images", "patches"), SHAPES)
def test_tensors_lie_apart_and_aligned(images: int, patches: int, network: NetworkSpec) -> None:
    layout = slot_layout(network, images=images, patches=patches, engine_scratch=1000)
    fields = sorted(layout.fields.values(), key=lambda field: field.offset)
    assert all(field.offset % 512 == 0 for field in fields)
    assert all(first.end <= second.offset for first, second in pairwise(fields))
    assert fields[-1].end <= layout.nbytes


PACKED = {
    GLAM: {"saliency_patches": "packed_saliency_patches", "z_k": "packed_z_k"},
    GLAM_CONCATENATION: {"saliency_patches": "packed_saliency_patches"},
    GMIC: {"z_k": "packed_z_k"},
    CAM: {},
}
"""Output of the local graph that the fusion graph reads -> where it is written if slots would leave gaps."""


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize(("images", "patches"), SHAPES)
def test_every_graph_finds_its_tensors(images: int, patches: int, network: NetworkSpec) -> None:
    layout = slot_layout(network, images=images, patches=patches, engine_scratch=0)
    packed = PACKED[network] if images > 1 and patches < 6 else {}
    assert set(layout.packed) == packed.keys()
    for stage in network.stages:
        contract = network.contract(stage, composed=False)
        for name, tensor in {**contract.inputs, **contract.outputs}.items():
            field = layout.fields[packed.get(name, name) if stage == "local" else name]
            rows = images * patches if stage == "local" else images
            assert field.dtype == tensor.dtype, name
            assert field.nbytes >= rows * np.prod(tensor.shape) * field.dtype.itemsize, name
            if stage != "local" or name not in network.contract("fusion").inputs or name in packed:
                assert field.shape == (rows, *tensor.shape), name


@pytest.mark.parametrize(("images", "patches"), SHAPES)
def test_what_is_downloaded_lies_in_front(images: int, patches: int) -> None:
    layout = slot_layout(GLAM, images=images, patches=patches, engine_scratch=0)
    names = [name for name, field in layout.fields.items() if field.offset < layout.result_bytes]
    assert tuple(names) == layout.downloaded
    assert set(names) == {
        "saliency_global", "y_scale", "patch_locations", "flags", "saliency_patches",
        "y_global", "y_local", "y_fusion", "attention",
    }  # fmt: skip
    field = layout.fields["saliency_patches"]
    last_used = np.zeros(field.shape, bool)
    last_used[images - 1, patches - 1, -1, -1, -1] = True
    assert layout.used_result_bytes == field.offset + (np.flatnonzero(last_used)[0] + 1) * 4


@pytest.mark.parametrize(("images", "patches"), SHAPES)
def test_without_patch_maps_the_representations_are_downloaded(images: int, patches: int) -> None:
    """Nothing else shows values of the local graph that are not finite."""
    gmic, cam = (slot_layout(n, images=images, patches=patches, engine_scratch=0) for n in (GMIC, CAM))
    scores = {"y_global", "y_local", "y_fusion", "attention"}
    assert set(gmic.downloaded) == scores | {"saliency_global", "patch_locations", "flags", "z_g", "z_k"}
    assert set(cam.downloaded) == {"y_global", "saliency_global", "flags"}
    assert (gmic.used_result_bytes, cam.used_result_bytes) == (gmic.result_bytes, cam.result_bytes)


def test_one_copy_brings_it_all() -> None:
    """For one patch of one image the download is a third of a megabyte."""
    assert slot_layout(GLAM, images=1, patches=1, engine_scratch=0).used_result_bytes < 320_000


def test_a_downloaded_block_is_read_in_place() -> None:
    layout = slot_layout(GLAM, images=1, patches=2, engine_scratch=0)
    block = np.arange(layout.result_bytes, dtype=np.uint32).astype(np.uint8)
    for name in layout.downloaded:
        field = layout.fields[name]
        values = field.of(block)
        assert values.shape == field.shape
        assert values.tobytes() == block[field.offset : field.offset + field.nbytes].tobytes()
        assert np.shares_memory(values, block)
