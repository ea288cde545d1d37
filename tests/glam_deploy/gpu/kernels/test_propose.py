"""Region proposal on the CPU, window by window the same as numpy."""

import numpy as np
import pytest
from cuda_host.run import HostModule, HostStream, Memory
from hypothesis import given, settings
from hypothesis import strategies as st

from glam_deploy.gpu.kernels.geometry import Flags
from glam_deploy.gpu.kernels.launch import Kernels, scratch_bytes
from glam_deploy.networks import GLAM
from glam_deploy.runtime import patching

CELLS = GLAM.map_shape[0] * GLAM.map_shape[1]


class Proposal:
    """Device arrays for `n` images, used again and again as a pipeline does."""

    def __init__(self, kernels: Kernels, n: int) -> None:
        self.n, self._kernels, self.stream = n, kernels, HostStream()
        self._saliency, self._locations = Memory((n, 2, *GLAM.map_shape), np.float32), Memory((n, 6, 2), np.int64)
        self._flags, self._scratch = Memory(n, np.uint32), Memory.of(np.zeros(scratch_bytes(n, GLAM), np.uint8))

    def __call__(self, saliency: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self._saliency.array[...] = saliency
        where = {"saliency": self._saliency, "locations": self._locations}
        self._kernels.propose(self.stream, **where, flags=self._flags, scratch=self._scratch, k=k, n=self.n)
        self._scratch.read()
        return self._locations.read(), self._flags.read()


@pytest.fixture(scope="module")
def proposals(kernels: Kernels) -> dict[int, Proposal]:
    return {n: Proposal(kernels, n) for n in (1, 4)}


def expected(saliency: np.ndarray, k: int) -> tuple[list[list[tuple[int, int]]], list[int]]:
    """Of the numpy twin: pixels of six slots, and flags."""
    with np.errstate(invalid="ignore", over="ignore"):
        choices = [patching.choose_windows(maps, k, GLAM.patches) for maps in saliency]
    slots = [[patching.cell_to_pixel(cell, GLAM) for cell in cells] + [(-1, -1)] * (6 - k) for cells, _ in choices]
    names = (Flags.FLAT_BENIGN, Flags.FLAT_MALIGNANT)
    return slots, [sum(int(name) for name, is_flat in zip(names, flat, strict=True) if is_flat) for _, flat in choices]


def random(rng: np.random.Generator) -> np.ndarray:
    return rng.random(GLAM.map_shape, dtype=np.float32)


def faint(rng: np.random.Generator) -> np.ndarray:
    """Smooth and of little contrast, as an untrained network's."""
    return np.float32(0.5) + np.float32(1e-4) * np.cumsum(rng.standard_normal(GLAM.map_shape), 1).astype(np.float32)


def tied(rng: np.random.Generator) -> np.ndarray:
    """Few levels: many windows of exactly the same sum."""
    return np.kron(rng.integers(0, 3, (23, 15)), np.ones((8, 8))).astype(np.float32) / 2


def periodic(rng: np.random.Generator) -> np.ndarray:
    """Every window holds the same values, in another order: which sum is largest is decided by rounding alone."""
    return np.tile(rng.random((32, 32), dtype=np.float32), (6, 4))[: GLAM.map_shape[0], : GLAM.map_shape[1]]


def flat(rng: np.random.Generator) -> np.ndarray:
    return np.full(GLAM.map_shape, rng.random(), np.float32)


def marred(rng: np.random.Generator) -> np.ndarray:
    """Random, with NaN, infinities, both zeros and denormals in single cells."""
    maps = random(rng)
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-42], np.float32)[rng.random(5) < 0.4]
    maps.flat[rng.integers(0, CELLS, len(odd))] = odd
    return maps


def negative_zeros(rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(GLAM.map_shape) < 0.5, np.float32(0), np.float32(-0.0))


KINDS = (random, faint, tied, periodic, flat, marred, negative_zeros)


@pytest.mark.slow
@settings(max_examples=40)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=8, max_size=8),
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 6),
    n=st.sampled_from([1, 1, 1, 4]),
)
def test_windows_and_flags_are_those_of_numpy(
    proposals: dict[int, Proposal], kinds: list, seed: int, k: int, n: int
) -> None:
    rng = np.random.default_rng(seed)
    saliency = np.stack([kind(rng) for kind in kinds[: 2 * n]]).reshape(n, 2, *GLAM.map_shape)
    locations, flags = proposals[n](saliency, k)
    slots, expected_flags = expected(saliency, k)
    assert [[tuple(slot) for slot in image] for image in locations.tolist()] == slots
    assert flags.tolist() == expected_flags


@pytest.mark.parametrize("kind", [random, tied, periodic, flat])
def test_the_order_of_blocks_and_threads_does_not_matter(
    proposals: dict[int, Proposal], module: HostModule, kind
) -> None:
    rng = np.random.default_rng(7)
    saliency = np.stack([kind(rng) for _ in range(8)]).reshape(4, 2, *GLAM.map_shape)
    locations, flags = proposals[4](saliency, 3)
    with module.backwards():
        again, again_flags = proposals[4](saliency, 3)
    np.testing.assert_array_equal(again, locations)
    np.testing.assert_array_equal(again_flags, flags)


def with_cell(value: float, row: int = 100, column: int = 80) -> np.ndarray:
    """One image whose benign map is quiet but for one cell; the malignant map is flat."""
    maps = np.zeros((1, 2, *GLAM.map_shape), np.float32)
    maps[0, 0, ::2] = 0.25
    maps[0, 0, row, column] = value
    return maps


def windows(proposal: Proposal, saliency: np.ndarray, k: int) -> list[list[int]]:
    return (proposal(saliency, k)[0][0, :k] // 16).tolist()


def test_numpys_rules_for_what_is_not_finite_written_out(proposals: dict[int, Proposal]) -> None:
    one = proposals[1]
    # a NaN anywhere makes minimum and maximum NaN, so every cell: the first window, then the first with a NaN left
    assert windows(one, with_cell(np.nan), 3) == [[0, 0], [0, 1], [0, 2]]
    # minus infinity as well: it is the minimum, and its distance from everything else is infinite
    assert windows(one, with_cell(-np.inf), 2) == [[0, 0], [0, 1]]
    # plus infinity: everything else becomes 0 and the cell itself NaN; its first window is that with it in the corner
    assert windows(one, with_cell(np.inf), 2) == [[69, 49], [0, 0]]
    # infinite all over: not flat, for infinity minus infinity is NaN
    assert one(np.full((1, 2, *GLAM.map_shape), np.inf, np.float32), 1)[1].tolist() == [0]
    assert one(with_cell(np.inf), 1)[1].tolist() == [Flags.FLAT_MALIGNANT]


@pytest.mark.parametrize("where", [(0, 0), (0, 119), (183, 0), (183, 119), (40, 31), (41, 32), (160, 88)])
def test_a_single_spot_is_found_wherever_it_lies(proposals: dict[int, Proposal], where: tuple[int, int]) -> None:
    saliency = np.zeros((1, 2, *GLAM.map_shape), np.float32)
    saliency[:, :, where[0], where[1]] = 1
    corner = [max(0, where[0] - 31), max(0, where[1] - 31)]
    assert windows(proposals[1], saliency, 2) == [corner, [0, 0]]


def test_one_launch_a_patch(kernels: Kernels) -> None:
    proposal = Proposal(kernels, 2)
    proposal(np.zeros((2, 2, *GLAM.map_shape), np.float32), 3)
    assert proposal.stream.launches == [((17, 1, 2), (384, 1, 1))] * 3
