"""The chain in numpy: each stage as a function between records, on engines that take and give host arrays.

The reference for every faster chain.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.engines.base import Engine, Flight, Stopwatch
from glam_deploy.errors import UsageError
from glam_deploy.networks import GraphContract, NetworkSpec, Stage
from glam_deploy.patches import host
from glam_deploy.preprocess import network_input
from glam_deploy.records import Findings, Float32, GlobalMaps, LocalMaps, NetworkInput, Patches, PlacedView, Predictions


def run_global(engine: Engine, images: Float32) -> GlobalMaps:
    """Global module: standardized images, float32 [N, 1, 2944, 1920]."""
    out = engine.run({"image": images})
    return GlobalMaps(saliency=out["saliency_global"], y_scale=out["y_scale"], z_g=out["z_g"])


def run_local(engine: Engine, patches: Patches) -> LocalMaps:
    """Local module, patch by patch: on a CPU a batch is no faster, and one patch's feature maps bound the memory."""
    n, k = patches.locations.shape[:2]
    outputs = [engine.run({"patches": p[None]}) for p in patches.pixels.reshape(n * k, *patches.pixels.shape[2:])]
    maps, vectors = (np.concatenate([out[name] for out in outputs]) for name in ("saliency_patches", "z_k"))
    return LocalMaps(saliency=maps.reshape(n, k, *maps.shape[1:]), z_k=vectors.reshape(n, k, -1))


def fusion_inputs(
    contract: GraphContract, maps: GlobalMaps, patches: Patches, local: LocalMaps
) -> dict[str, NDArray[Any]]:
    """What the fusion graph takes: K patches in the first of its slots, the rest marked unused."""
    slots = contract.inputs["patch_locations"].shape[0]
    everything = {
        "saliency_global": maps.saliency,
        "y_scale": maps.y_scale,
        "saliency_patches": _slots(local.saliency, slots, 0),
        "patch_locations": _slots(patches.locations, slots, -1),
        "z_g": maps.z_g,
        "z_k": _slots(local.z_k, slots, 0),
    }
    return {name: everything[name] for name in contract.inputs}


def run_fusion(engine: Engine, maps: GlobalMaps, patches: Patches, local: LocalMaps) -> Predictions:
    """Fusion: scores of the images. The fused map itself is composed from its parts when asked for."""
    out = engine.run(fusion_inputs(engine.contract, maps, patches, local))
    used = patches.locations.shape[1]
    attention = out["attention"][:, :used] if "attention" in out else None
    return Predictions(
        y_global=out["y_global"], y_local=out["y_local"], y_fusion=out.get("y_fusion"), attention=attention
    )


def _slots(values: NDArray[Any], slots: int, empty: int) -> NDArray[Any]:
    spare = [(0, 0)] * values.ndim
    spare[1] = (0, slots - values.shape[1])
    return np.pad(values, spare, constant_values=empty)


class HostChain:
    """Runs where it is called, and nothing is in flight when a start returns. On a CPU a batch is no faster.

    Engines that were opened for several runs at once get as many threads; a start then returns before its view is done.
    """

    largest_batch = 1

    def __init__(
        self, engines: Mapping[Stage, Engine], network: NetworkSpec, patches: int, *, streams: int = 1
    ) -> None:
        self.engines, self._network = engines, network
        self._patches = patches
        self.in_flight = streams
        self._threads = ThreadPoolExecutor(streams, "view") if streams > 1 else None

    def prepare(self, view: PlacedView | NetworkInput) -> NetworkInput:
        """The view as the network sees it."""
        return view if isinstance(view, NetworkInput) else network_input(view)

    def start(self, views: Sequence[PlacedView | NetworkInput], clock: Stopwatch) -> Flight:
        """All stages of one view."""
        (view,) = views
        with clock("preprocess"):
            prepared = self.prepare(view)
        if self._threads:
            return self._submit(prepared, clock)
        findings = self._run(prepared, clock)
        return lambda: findings

    def close(self) -> None:
        """Waits for the views that its threads work on; the engines go with the last reference to this chain."""
        if self._threads:
            self._threads.shutdown()

    def _submit(self, prepared: NetworkInput, clock: Stopwatch) -> Flight:
        assert self._threads
        try:
            return self._threads.submit(self._run, prepared, clock).result
        except RuntimeError as error:  # another thread has closed it since this one began
            raise UsageError("this pipeline was closed in another thread: load the bundle again") from error

    def _run(self, prepared: NetworkInput, clock: Stopwatch) -> Findings:
        images = prepared.image[None, None]
        with clock("global"):
            maps = run_global(self.engines["global"], images)
        with clock("patches"):
            patches = host.select(images, maps, self._patches, self._network)
        with clock("local"):
            local = run_local(self.engines["local"], patches)
        with clock("fusion"):
            scores = run_fusion(self.engines["fusion"], maps, patches, local)
        return Findings(
            network=self._network,
            inputs=(prepared,),
            saliency_global=maps.saliency,
            saliency_patches=local.saliency,
            patch_locations=patches.locations,
            flat=patches.flat,
            y_scale=maps.y_scale,
            y_global=scores.y_global,
            y_local=scores.y_local,
            y_fusion=scores.y_fusion,
            attention=scores.attention,
        )
