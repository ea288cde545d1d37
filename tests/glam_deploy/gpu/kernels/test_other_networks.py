"""The kernels compiled for other networks: 43 x 27 places of a 4 x 4 window, patches of 256 pixels, maps of 32."""

from pathlib import Path

import numpy as np
import pytest
from cuda_host.build import build_kernels, missing
from cuda_host.run import HostModule, HostStream, Memory

from glam_deploy.gpu.kernels.geometry import Flags
from glam_deploy.gpu.kernels.launch import KERNELS, PLACE_KERNELS, Kernels, kernels_of, scratch_bytes
from glam_deploy.gpu.kernels.source import source
from glam_deploy.networks import CAM, GLAM, GLAM_CONCATENATION, GMIC, NetworkSpec
from glam_deploy.runtime import patching

N = 2


def built(folder: Path, network: NetworkSpec) -> Kernels:
    if lacking := missing():
        pytest.skip(lacking)
    return Kernels(HostModule(build_kernels(folder, network)), network)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return built(tmp_path_factory.mktemp("gmic"), GMIC)


def maps(rng: np.random.Generator, kind: str) -> np.ndarray:
    """Saliency maps [N, 2, 46, 30] of one kind."""
    shape = (N, 2, *GMIC.map_shape)
    if kind == "random":
        return rng.random(shape, dtype=np.float32)
    if kind == "tied":
        return rng.integers(0, 3, shape).astype(np.float32) / 2
    if kind == "flat":
        return np.full(shape, rng.random(), np.float32)
    last_window = np.zeros(shape, np.float32)
    last_window[..., -1, -1] = 1
    return last_window


@pytest.mark.parametrize("kind", ["random", "tied", "flat", "last window"])
@pytest.mark.parametrize("k", [1, 6])
def test_windows_are_those_of_numpy(kernels: Kernels, kind: str, k: int) -> None:
    for seed in range(5):
        saliency = maps(np.random.default_rng(seed), kind)
        locations, flags = Memory((N, 6, 2), np.int64), Memory(N, np.uint32)
        scratch = Memory.of(np.zeros(scratch_bytes(N, GMIC), np.uint8))
        kernels.propose(
            HostStream(), saliency=Memory.of(saliency), locations=locations, flags=flags, scratch=scratch, k=k, n=N
        )
        expected = [patching.choose_windows(image, k, GMIC.patches) for image in saliency]
        corners = [
            [patching.cell_to_pixel(cell, GMIC) for cell in cells] + [(-1, -1)] * (6 - k) for cells, _ in expected
        ]
        assert [[tuple(slot) for slot in image] for image in locations.read().tolist()] == corners
        assert flags.read().tolist() == [3 if flat.all() else 0 for _, flat in expected]


def test_patches_are_those_of_numpy(kernels: Kernels) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((N, 1, *GMIC.input_shape)).astype(np.float32)
    corners = np.array([[[0, 0], [2688, 1664]], [[64, 1600], [1344, 832]]], np.int64)
    locations = np.full((N, 6, 2), -1, np.int64)
    locations[:, :2] = corners
    patches = Memory((N * 2, 1, 256, 256), np.float32)
    kernels.crop(HostStream(), image=Memory.of(images), locations=Memory.of(locations), patches=patches, k=2, n=N)
    expected = np.concatenate([patching.crop(image[0], at, 256) for image, at in zip(images, corners, strict=True)])
    np.testing.assert_array_equal(patches.read(), expected)


@pytest.mark.parametrize("network", [GMIC, CAM], ids=lambda network: network.name)
def test_the_enlarged_map_is_that_of_numpy(tmp_path: Path, network: NetworkSpec) -> None:
    """Other flags stay, and one value that is not finite sets the flag of its image alone."""
    maps = np.random.default_rng(1).random((2, 2, *network.map_shape), np.float32)
    maps[1, 1, -1, -1] = np.nan
    flags = Memory.of(np.array([Flags.FLAT_BENIGN, Flags.FLAT_MALIGNANT], np.uint32))
    saliency = Memory((2, 2, *network.input_shape), np.float32)
    built(tmp_path, network).enlarge(HostStream(), saliency_global=Memory.of(maps), saliency=saliency, flags=flags, n=2)
    expected = np.stack([patching.enlarge(one, network.cell) for one in maps])
    np.testing.assert_array_equal(saliency.read(), expected)
    assert flags.read().tolist() == [1, 2 | 4]


def test_the_kernels_are_those_that_the_network_needs() -> None:
    first = (*PLACE_KERNELS, "moments", "standardize")
    assert kernels_of(GLAM) == tuple(name for name in KERNELS if name != "enlarge")
    assert kernels_of(GLAM_CONCATENATION) == tuple(name for name in kernels_of(GLAM) if name != "attend")
    assert kernels_of(GMIC) == (*first, "propose", "crop", "attend", "enlarge", "examine")
    assert kernels_of(CAM) == (*first, "enlarge", "examine")
    assert "fuse.cu" not in source(GMIC)
    assert "propose.cu" not in source(CAM)
