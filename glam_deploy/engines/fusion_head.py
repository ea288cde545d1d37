"""The fusion head: the scores of the fusion stage without its graph, from weights that the bundle has as arrays.

`FusionHead` computes it in numpy and defines the results of the CUDA kernels (`gpu.kernels.head`), which compute it for
GPU engines. Engines for CPUs run the fusion graph.
"""

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from glam_deploy.bundle import FUSION_WEIGHTS_FILE, Bundle, graph_file
from glam_deploy.engines.base import Arrays, Engine
from glam_deploy.errors import BundleError
from glam_deploy.networks import NetworkSpec
from glam_deploy.records import Float32

Weights = Mapping[str, Float32]
"""State-dict key -> weight, with the keys and shapes of `NetworkSpec.fusion_weights`."""
Float64 = NDArray[np.float64]


def read_fusion_weights(bundle: Bundle) -> Weights | None:
    """Weights of the fusion head, an empty mapping for a network without any.

    None if the bundle has no file of them, as those of earlier releases. Raises BundleError if the file was changed, or
    does not have the weights of the bundle's network.
    """
    if FUSION_WEIGHTS_FILE not in bundle.files:
        return None
    with np.load(io.BytesIO(bundle.read(FUSION_WEIGHTS_FILE)), allow_pickle=False) as file:
        weights = dict(file)
    expected = {name: ("float32", shape) for name, shape in bundle.network.fusion_weights.items()}
    found = {name: (str(array.dtype), array.shape) for name, array in weights.items()}
    if found != expected or not all(np.isfinite(array).all() for array in weights.values()):
        raise BundleError(
            f"{bundle.folder}: {FUSION_WEIGHTS_FILE} has {found}, expected finite values of {expected} for the "
            f"manifest's network. Export the checkpoint again."
        )
    return weights


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
