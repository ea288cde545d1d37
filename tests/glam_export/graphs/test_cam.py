"""The reference and the graph of CAM on small images, against the formula in float64 (`golden.cam`)."""

import pytest
import torch
from golden import cam
from torch import Tensor

from glam_deploy.networks import CAM
from glam_export.graphs.cam import graph_modules
from glam_export.reference.cam import CamNetwork
from glam_export.reference.cam.keys import Layout, layout_of


def network_of(state: dict[str, Tensor]) -> CamNetwork:
    network = CamNetwork.like(CAM, state)
    network.load_state_dict(state)
    return network.eval()


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 3), ("resnet50", 3), (cam.SMALL, 1)])
@torch.inference_mode()
def test_reference_and_graph_compute_the_formula(name: str, channels: int) -> None:
    state = cam.state_dict(name, channels=channels)
    network = network_of(state)
    image = torch.randn(2, 1, 192, 128, generator=torch.Generator().manual_seed(0))
    expected = cam.cam(state, image)
    assert expected[0].shape == (2, 2, 6, 4)
    assert 0.02 < expected[0].min() < expected[0].max() < 0.98
    for found in (network.stages()["global"](image), graph_modules(network)["global"](image)):
        for values, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(values.double(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "parameters"), [("resnet18", 11_177_538), ("resnet50", 23_512_130)])
def test_keys_and_shapes_are_those_of_torchvision(name: str, parameters: int) -> None:
    """torchvision's ResNet-18 and -50 have 11,689,512 and 25,557,032 parameters with 1000 classes."""
    with torch.device("meta"):
        network = CamNetwork.like(CAM, {key: torch.empty(shape) for key, shape in cam.shapes(name).items()})
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == cam.shapes(name)
    assert sum(value.numel() for value in network.parameters()) == parameters


def test_each_copy_of_the_grey_image_counts() -> None:
    """Three input channels are one whose kernel is their sum."""
    three = cam.state_dict(cam.SMALL)
    one = three | {"conv1.weight": three["conv1.weight"].sum(1, keepdim=True)}
    image = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        outputs = [network_of(state).find(image) for state in (three, one)]
    for a, b in zip(*outputs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


DEEP = (((3, 4, 6, 3), False), ((3, 4, 23, 3), True), ((3, 8, 36, 3), True), ((1, 2, 1, 5), False))


@pytest.mark.parametrize(("blocks", "bottlenecks"), DEEP)
def test_the_depth_follows_from_the_keys(blocks: tuple[int, ...], bottlenecks: bool) -> None:
    layout = Layout(blocks=blocks, has_bottlenecks=bottlenecks, channels=1)
    with torch.device("meta"):
        assert layout_of(CamNetwork(CAM, layout).state_dict()) == layout
