"""What is taken for the weights of a GLAM network, and what is refused and how."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import cam, network
from safetensors.torch import save_file
from torch import Tensor

from glam_deploy.errors import CheckpointError, UsageError
from glam_deploy.networks import CAM, GLAM, GLAM_CONCATENATION
from glam_export.checkpoint import Checkpoint, load_checkpoint, load_weights, save_weights
from glam_export.checkpoint.state_dict import find_state_dict
from glam_export.reference.glam import GlamNetwork

State = dict[str, Tensor]
SHAPES = network.shapes()
STEM = "global_network.downsampling_branch.first_conv.weight"
NORM = "detection_network.dn_resnet.bn1"


def thin(shapes: dict[str, tuple[int, ...]]) -> State:
    """A state dict whose tensors repeat one number each, so that torch.save writes kilobytes."""
    return {
        key: torch.tensor(1 if key.endswith("num_batches_tracked") else (i + 1) / 1024).expand(shape)
        for i, (key, shape) in enumerate(shapes.items())
    }


def heads() -> State:
    return thin(network.HEAD_SHAPES)


def without(state: State, *keys: str) -> State:
    return {key: value for key, value in state.items() if key not in keys}


@pytest.fixture
def state() -> State:
    return thin(SHAPES)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Write content as torch.save does, under a name."""

    def save(content: object, name: str = "weights.pt", **options: Any) -> Path:
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save


def assert_holds(checkpoint: Checkpoint, state: State) -> None:
    found = checkpoint.network.state_dict()
    assert {k for k in found if "num_batches" not in k} == {k for k in state if "num_batches" not in k}
    for key, value in found.items():
        if "num_batches" not in key:
            assert value.dtype == torch.float32
            assert torch.equal(value, state[key].float()), key


def refusal(path: Path, **options: Any) -> str:
    """The message with which a file is refused, its path taken off."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_golden_weights(golden_checkpoint: Path, golden_state: State) -> None:
    checkpoint = load_checkpoint(golden_checkpoint)
    assert_holds(checkpoint, golden_state)
    assert checkpoint.parameters == 24_086_140  # as published
    assert checkpoint.ignored == ()
    assert checkpoint.network.spec is GLAM_CONCATENATION
    assert not checkpoint.network.training
    assert not any(p.requires_grad for p in checkpoint.network.parameters())


def test_safetensors_float16_as_stored_by_others(golden_state: State, tmp_path: Path) -> None:
    half = {k: v.half() for k, v in golden_state.items() if v.is_floating_point()}
    save_file(half, tmp_path / "weights.safetensors")
    assert_holds(load_checkpoint(tmp_path / "weights.safetensors"), half)


def test_own_file_and_back(golden_network: GlamNetwork, tmp_path: Path) -> None:
    save_weights(golden_network, tmp_path / "own.safetensors")
    again = load_weights((tmp_path / "own.safetensors").read_bytes(), GLAM_CONCATENATION)
    for key, value in golden_network.state_dict().items():
        if "num_batches" not in key:
            assert torch.equal(again.state_dict()[key], value), key


def test_own_file_of_another_network(state: State, tmp_path: Path) -> None:
    save_file({k: v.contiguous() for k, v in without(state, STEM).items()}, tmp_path / "own.safetensors")
    content = (tmp_path / "own.safetensors").read_bytes()
    for wrong in (content, content[:1000], b""):
        with pytest.raises(CheckpointError, match="not those of GLAM with concatenation aggregation"):
            load_weights(wrong, GLAM_CONCATENATION)


def test_attention_and_fusion_layers_are_found(joint_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(joint_checkpoint)
    assert checkpoint.network.spec is GLAM
    assert checkpoint.parameters == 24_086_140 + 2 * 128 * 512 + 128 + 2 * 768 + 2
    for key, value in network.head_tensors().items():
        assert torch.equal(checkpoint.network.state_dict()[key], value)


WRAPPINGS: dict[str, Callable[[State], object]] = {
    "plain": dict,
    "state_dict": lambda s: {"state_dict": s, "epoch": 7, "optimizer": {"lr": 1e-4}},
    "model": lambda s: {"model": s},
    "model_state_dict": lambda s: {"model_state_dict": s},
    "nested": lambda s: {"state_dict": {"model": s}},
    "data parallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "lightning": lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}},
    "both prefixes": lambda s: {f"module.model.{k}": v for k, v in s.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrappings(wrapping: str) -> None:
    inside = {"global_network.a": torch.zeros(1), "module.of.one": torch.ones(2)}
    found = find_state_dict(WRAPPINGS[wrapping](inside), Path("weights.pt")).tensors
    assert found.keys() == inside.keys()
    assert all(found[key] is inside[key] for key in inside)


def test_wrapped_file_of_float64_without_counters(state: State, saved: Callable[..., Path]) -> None:
    tensors = {f"module.{k}": v.double() for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert_holds(load_checkpoint(saved({"state_dict": tensors, "epoch": 7}, "model.ckpt")), state)


def test_bfloat16_in_a_file_without_suffix(state: State, saved: Callable[..., Path]) -> None:
    tensors = {k: v.bfloat16() for k, v in state.items()}
    assert_holds(load_checkpoint(saved(tensors, "weights")), tensors)


def test_file_from_before_pytorch_1_6(state: State, saved: Callable[..., Path]) -> None:
    assert_holds(load_checkpoint(saved(state, _use_new_zipfile_serialization=False)), state)


def test_missing_keys_are_named(state: State, saved: Callable[..., Path]) -> None:
    message = refusal(saved(without(state, STEM, f"{NORM}.running_var")))
    assert f"2 missing: {NORM}.running_var, {STEM}" in message
    assert "--ignore-key" not in message


def test_a_long_list_is_cut(state: State, saved: Callable[..., Path]) -> None:
    gone = [k for k in SHAPES if k.endswith("conv1.weight")]
    message = refusal(saved(without(state, *gone)))
    assert f"{len(gone)} missing: " in message
    assert f" and {len(gone) - 20} more" in message


def test_unexpected_keys_are_named_with_the_remedy(state: State, saved: Callable[..., Path]) -> None:
    message = refusal(saved(state | {"teacher.fc.weight": torch.zeros(2), "aux": torch.zeros(1)}))
    assert "2 unexpected: aux, teacher.fc.weight" in message
    assert "--ignore-key" in message


def test_ignored_keys(state: State, saved: Callable[..., Path]) -> None:
    path = saved(state | {"teacher.a": torch.zeros(2), "teacher.b": torch.zeros(1)})
    checkpoint = load_checkpoint(path, ignore=["teacher.*"])
    assert_holds(checkpoint, state)
    assert checkpoint.ignored == ("teacher.a", "teacher.b")


def test_ignoring_a_needed_key_is_missing_it(state: State, saved: Callable[..., Path]) -> None:
    assert f"1 missing: {STEM}" in refusal(saved(state), ignore=["*first_conv*"])


def test_a_head_can_be_left_out_by_name(state: State, saved: Callable[..., Path]) -> None:
    checkpoint = load_checkpoint(saved(state | heads()), ignore=["mil_attn_*", "fusion_dnn.*"])
    assert checkpoint.network.spec is GLAM_CONCATENATION
    assert set(checkpoint.ignored) == set(network.HEAD_SHAPES)


FAULTS: dict[str, tuple[Tensor, str]] = {
    "shape": (torch.zeros(16, 3, 7, 7), f"1 of another shape: {STEM} [16, 3, 7, 7], expected [16, 1, 7, 7]"),
    "integers": (torch.zeros(16, 1, 7, 7, dtype=torch.int32), f"1 not floating point: {STEM}"),
    "complex": (torch.zeros(16, 1, 7, 7, dtype=torch.complex64), f"1 not floating point: {STEM}"),
    "NaN": (torch.full((16, 1, 7, 7), torch.nan), f"1 with NaN or infinite values: {STEM}"),
    "infinity": (torch.full((16, 1, 7, 7), torch.inf), f"1 with NaN or infinite values: {STEM}"),
    "over float32": (
        torch.full((16, 1, 7, 7), 1e39, dtype=torch.float64),
        f"1 with values too large for float32: {STEM}",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_tensors(state: State, saved: Callable[..., Path], fault: str) -> None:
    tensor, expected = FAULTS[fault]
    assert expected in refusal(saved(state | {STEM: tensor}))


def test_half_a_head(state: State, saved: Callable[..., Path]) -> None:
    message = refusal(saved(state | without(heads(), "fusion_dnn.bias", "mil_attn_w.weight")))
    assert "lacks fusion_dnn.bias, mil_attn_w.weight" in message
    assert "all together or not at all" in message


@pytest.mark.parametrize("content", [{}, {"a": 1}, [torch.zeros(1)], torch.zeros(3), {"state_dict": {}}, {"model": 3}])
def test_no_state_dict_inside(saved: Callable[..., Path], content: object) -> None:
    assert "no state dict found" in refusal(saved(content))


NO_CHECKPOINTS = {
    "empty": b"",
    "text": b"these are no weights\n" * 9,
    "json": b'{"a": 1}',
    "png": b"\x89PNG\r\n\x1a\n" + bytes(99),
    "zip": b"PK\x03\x04" + bytes(99),
    "pickle cut short": b"\x80\x02",
}


@pytest.mark.parametrize("kind", NO_CHECKPOINTS)
@pytest.mark.parametrize("name", ["weights.pt", "weights.ckpt", "weights.safetensors"])
def test_not_a_checkpoint(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(NO_CHECKPOINTS[kind])
    assert "not a readable checkpoint" in refusal(tmp_path / name)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_cut_short(state: State, saved: Callable[..., Path], share: float, old: bool) -> None:
    path = saved(state, _use_new_zipfile_serialization=not old)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "may be cut short" in refusal(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none.pt: cannot be read \(No such file or directory\)"):
        load_checkpoint(tmp_path / "none.pt")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read \(Is a directory\)"):
        load_checkpoint(tmp_path)


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.trace,)


def write_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


WRITERS: dict[str, Callable[[object, Path], None]] = {
    "zip": torch.save,
    "old": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "pickle": write_pickle,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_code_in_a_file_never_runs(state: State, tmp_path: Path, writer: str) -> None:
    path, trace = tmp_path / "weights.ckpt", tmp_path / "ran"
    WRITERS[writer](state | {"extra": Hostile(trace)}, path)
    message = refusal(path)
    assert "could run code" in message
    assert "refused" in message
    assert not trace.exists()
    # the same bytes do run where nobody guards, or this test would show nothing
    if writer == "pickle":
        pickle.loads(path.read_bytes())
        assert trace.exists()


def test_a_full_disk_is_an_error_of_the_operating_system(golden_network: GlamNetwork) -> None:
    with pytest.raises(OSError, match="No space left on device"):
        save_weights(golden_network, Path("/dev/full"))


def test_notes_tell_what_was_done(state: State, saved: Callable[..., Path]) -> None:
    wrapped = {f"_orig_mod.{key}": value.double() / 3 for key, value in state.items() if value.is_floating_point()}
    checkpoint = load_checkpoint(saved({"ema": wrapped, "epoch": 3}), key="ema")
    assert checkpoint.key == "ema"
    taken, prefix, rounded = checkpoint.notes
    assert (taken, prefix) == ("state dict taken from ema", "prefix _orig_mod. removed from its keys")
    assert rounded.endswith("tensors rounded from float64 to float32")


STORAGE: dict[str, Callable[[Tensor], Tensor]] = {
    "device meta": lambda tensor: tensor.to("meta"),
    "sparse": lambda tensor: tensor.to_sparse(),
}


@pytest.mark.parametrize("kind", STORAGE)
def test_tensors_without_plain_numbers(state: State, saved: Callable[..., Path], kind: str) -> None:
    message = refusal(saved(state | {STEM: STORAGE[kind](state[STEM])}))
    assert f"1 tensors are {kind}" in message.replace("without values (device meta)", "device meta")


@pytest.mark.parametrize("outputs", [1, 3, 1000])
def test_a_resnet_with_other_classes_is_not_taken_for_cam(outputs: int, saved: Callable[..., Path]) -> None:
    path = saved(thin(cam.shapes("resnet18") | {"fc.weight": (outputs, 512), "fc.bias": (outputs,)}))
    told = refusal(path)
    assert told.startswith(f"is a ResNet with fc.weight [{outputs}, 512], one row for each output")
    assert ("ImageNet" in told) is (outputs == 1000)
    assert "CAM needs two outputs, benign and malignant in this order" in told


def test_a_resnet_with_two_classes_is_cam(saved: Callable[..., Path]) -> None:
    state = thin(cam.shapes(cam.SMALL))
    found = load_checkpoint(saved({"state_dict": {f"module.{key}": value for key, value in state.items()}}))
    assert_holds(found, state)
    assert (found.network.spec, found.key) == (CAM, "state_dict")
    assert any("taken as benign and malignant in this order" in note for note in found.notes)


def test_thousands_of_blocks_are_refused_at_once(saved: Callable[..., Path]) -> None:
    state = thin(cam.shapes(cam.SMALL)) | {f"layer4.{n}.bn1.bias": torch.zeros(1) for n in range(2, 1000)}
    assert refusal(saved(state)).startswith("layer4 has ")


def test_negative_variances(state: State, saved: Callable[..., Path]) -> None:
    key = next(key for key in state if key.endswith("running_var"))
    assert f"1 variances below 0: {key}" in refusal(saved(state | {key: -torch.ones_like(state[key])}))


def test_blocks_with_a_gap_in_their_numbers_are_told(saved: Callable[..., Path]) -> None:
    state = {key.replace("layer3.1.", "layer3.2."): value for key, value in thin(cam.shapes("resnet18")).items()}
    told = refusal(saved(state))
    assert "these are not the weights of a CAM network" in told
    assert "10 missing: layer3.1.bn1.bias" in told
    assert "unexpected: layer3.2.bn1.bias" in told
