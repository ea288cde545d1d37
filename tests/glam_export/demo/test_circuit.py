"""Convolution, bias and clip against the image operations of scipy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from glam_export.demo import circuit

SQUARE = np.ones((3, 3), bool)


CHANNELS = circuit.SLOT + 1


def run(rules, signals, steps=1):
    """Slot 0 to slot 0, `steps` times, as a network would: pairs in, convolution, bias, ReLU, pairs out."""
    pairs = np.stack([x for name in circuit.SIGNALS for x in (signals[name], 0 * signals[name])])
    pairs = np.concatenate([pairs, np.ones_like(pairs[:1])])
    x = torch.from_numpy(pairs[None].astype(np.float32))
    weight = circuit.kernel(rules, source=0, target=0, like=torch.empty(CHANNELS, CHANNELS, 3, 3))
    bias = circuit.bias(rules, target=0, like=torch.empty(CHANNELS))
    for _ in range(steps):
        x = F.relu(F.conv2d(x, weight, bias, padding=1))
    return {name: (x[0, 2 * i] - x[0, 2 * i + 1]).numpy() for i, name in enumerate(circuit.SIGNALS)}


def binary(seed, density):
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(size=(24, 20)) < density for name in circuit.SIGNALS}


@given(seed=st.integers(0, 10**6), density=st.floats(0.02, 0.6), steps=st.integers(1, 4))
@settings(max_examples=25)
def test_grow_is_dilation(seed, density, steps):
    signals = binary(seed, density)
    out = run({"F": circuit.grow("F")}, signals, steps)["F"]
    assert np.array_equal(out, ndimage.binary_dilation(signals["F"], SQUARE, steps))


@given(seed=st.integers(0, 10**6), density=st.floats(0.1, 0.9))
@settings(max_examples=25)
def test_growing_the_inverse_is_erosion(seed, density):
    signals = binary(seed, density)
    inverse = run({"F": circuit.invert("F")}, signals)
    out = run({"F": circuit.grow("F")}, inverse)["F"]
    assert np.array_equal(1 - out, ndimage.binary_erosion(signals["F"], SQUARE, border_value=1))


def test_spread_fills_the_bright_region_that_holds_the_mark_and_no_other():
    bright = np.zeros((24, 24), bool)
    bright[2:10, 2:10] = bright[14:22, 5:20] = True
    mark = np.zeros_like(bright)
    mark[4:7, 4:7] = True
    signals = {"B": bright, "F": 0 * bright, "G": mark}
    out = run({"B": circuit.keep("B"), "G": circuit.spread("F", "G")}, signals, steps=20)["G"]
    assert np.array_equal(out, ndimage.binary_propagation(mark, SQUARE, bright))


@pytest.mark.parametrize("sources", [("G",), ("F", "G")])
def test_spread_never_leaves_the_bright_region(sources):
    full, none = np.ones((9, 9), bool), np.zeros((9, 9), bool)
    assert not run({"G": circuit.spread(*sources)}, {"B": none, "F": full, "G": full})["G"].any()


def test_keep_inside_empties_the_outermost_pixels_alone():
    full = np.ones((7, 9), bool)
    out = run({"F": circuit.keep_inside("F")}, dict.fromkeys(circuit.SIGNALS, full))["F"]
    assert np.array_equal(out, ndimage.binary_erosion(full, SQUARE))


def test_mean_is_a_uniform_filter():
    signals = {name: np.random.default_rng(3).uniform(size=(12, 15)) for name in circuit.SIGNALS}
    out = run({"B": circuit.mean("B")}, signals)["B"]
    np.testing.assert_allclose(out, ndimage.uniform_filter(signals["B"], 3, mode="constant"), atol=1e-6)


def test_a_head_reads_pairs_or_raw_sums():
    logits, like = [{"B": 2.0, "1": -1.0}, {"G": 3.0}], torch.empty(2, 8, 1, 1)
    clipped = circuit.read_out(logits, source=0, clipped=True, like=like)[:, :, 0, 0]
    raw = circuit.read_out(logits, source=0, clipped=False, like=like)[:, :, 0, 0]
    assert clipped.tolist() == [[2, -2, 0, 0, 0, 0, 0, -1], [0, 0, 0, 0, 3, -3, 0, 0]]
    assert raw.tolist() == [[2, 0, 0, 0, 0, 0, 0, -1], [0, 0, 0, 0, 3, 0, 0, 0]]
