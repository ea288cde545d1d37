"""The demo weights: a published state dict in form, and a detector of the phantoms' lesions in effect."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import cam
from golden import network as golden_network

from glam_deploy.engines.base import OpenedEngines
from glam_deploy.errors import UsageError
from glam_deploy.networks import CAM, GLAM, GLAM_CONCATENATION, GMIC, NetworkSpec
from glam_deploy.preprocess.prepare import prepare
from glam_deploy.records import GlobalMaps, Mammogram, View
from glam_deploy.runtime import patching
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Result
from glam_export.demo.phantom import phantom_view
from glam_export.demo.weights import demo_state_dict
from glam_export.networks import family_of
from glam_export.reference.base import ReferenceNetwork
from glam_export.reference.glam import GlamNetwork
from glam_export.torch_engine import network_engines, torch_identity

PUBLISHED = json.loads((Path(__file__).parents[2] / "golden" / "state_dict_shapes.json").read_text())
HEAD = {
    "mil_attn_V.weight": [128, 512],
    "mil_attn_U.weight": [128, 512],
    "mil_attn_w.weight": [1, 128],
    "fusion_dnn.weight": [2, 768],
    "fusion_dnn.bias": [2],
}


@pytest.fixture(scope="module")
def state():
    return demo_state_dict()


@pytest.fixture(scope="module")
def network(state) -> GlamNetwork:
    network = GlamNetwork(GLAM)
    network.load_state_dict(state)
    return network.eval()


@pytest.mark.parametrize(("network", "extra"), [(GLAM_CONCATENATION, {}), (GLAM, HEAD)])
def test_keys_and_shapes_are_the_published_ones(network, extra):
    state = demo_state_dict(network=network)
    assert {name: list(t.shape) for name, t in state.items()} == PUBLISHED | extra
    learned = [n for n in PUBLISHED if not n.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert sum(state[n].numel() for n in learned) == 24_086_140


@pytest.mark.parametrize(
    ("network", "shapes"), [(GMIC, golden_network.shapes(golden_network.GMIC)), (CAM, cam.shapes("resnet18"))]
)
def test_keys_and_shapes_of_other_networks_are_the_published_ones(network, shapes):
    state = demo_state_dict(network=network)
    assert {name: tuple(t.shape) for name, t in state.items()} == shapes
    assert all(torch.isfinite(t).all() for t in state.values())


def test_values_are_finite_float32_of_ordinary_size_and_none_is_filled_with_one_number(state):
    for tensor in (t for t in state.values() if t.is_floating_point()):
        assert tensor.dtype == torch.float32
        low, high = tensor.min(), tensor.max()
        assert -50 < low < high < 50


def test_the_same_arguments_give_the_same_tensors_and_another_seed_others(state):
    again, other = demo_state_dict(), demo_state_dict(seed=1)
    assert all(torch.equal(state[n], again[n]) for n in state)
    assert not any(torch.equal(state[n], other[n]) for n in state if state[n].is_floating_point())


def test_a_negative_seed_is_refused():
    with pytest.raises(UsageError, match="seed -1"):
        demo_state_dict(seed=-1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prefix", "size"), [("global_network.downsampling_branch", 64), ("detection_network.dn_resnet", 16)]
)
@torch.inference_mode()
def test_every_layer_counts(network, prefix, size):
    assert_every_layer_counts(network, prefix, size)


def assert_every_layer_counts(network, prefix, size):
    """Weights set to 0 must show in the features, whichever layer or batch norm they belong to."""
    part, state = network.get_submodule(prefix), network.state_dict()
    image = 2 * torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(0)) + 1
    image = image.expand(-1, 3 if prefix.startswith("detection") else 1, -1, -1)
    before = flat(part(image))
    for key in (k for k in state if k.startswith(prefix) and k.endswith("weight") and k != "fc.weight"):
        saved = state[key].clone()
        state[key].zero_()
        after = flat(part(image))
        state[key].copy_(saved)
        assert not torch.equal(before, after), key


def flat(outputs):
    return torch.cat([t.flatten() for t in outputs])


def look(network, view):
    """Fused map on the 736 x 480 grid, the truth on the same grid, the scores and the patch's share of the lesion."""
    seen = prepare(Mammogram(pixels=view.pixels, view=view.view))
    image = torch.from_numpy(seen.image)[None, None]
    saliency, y_scale, z_g = network.global_network(image)
    maps = GlobalMaps(saliency=saliency.numpy(), y_scale=y_scale.numpy(), y_global=None, z_g=z_g.numpy())
    patches = patching.select(seen.image[None, None], maps, 1, GLAM)
    local, z_k = network.detection_network(torch.from_numpy(patches.pixels[0]))
    z_l = network.aggregate(local[None], z_k[None]).z_l
    fused = patching.fuse(maps.saliency[0], local.numpy(), patches.locations[0], GLAM)
    truth = mask_in_network_frame(view.mask, seen.placement)
    row, column = patches.locations[0, 0]
    share = (truth[row : row + GLAM.patches.side, column : column + GLAM.patches.side] > 0).sum() / max(
        (truth > 0).sum(), 1
    )
    return fused, truth[2::4, 2::4], network.predict_fusion(z_g, z_l)[0].numpy(), share


def mask_in_network_frame(mask, placement):
    """Pixel by pixel from the definition of Placement, for lesions that lie within the window."""
    top, bottom, left, right = placement.crop_window
    crop = mask[top:bottom, left:right]
    rows, columns = np.nonzero(crop[:, ::-1] if placement.mirrored else crop)
    out = np.zeros(GLAM.input_shape, np.uint8)
    out[rows - placement.row_shift, columns - placement.column_shift] = mask.max()
    return out


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


LESIONS = [
    (1, View.R_MLO, "benign"),
    pytest.param(0, View.R_CC, "malignant", marks=pytest.mark.slow),
    pytest.param(2, View.L_MLO, "malignant", marks=pytest.mark.slow),
]


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize(("seed", "view", "name"), LESIONS)
@torch.inference_mode()
def test_lesions_are_found_and_outlined(network, seed, view, name):
    fused, truth, y_fusion, share = look(network, phantom_view(seed, view))
    wanted = GLAM.classes.index(name)
    assert share > 0.9
    assert dice(fused[wanted] > 0.5, truth == wanted + 1) > 0.8
    assert (fused[1 - wanted] > 0.5).mean() < 1e-3
    assert y_fusion[wanted] > 0.5


def demo_network(spec: NetworkSpec) -> ReferenceNetwork:
    state = demo_state_dict(network=spec)
    network = family_of(spec).reference.like(spec, state)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "prefix", "size"), [(GMIC, "ds_net", 64), (GMIC, "dn_resnet", 32), (CAM, "", 32)])
@torch.inference_mode()
def test_every_layer_of_other_networks_counts(spec, prefix, size):
    network = demo_network(spec)
    assert_every_layer_counts(network, prefix, size)


def result_of(spec: NetworkSpec, seed: int, view: View) -> tuple[Result, np.ndarray]:
    """Result of a phantom by the network in PyTorch, and the phantom's outlines in the network frame."""
    phantom = phantom_view(seed, view)
    opened = OpenedEngines(engines=network_engines(demo_network(spec)), identity=torch_identity({}))
    result = Pipeline(opened, patches=spec.patch_count(None), provenance={})(
        Mammogram(pixels=phantom.pixels, view=phantom.view)
    )
    return result, mask_in_network_frame(phantom.mask, result.input.placement)


@pytest.mark.network
@pytest.mark.parametrize("spec", [GMIC, pytest.param(CAM, marks=pytest.mark.slow)], ids=["GMIC", "CAM"])
@pytest.mark.parametrize(("seed", "view", "name"), LESIONS)
def test_lesions_are_found_by_other_networks(spec, seed, view, name):
    """The map's largest cell holds the lesion: a cell of 64 or 32 pixels, which may reach over the outline."""
    result, truth = result_of(spec, seed, view)
    wanted, other = spec.classes.index(name), 1 - spec.classes.index(name)
    score = result.predictions[spec.scores[-1]]
    assert score[name] > 0.8
    assert score[spec.classes[other]] < 0.25
    saliency = result.saliency()
    brightest = saliency[wanted] == saliency[wanted].max()
    assert (truth[brightest] == wanted + 1).mean() > 0.5
    assert dice(saliency[wanted] > 0.5, truth == wanted + 1) > 0.5
    assert saliency[other].max() < 0.25
    if spec.selection:
        row, column = result.patch_locations[0]
        side = spec.patches.side
        assert (truth[row : row + side, column : column + side] > 0).sum() > 0.9 * (truth > 0).sum()


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("spec", [GMIC, CAM], ids=lambda spec: spec.name)
def test_a_view_without_lesions_stays_dark_in_other_networks(spec):
    result, _ = result_of(spec, 2, View.R_MLO)
    assert max(result.saliency_global.max(), *result.predictions[spec.scores[-1]].values()) < 0.2


@pytest.mark.network
@pytest.mark.slow
@torch.inference_mode()
def test_a_view_without_lesions_stays_dark(network):
    fused, _, y_fusion, _ = look(network, phantom_view(2, View.R_MLO))
    assert fused.max() < 0.2
    assert y_fusion.max() < 0.2
