"""The fusion head: the scores of the fusion stage without its graph, from weights that the bundle has as arrays.

`FusionHead` computes it in numpy and defines the results of the CUDA kernels (`gpu.kernels.head`), which compute it for
GPU engines. Engines for CPUs run the fusion graph.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.bundle import FUSION_WEIGHTS_FILE, Bundle, graph_file
from glam_deploy.bundle.npz import arrays_of
from glam_deploy.engines.base import Arrays, Engine, EngineOptions
from glam_deploy.errors import BundleError
from glam_deploy.networks import NetworkSpec
from glam_deploy.records import Float32

Weights = Mapping[str, Float32]
"""State-dict key -> weight, with the keys and shapes of `NetworkSpec.fusion_weights`."""
Float64 = NDArray[np.float64]

_CLOSE = 1e-4
"""Largest difference between the scores of the head and those of the graph, which computes in float32."""


def read_fusion_weights(bundle: Bundle) -> Weights | None:
    """Weights of the fusion head, an empty mapping for a network without any.

    None if the bundle has no file of them, as those of earlier releases. Raises BundleError if the file was changed, or
    does not have the weights of the bundle's network.
    """
    if FUSION_WEIGHTS_FILE not in bundle.files:
        return None
    shapes, content = bundle.network.fusion_weights, bundle.read(FUSION_WEIGHTS_FILE)
    try:
        weights = arrays_of(content, names=shapes.keys(), nbytes=4 * sum(map(prod, shapes.values())))
    except Exception as error:  # zipfile and numpy raise many kinds for a damaged or hostile file
        raise BundleError(
            f"{bundle.folder}: {FUSION_WEIGHTS_FILE} cannot be read ({type(error).__name__}: {error}). Export the "
            "checkpoint again."
        ) from error
    found = _described({name: w.shape for name, w in weights.items()})
    if found != _described(shapes) or not all(w.dtype == np.float32 and np.isfinite(w).all() for w in weights.values()):
        raise BundleError(
            f"{bundle.folder}: {FUSION_WEIGHTS_FILE} has {found}; expected finite values of float32 for the manifest's "
            f"network: {_described(shapes)}. Export the checkpoint again."
        )
    return weights


def _described(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shapes[name])}" for name in sorted(shapes)) or "no array"


def require_weights_of_graph(bundle: Bundle) -> None:
    """Raises BundleError unless each weight of the fusion head is in the fusion graph, bit for bit.

    Does nothing for a bundle without such weights. An ONNX file has the values of a weight, or of its transpose, as one
    sequence of bytes.
    """
    weights, graph = read_fusion_weights(bundle), bundle.read(graph_file("fusion"))
    absent = [n for n, w in (weights or {}).items() if w.tobytes() not in graph and w.T.tobytes() not in graph]
    if absent:
        raise BundleError(
            f"{bundle.folder}: {', '.join(absent)} of {FUSION_WEIGHTS_FILE}: other values than in "
            f"{graph_file('fusion')}, expected equal ones. Export the checkpoint again."
        )


def require_scores_of_graph(bundle: Bundle) -> None:
    """Raises BundleError unless the fusion head computes the scores of the fusion graph, for made-up inputs.

    Finds what `require_weights_of_graph` cannot: weights that are exchanged, and short ones whose bytes are anywhere in
    the graph. Does nothing for a bundle without such weights. Raises BackendBuildError.
    """
    from glam_deploy.engines.onnxruntime import OnnxRuntimeEngine  # half a second, for this check alone

    weights, network = read_fusion_weights(bundle), bundle.network
    if not weights:
        return
    inputs = _examples(network)
    graph = OnnxRuntimeEngine(bundle.read(graph_file("fusion")), "fusion", EngineOptions(), network=network)
    expected, found = graph.run(inputs), FusionHead(weights, network).run(inputs)
    wrong = {name: float(np.abs(values - expected[name]).max()) for name, values in found.items()}
    if worst := {name: difference for name, difference in wrong.items() if not difference <= _CLOSE}:
        differences = ", ".join(f"{name} by {difference:.2g}" for name, difference in worst.items())
        raise BundleError(
            f"{bundle.folder}: the weights of {FUSION_WEIGHTS_FILE} give other scores than {graph_file('fusion')}: "
            f"{differences}; expected at most {_CLOSE:g}. Export the checkpoint again."
        )


def _examples(network: NetworkSpec) -> dict[str, NDArray[Any]]:
    """Inputs of the fusion stage for six images with 1 to 6 patches and representations from 1 down to 0."""
    rng, contract = np.random.default_rng(0), network.contract("fusion").inputs
    count = network.patches.slots
    inputs: dict[str, NDArray[Any]] = {name: rng.random((count, *t.shape), np.float32) for name, t in contract.items()}
    used = np.arange(count) <= np.arange(count)[:, None]
    places = rng.integers(0, 16, (count, count, 2)) * network.cell
    inputs["patch_locations"] = np.where(used[..., None], places, -1)
    for name in inputs.keys() & {"z_g", "z_k"}:
        scale = np.float32(0.1) ** np.arange(count, dtype=np.float32)
        scale[-1] = 0
        inputs[name] *= scale.reshape(-1, *[1] * (inputs[name].ndim - 1))
    for name in inputs.keys() & {"saliency_patches", "z_k"}:
        inputs[name][~used] = 0
    return inputs


class FusionHead(Engine):
    """The outputs of the fusion stage but the fused map, in numpy: computed in float64, rounded once to float32.

    Patch slots with location (-1, -1) are not read. Formulas: Liu et al. 2021, section 2; Shen et al. 2021, section 3.
    """

    def __init__(self, weights: Weights, network: NetworkSpec) -> None:
        super().__init__("fusion", network=network, composed=False)
        self._weights = {name: array.astype(np.float64) for name, array in weights.items()}

    def _run(self, inputs: Arrays) -> Arrays:
        return self.scores(inputs)

    def scores(self, inputs: Arrays) -> Arrays:
        """As `run`, of inputs that need not be finite: NaN in `z_g` or a used `z_k` results in NaN."""
        images = len(inputs["patch_locations"])
        rows = [self._scores({name: array[n] for name, array in inputs.items()}) for n in range(images)]
        return {name: np.stack([row[name] for row in rows]).astype(np.float32) for name in self.contract.outputs}

    def _scores(self, one: Arrays) -> dict[str, Float64]:
        """Outputs of one image from its inputs, both without the batch axis."""
        used = one["patch_locations"][:, 0] >= 0
        scores = {"y_global": one["y_scale"].mean(0, dtype=np.float64)} if "y_scale" in one else {}
        fraction = self.network.patches.pool_fraction
        maps = one["saliency_patches"][used].astype(np.float64) if fraction is not None else None
        if not self._weights:
            assert maps is not None and fraction is not None, "without weights, y_local is made of patch maps"
            return scores | {"y_local": top_mean(maps.swapaxes(0, 1).reshape(len(self.network.classes), -1), fraction)}
        z_k = one["z_k"][used].astype(np.float64)
        attention = np.zeros(len(used))
        attention[used] = self._attention(z_k)
        z = attention[used] @ z_k
        if maps is None or fraction is None:
            y_local = _sigmoid(self._weights["classifier_linear.weight"] @ z)
        else:
            y_local = attention[used] @ top_mean(maps.reshape(*maps.shape[:2], -1), fraction)
        both = np.concatenate([one["z_g"], z])
        y_fusion = _sigmoid(self._weights["fusion_dnn.weight"] @ both + self._weights["fusion_dnn.bias"])
        return scores | {"y_local": y_local, "y_fusion": y_fusion, "attention": attention}

    def _attention(self, z_k: Float64) -> Float64:
        """Gated attention (Ilse et al. 2018): float64 [patches, 512] -> share of each patch, float64 [patches]."""
        v, u, w = (self._weights[f"mil_attn_{name}.weight"] for name in "VUw")
        logits = (np.tanh(z_k @ v.T) * _sigmoid(z_k @ u.T)) @ w[0]
        powers = np.exp(logits - logits.max())
        shares: Float64 = powers / powers.sum()
        return shares


def top_mean(values: Float64, fraction: float) -> Float64:
    """Mean of the largest `fraction` of the last axis, float64 [..., values] -> [...].

    Their number is rounded half to even, as published.
    """
    size = values.shape[-1]
    count = round(fraction * size)
    mean: Float64 = np.partition(values, size - count)[..., size - count :].mean(-1)
    return mean


def _sigmoid(values: Float64) -> Float64:
    sigmoid: Float64 = 1 / (1 + np.exp(-values))
    return sigmoid
