"""CAM with tensors of recipe.py, and its formula in float64: the source of `cam/case_*.npz`.

`python -m golden.cam` from tests/ writes the case again. The network is written here a second time, as a function of
the state dict, so that it shares no code with the reference.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from golden.recipe import batch_norm, conv_weight, mammogram
from torch import Tensor

HERE = Path(__file__).parent / "cam"
State = Mapping[str, Tensor]
SMALL = "resnet10"
"""One basic block in each stage: the cheapest network of these keys."""
SEED = 1


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of "resnet18" or "resnet50" with two classes, recorded from torchvision 0.28; or of SMALL."""
    listed = json.loads((HERE / f"{'resnet18' if name == SMALL else name}_shapes.json").read_text())
    second = re.compile(r"layer\d\.1\.")
    return {key: tuple(shape) for key, shape in listed.items() if name != SMALL or not second.match(key)}


def state_dict(name: str, *, channels: int = 3) -> dict[str, Tensor]:
    """All tensors, float32 (and int64 batch counters). `channels`: inputs of the first convolution, 1 or 3.

    The variance of batch norms grows with the depth, so that scores and maps of no network saturate.
    """
    wanted = shapes(name) | {"conv1.weight": (64, channels, 7, 7)}
    variance = {SMALL: 1, "resnet18": 2, "resnet50": 4}[name]
    return {key: torch.from_numpy(_tensor(key, shape, variance)) for key, shape in wanted.items()}


def _tensor(key: str, shape: tuple[int, ...], variance: float) -> np.ndarray:
    prefix, _, kind = key.rpartition(".")
    if kind == "num_batches_tracked":
        return np.array(1, np.int64)
    if kind == "running_var":
        return np.full(shape, variance, np.float32)
    if kind == "running_mean" or key == "fc.bias":
        return np.linspace(-0.1, 0.1, shape[0]).astype(np.float32)
    if len(shape) > 1:
        return conv_weight(key, shape) / (4 if prefix == "fc" else 1)
    weight, bias = batch_norm(prefix, *shape)
    return {"weight": weight, "bias": bias}[kind]


def cam(state: State, image: Tensor) -> tuple[Tensor, Tensor]:
    """The formula of `networks.cam` in float64: image [N,1,rows,columns] -> map [N,2,rows/32,columns/32], score [N,2].

    M_c = sum over k of w_ck f_k; score = sigmoid(mean of M_c + b_c); map = sigmoid(M_c + b_c).
    """
    wide = {key: value.double() for key, value in state.items()}
    features = _features(wide, image.double())
    activation = torch.einsum("ck,nkij->ncij", wide["fc.weight"], features)
    score = torch.sigmoid(activation.mean((2, 3)) + wide["fc.bias"])
    return torch.sigmoid(activation + wide["fc.bias"][:, None, None]), score


def _features(state: State, image: Tensor) -> Tensor:
    channels = state["conv1.weight"].shape[1]
    x = F.relu(_normalized(state, "bn1", F.conv2d(torch.cat([image] * channels, 1), state["conv1.weight"], None, 2, 3)))
    x = F.max_pool2d(x, 3, 2, 1)
    for layer in range(1, 5):
        for block in range(len({key.split(".")[1] for key in state if key.startswith(f"layer{layer}.")})):
            x = _block(state, f"layer{layer}.{block}", x, 2 if layer > 1 and block == 0 else 1)
    return x


def _block(state: State, name: str, x: Tensor, stride: int) -> Tensor:
    """A basic block or, with a third convolution, a bottleneck with its stride in the 3x3 convolution."""
    deep = f"{name}.conv3.weight" in state
    h, last = x, 3 if deep else 2
    for n in range(1, last + 1):
        weight = state[f"{name}.conv{n}.weight"]
        strided = stride if n == (2 if deep else 1) else 1
        h = _normalized(state, f"{name}.bn{n}", F.conv2d(h, weight, None, strided, weight.shape[-1] // 2))
        h = F.relu(h) if n < last else h
    shortcut = f"{name}.downsample"
    if f"{shortcut}.0.weight" in state:
        x = _normalized(state, f"{shortcut}.1", F.conv2d(x, state[f"{shortcut}.0.weight"], None, stride))
    return F.relu(h + x)


def _normalized(state: State, name: str, x: Tensor) -> Tensor:
    weight, bias, mean, variance = (
        state[f"{name}.{kind}"][:, None, None] for kind in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias


if __name__ == "__main__":
    saliency, score = cam(state_dict(SMALL), torch.from_numpy(mammogram(SEED))[None, None])
    np.savez_compressed(HERE / "case_1.npz", seed=SEED, saliency=saliency[0].numpy(), y_global=score[0].numpy())
