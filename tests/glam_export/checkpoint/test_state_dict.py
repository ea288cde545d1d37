"""Which state dict is taken from a checkpoint, and how others are told."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from golden import network
from torch import Tensor

from glam_deploy.errors import CheckpointError
from glam_deploy.networks import GLAM
from glam_export.checkpoint.state_dict import StateDict, find_state_dict
from glam_export.checkpoint.weights_file import read_weights_file
from glam_export.reference.glam import GlamNetwork

State = dict[str, Tensor]
PATH = Path("weights.pt")
STATE: State = {key: torch.tensor(float(i)) for i, key in enumerate(network.shapes() | network.HEAD_SHAPES)}
OTHER: State = {key: value + 1000 for key, value in STATE.items()}


def prefixed(state: Mapping[str, Tensor], prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


def assert_is(found: StateDict, state: State) -> None:
    assert found.tensors.keys() == state.keys()
    assert all(found.tensors[key] is state[key] for key in state)


PREFIXES = ("", "module.", "model.", "net.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.model.", "ema_model.")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("wrapper", ["", "net", "params", "model_state", "state_dict", "ema", "module", "whatever"])
def test_one_network_is_found_whatever_is_around_it(wrapper: str, prefix: str) -> None:
    content: object = prefixed(STATE, prefix)
    found = find_state_dict({wrapper: content, "epoch": 7} if wrapper else content, PATH)
    assert_is(found, STATE)
    assert (found.name, found.prefix) == (wrapper, prefix)


def test_an_optimizer_beside_it_is_none() -> None:
    optimizer = {"state": {0: {"exp_avg": torch.zeros(1)}}, "param_groups": [{"lr": 1e-4}]}
    assert_is(find_state_dict({"model": STATE, "optimizer": optimizer}, PATH), STATE)


BOTH: dict[str, object] = {
    "ema": {"model": STATE, "ema": OTHER},
    "ema.module": {"model": STATE, "ema": {"module": OTHER, "decay": 0.999}},
    "state_dict.ema": {"state_dict": {**prefixed(STATE, "model."), **prefixed(OTHER, "ema.")}},
    "teacher": {**STATE, **prefixed(OTHER, "teacher.")},
}


@pytest.mark.parametrize("name", BOTH)
def test_of_two_networks_none_is_taken_unasked(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"holds 2 networks \(GLAM\): .*--key") as caught:
        find_state_dict(BOTH[name], PATH)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", BOTH)
def test_key_chooses(name: str) -> None:
    assert_is(find_state_dict(BOTH[name], PATH, name), OTHER)


@pytest.mark.parametrize("name", ["ema.module", "state_dict.ema"])
def test_key_may_be_the_mapping_around_it_or_the_prefix(name: str) -> None:
    assert_is(find_state_dict(BOTH[name], PATH, "ema"), OTHER)


def test_a_key_that_fits_nothing_lists_what_does() -> None:
    with pytest.raises(CheckpointError, match=r"--key emma is not in the file. Networks in it: model, ema\."):
        find_state_dict(BOTH["ema"], PATH, "emma")
    with pytest.raises(CheckpointError, match=r"--key optimizer holds no GLAM, GMIC or CAM network"):
        find_state_dict({"model": STATE, "optimizer": {"a": torch.zeros(1)}}, PATH, "optimizer")


def test_other_values_and_the_counter_of_averaged_weights_are_told() -> None:
    averaged = {**prefixed(STATE, "module."), "n_averaged": torch.tensor(9)}
    found = find_state_dict({"net": averaged, "epoch": 3}, PATH)
    assert_is(found, STATE)
    assert found.left_out == ("n_averaged",)
    assert find_state_dict({**STATE, "epoch": 3}, PATH).left_out == ("epoch",)


OTHERS: dict[str, tuple[dict[str, object], str]] = {
    "ResNet": ({"conv1.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(1)}, "ResNet without.*CAM"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_are_named(name: str) -> None:
    content, expected = OTHERS[name]
    with pytest.raises(CheckpointError, match=f"weights of another network.*{expected}"):
        find_state_dict(content, PATH)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_gmic_is_recognized_by_its_keys(prefix: str) -> None:
    keys = ("ds_net.first_conv.weight", "dn_resnet.conv1.weight", "mil_attn_V.weight", "fusion_dnn.bias")
    found = find_state_dict({"model": {f"{prefix}{key}": torch.zeros(1) for key in keys}}, PATH)
    assert (found.family.name, found.prefix, tuple(found.tensors)) == ("GMIC", prefix, keys)


def test_a_file_with_both_networks_names_them() -> None:
    both = {"a": STATE, "b": {"ds_net.first_conv.weight": torch.zeros(1)}}
    with pytest.raises(CheckpointError, match=r"holds 2 networks \(GLAM, GMIC\): a, b\. Name the one"):
        find_state_dict(both, PATH)


def test_two_networks_in_one_mapping_are_told_apart_by_network() -> None:
    with pytest.raises(CheckpointError, match=r"holds 2 networks \(GLAM, CAM\): .* with --network, .* --network glam"):
        find_state_dict(STATE | resnet(), PATH)


CAM = {"conv1.weight": (64, 3, 7, 7), "layer1.0.conv1.weight": (64, 64, 3, 3), "fc.weight": (2, 512), "fc.bias": (2,)}


def resnet(prefix: str = "", **shapes: tuple[int, ...]) -> State:
    return {f"{prefix}{key}": torch.zeros(shape) for key, shape in (CAM | shapes).items()}


@pytest.mark.parametrize("prefix", ["", "module.", "module.backbone."])
@pytest.mark.parametrize("wrapper", ["", "state_dict", "ema"])
def test_cam_is_recognized_by_its_keys(wrapper: str, prefix: str) -> None:
    content = resnet(prefix)
    found = find_state_dict({wrapper: content, "epoch": 7} if wrapper else content, PATH)
    assert (found.family.name, found.name, found.prefix, found.tensors.keys()) == ("CAM", wrapper, prefix, CAM.keys())


def test_a_local_module_is_not_taken_for_cam() -> None:
    """GLAM and GMIC have a ResNet's keys behind dn_resnet, without a classifier beside them."""
    local = {f"dn_resnet.{key}": torch.zeros(1) for key in CAM if not key.startswith("fc.")}
    gmic = {"ds_net.first_conv.weight": torch.zeros(1), **local, "fc.weight": torch.zeros(2, 512)}
    assert find_state_dict(gmic, PATH).family.name == "GMIC"
    with pytest.raises(CheckpointError, match=r"another network: a ResNet without the classifier fc\.weight"):
        find_state_dict(local, PATH)


def test_the_network_asked_for_is_the_only_one_looked_for() -> None:
    both = {"a": STATE, "b": resnet()}
    assert [find_state_dict(both, PATH, network=name).name for name in ("GLAM", "CAM")] == ["a", "b"]
    with pytest.raises(
        CheckpointError,
        match=r"holds a CAM network, by its key module\.layer1\.0\.conv1\.weight; --network asks for GMIC\. Leave",
    ):
        find_state_dict(resnet("module."), PATH, network="GMIC")
    with pytest.raises(CheckpointError, match=r"holds a GLAM network, by its key global_network\..* asks for CAM"):
        find_state_dict(STATE, PATH, network="CAM")


def test_weights_as_numpy_arrays_are_told_so(tmp_path: Path) -> None:
    torch.save({"state_dict": {key: value.numpy() for key, value in STATE.items()}}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"as numpy arrays, not as tensors .*torch\.from_numpy"):
        find_state_dict(read_weights_file(tmp_path / "w.pt"), PATH)


def test_tensors_of_no_known_network_are_listed() -> None:
    with pytest.raises(CheckpointError, match=r"no state dict found .*Tensors are under: net \(1 tensors\)"):
        find_state_dict({"net": {"encoder.weight": torch.zeros(1)}}, PATH)


def test_every_key_of_the_network_is_recognized() -> None:
    with torch.device("meta"):
        keys = GlamNetwork(GLAM).state_dict()
    assert find_state_dict({f"a.b.{key}": value for key, value in keys.items()}, PATH).tensors.keys() == keys.keys()
