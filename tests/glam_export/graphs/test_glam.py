"""What the graphs rewrite of the reference, each rewriting against what it stands for."""

from fractions import Fraction
from typing import TypeVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.half import HALF, assert_rounded_alike, rounded_global, rounded_local
from torch import Tensor, nn

from glam_deploy.networks import GLAM
from glam_deploy.precision import Precision
from glam_export.graphs import glam as graphs
from glam_export.graphs import layers
from glam_export.reference.basic_block import BasicBlock
from glam_export.reference.glam import GlamNetwork
from glam_export.reference.glam.global_module import GlobalNetwork
from glam_export.reference.glam.local_module import DetectionNetwork
from glam_export.reference.resnet22 import PreActivationBlock

Module = TypeVar("Module", bound=nn.Module)
EXACT = 1e-10
"""For float64, where only the order of additions differs."""


def sorted_mean(values: np.ndarray, count: float) -> float:
    """Mean of the `count` largest in float64; of the value at a broken end only the share that still belongs."""
    order = np.sort(values.astype(np.float64))[::-1]
    whole = int(count)
    rest = float(Fraction(count) - whole)
    return float((order[:whole].sum() + (rest * order[whole] if rest else 0)) / count)


@st.composite
def saliencies(draw: st.DrawFn) -> np.ndarray:
    """float32 in 0..1: even, crowded at either end, in few steps (many ties), or constant; often 0 and 1 among them."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    size = draw(st.integers(1, 3000))
    values = rng.random(size) ** draw(st.sampled_from([0.01, 1, 30]))
    if steps := draw(st.sampled_from([None, 0, 1, 2, 7])):
        values = np.round(values * steps) / steps
    elif steps == 0:
        values[:] = draw(st.floats(0, 1, width=32))
    ends = draw(st.integers(0, size))
    values[:ends] = rng.integers(0, 2, ends)
    return values.astype(np.float32)


@settings(max_examples=100)
@given(values=saliencies(), share=st.floats(0, 1), whole=st.booleans(), zeros=st.integers(0, 500))
def test_top_mean_is_the_mean_of_the_largest(values: np.ndarray, share: float, whole: bool, zeros: int) -> None:
    count = 1 + share * (values.size - 1)
    count = float(round(count)) if whole else count
    expected = sorted_mean(values, count)
    padded = torch.from_numpy(np.pad(values, (0, zeros)))
    assert float(layers.top_mean(padded, count)) == pytest.approx(expected, abs=1e-6)
    assert float(layers.top_mean(padded.double(), count)) == pytest.approx(expected, abs=2**-24)


def test_top_mean_of_each_row_with_a_count_of_its_own() -> None:
    values = np.random.default_rng(5).random((3, 2, 400), np.float32)
    counts = torch.tensor([[1.0], [123.0], [400.0]])
    found = layers.top_mean(torch.from_numpy(values), counts).numpy()
    expected = [[sorted_mean(row, float(count)) for row in rows] for rows, count in zip(values, counts, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@st.composite
def places(draw: st.DrawFn) -> list[tuple[int, int]]:
    """One to six upper-left corners in input pixels; from the second on most overlap the one before."""
    rows, columns = ((length - GLAM.patches.side) // 4 for length in GLAM.input_shape)
    anywhere = st.tuples(st.integers(0, rows), st.integers(0, columns))
    chosen = [draw(anywhere)]
    for _ in range(draw(st.integers(0, 5))):
        down, right = draw(st.tuples(st.integers(-140, 140), st.integers(-140, 140)))
        last = chosen[-1]
        near = (min(max(last[0] + down, 0), rows), min(max(last[1] + right, 0), columns))
        chosen.append(draw(st.sampled_from([near, near, draw(anywhere)])))
    return [(4 * row, 4 * column) for row, column in chosen]


# full-size maps: making a failing example smaller would take minutes
@settings(max_examples=6, phases=[Phase.generate])
@given(chosen=places(), seed=st.integers(0, 1000))
def test_fused_map_is_the_reference_loop(chosen: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    overview = torch.from_numpy(rng.random((1, 2, *GLAM.map_shape), np.float32))
    # what an unused slot holds must not matter, so all six hold something
    maps = torch.from_numpy(rng.random((1, 6, 2, 128, 128), np.float32))
    slots = torch.tensor([chosen + [(-1, -1)] * (6 - len(chosen))])
    used = len(chosen)
    expected = GlamNetwork.fuse_saliency(overview, maps[:, :used], slots[:, :used])
    assert torch.equal(graphs.fused_map(overview, maps, slots), expected)


def test_paste_keeps_the_images_of_a_batch_apart() -> None:
    maps = torch.from_numpy(np.random.default_rng(1).random((2, 6, 2, 128, 128), np.float32))
    empty = [[-1, -1]]
    slots = torch.tensor([[[0, 0], [256, 128], *empty * 4], [[2432, 1408], *empty * 5]])
    canvas = graphs.paste(maps, slots)
    expected = torch.zeros_like(canvas)
    expected[0, :, :128, :128] = maps[0, 0]
    expected[0, :, 64:192, 32:160] = maps[0, 1]
    expected[1, :, 608:, 352:] = maps[1, 0]
    assert torch.equal(canvas, expected)


def randomized(module: Module, seed: int) -> Module:
    """In eval mode and float64, with batch norms as training leaves them: no number is 0 or 1 by default."""
    torch.manual_seed(seed)
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        for values, low, high in ((norm.weight, -1.5, 1.5), (norm.bias, -1, 1)):
            nn.init.uniform_(values, low, high)
        nn.init.uniform_(norm.running_mean, -2, 2)
        nn.init.uniform_(norm.running_var, 0.01, 4)
    return module.double().eval().requires_grad_(False)


def noise(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(9).standard_normal(shape))


def assert_close(found: Tensor, expected: Tensor, tolerance: float = EXACT) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= tolerance * max(1.0, float(expected.abs().max()))
    assert float(expected.std()) > 0  # a constant would show nothing


@pytest.mark.parametrize(("inputs", "stride", "shortcut"), [(12, 1, False), (12, 1, True), (7, 1, True), (7, 2, True)])
@pytest.mark.parametrize("seed", range(3))
def test_folded_pre_activation_block(inputs: int, stride: int, shortcut: bool, seed: int) -> None:
    block = randomized(PreActivationBlock(inputs, 12, stride, shortcut=shortcut), seed)
    x = noise(2, inputs, 13, 10)
    assert_close(layers.FoldedPreActivationBlock(block)(x), block(x))


@pytest.mark.parametrize("inputs", [12, 7])
@pytest.mark.parametrize("seed", range(3))
def test_folded_basic_block(inputs: int, seed: int) -> None:
    block = randomized(BasicBlock(inputs, 12), seed)
    x = noise(2, inputs, 13, 10)
    assert_close(graphs.FoldedBasicBlock(block)(x), block(x))


def test_scale_shift_is_the_batch_norm() -> None:
    norm = randomized(nn.BatchNorm2d(9), 0)
    x = noise(2, 9, 5, 4)
    assert_close(layers.ScaleShift(norm)(x), norm(x))


def test_scale_shift_refuses_a_batch_norm_that_has_learned_no_statistics() -> None:
    with pytest.raises(ValueError, match="running statistics"):
        layers.ScaleShift(nn.BatchNorm2d(9, track_running_stats=False))


def test_grey_stem_is_the_stem_on_three_equal_channels() -> None:
    network = randomized(DetectionNetwork((6, 5, 4, 3)), 0)
    patch = noise(2, 1, 64, 48)
    stem = graphs.LocalGraph(network).stem
    assert stem.in_channels == 1
    resnet = network.dn_resnet
    assert_close(stem(patch), resnet.bn1(resnet.conv1(patch.repeat(1, 3, 1, 1))))


def test_local_graph() -> None:
    network = randomized(DetectionNetwork((6, 5, 4, 3)), 1)
    patch = noise(2, 1, 64, 48)
    for found, expected in zip(graphs.LocalGraph(network)(patch), network(patch), strict=True):
        assert_close(found, expected)


def test_global_graph() -> None:
    network = randomized(GlobalNetwork((2, 3, 4, 5, 6)), 2)
    image = noise(1, 1, *GLAM.input_shape)
    for found, expected in zip(graphs.GlobalGraph(network)(image), network(image), strict=True):
        assert_close(found, expected)


# half precision, on a CPU, in torch's own half types


@pytest.mark.parametrize(("precision", "half"), HALF)
def test_half_local_graph_rounds_where_it_should(precision: Precision, half: torch.dtype) -> None:
    graph = graphs.LocalGraph(randomized(DetectionNetwork((6, 5, 4, 3)), 1).float())
    patch = noise(2, 1, 64, 48).float()
    expected, plain = rounded_local(graph, patch, half), graph(patch)
    for found, *twins in zip(layers.in_precision(graph, precision)(patch), expected, plain, strict=True):
        assert_rounded_alike(found, *twins, half)


@pytest.mark.parametrize(("precision", "half"), HALF)
def test_half_global_graph_rounds_where_it_should(precision: Precision, half: torch.dtype) -> None:
    graph = graphs.GlobalGraph(randomized(GlobalNetwork((2, 3, 4, 5, 6)), 2).float())
    image = noise(1, 1, *GLAM.input_shape).float()
    expected, plain = rounded_global(graph, image, half), graph(image)
    for found, *twins in zip(layers.in_precision(graph, precision)(image), expected, plain, strict=True):
        assert_rounded_alike(found, *twins, half)


def test_a_half_copy_leaves_the_graph_as_it_was() -> None:
    graph = graphs.LocalGraph(randomized(DetectionNetwork((6, 5, 4, 3)), 1).float())
    before = {key: values.clone() for key, values in graph.state_dict().items()}
    layers.in_precision(graph, "fp16")
    assert all(torch.equal(values, before[key]) for key, values in graph.state_dict().items())
    assert layers.in_precision(graph, "fp32") is graph


def test_graphs_share_what_they_do_not_change_and_leave_the_network_as_it_was() -> None:
    network = randomized(BasicBlock(7, 12), 3)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    graphs.FoldedBasicBlock(network)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    other = randomized(PreActivationBlock(7, 12, 2, shortcut=True), 3)
    folded = layers.FoldedPreActivationBlock(other)
    assert folded.conv2 is other.conv2
    assert folded.shortcut is other.downsample


def test_upsample_is_nearest_neighbour() -> None:
    maps = noise(1, 2, 5, 3)
    assert torch.equal(layers.upsample(maps, 4), F.interpolate(maps, size=(20, 12), mode="nearest"))
    assert torch.equal(layers.upsample(maps, 4), maps.repeat_interleave(4, 2).repeat_interleave(4, 3))
