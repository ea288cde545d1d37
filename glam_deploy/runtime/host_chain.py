"""Chains on the host: all stages as functions between records, the reference for other chains; and ensembles."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.engines.base import Arrays, Chain, Engine, PendingFindings, Stopwatch
from glam_deploy.errors import UsageError
from glam_deploy.networks import GraphContract, NetworkSpec, Stage
from glam_deploy.preprocess import network_input, place
from glam_deploy.records import (
    ChainInput,
    Findings,
    Float32,
    GlobalMaps,
    LocalMaps,
    Mammogram,
    NetworkInput,
    Patches,
    Predictions,
)
from glam_deploy.runtime import patching


def run_global(engine: Engine, images: Float32) -> GlobalMaps:
    """Run the global module. `images`: standardized, float32 [N, 1, 2944, 1920], network frame."""
    return global_maps(engine.run({"image": images}))


def global_maps(out: Arrays) -> GlobalMaps:
    """Outputs of a global module by name -> the record."""
    return GlobalMaps(
        saliency=out["saliency_global"], y_scale=out.get("y_scale"), y_global=out.get("y_global"), z_g=out.get("z_g")
    )


def run_local(engine: Engine, patches: Patches) -> LocalMaps:
    """Run the local module, patch by patch: on a CPU a batch is not faster, and single patches need less memory."""
    n, k = patches.locations.shape[:2]
    outputs = [engine.run({"patches": p[None]}) for p in patches.pixels.reshape(n * k, *patches.pixels.shape[2:])]
    joined = {name: np.concatenate([out[name] for out in outputs]) for name in outputs[0]}
    by_image = {name: values.reshape(n, k, *values.shape[1:]) for name, values in joined.items()}
    return LocalMaps(saliency=by_image.get("saliency_patches"), z_k=by_image["z_k"])


def fusion_inputs(
    contract: GraphContract, maps: GlobalMaps, patches: Patches, local: LocalMaps
) -> dict[str, NDArray[Any]]:
    """Inputs of the fusion graph by name: K patches in its first slots, the other slots marked as unused."""
    slots = contract.inputs["patch_locations"].shape[0]
    everything = {
        "saliency_global": maps.saliency,
        "y_scale": maps.y_scale,
        "saliency_patches": None if local.saliency is None else _slots(local.saliency, slots, 0),
        "patch_locations": _slots(patches.locations, slots, -1),
        "z_g": maps.z_g,
        "z_k": _slots(local.z_k, slots, 0),
    }
    return {name: values for name in contract.inputs if (values := everything[name]) is not None}


def run_fusion(engine: Engine, maps: GlobalMaps, patches: Patches, local: LocalMaps) -> Predictions:
    """Run the fusion module for the scores. The fused map is not computed here, but on request by `Result`."""
    out = engine.run(fusion_inputs(engine.contract, maps, patches, local))
    used = patches.locations.shape[1]
    attention = out["attention"][:, :used] if "attention" in out else None
    y_global = out.get("y_global", maps.y_global)
    assert y_global is not None
    return Predictions(y_global=y_global, y_local=out["y_local"], y_fusion=out.get("y_fusion"), attention=attention)


def _slots(values: NDArray[Any], slots: int, unused: int) -> NDArray[Any]:
    """Pad axis 1, the patches, to `slots` entries with the value `unused`."""
    padding = [(0, 0)] * values.ndim
    padding[1] = (0, slots - values.shape[1])
    return np.pad(values, padding, constant_values=unused)


class HostChain:
    """Chain on the host. `start` computes the view in the calling thread; there are no batches, which are not faster.

    With several streams, `start` returns immediately, and a pool of as many threads computes the views.
    """

    largest_batch = 1
    ahead = 1
    """1, because the engines use all cores."""

    def __init__(
        self, engines: Mapping[Stage, Engine], network: NetworkSpec, patches: int, *, streams: int = 1
    ) -> None:
        self.engines, self._network = engines, network
        self._patches = patches
        self.in_flight = streams
        self._threads = ThreadPoolExecutor(streams, "view") if streams > 1 else None

    def prepare(self, view: ChainInput) -> NetworkInput:
        """The standardized network input of a view. Raises InputError as `preprocess.place`."""
        if isinstance(view, NetworkInput):
            return view
        if isinstance(view, Mammogram):
            view = place(view, network_shape=self._network.input_shape)
        return network_input(view)

    def start(self, views: Sequence[ChainInput], clock: Stopwatch) -> PendingFindings:
        """Run all stages of one view. Raises BackendRunError, and UsageError after `close`."""
        (view,) = views
        with clock("preprocess"):
            prepared = self.prepare(view)
        if self._threads:
            return self._submit(prepared, clock)
        findings = self._run(prepared, clock)
        return lambda: findings

    def close(self) -> None:
        """Wait for the views in the threads. The engines are freed with the last reference to this chain."""
        if self._threads:
            self._threads.shutdown()

    def _submit(self, prepared: NetworkInput, clock: Stopwatch) -> PendingFindings:
        assert self._threads
        try:
            return self._threads.submit(self._run, prepared, clock).result
        except RuntimeError as error:  # another thread has closed the pool meanwhile
            raise UsageError("this pipeline was closed in another thread: load the bundle again") from error

    def _run(self, prepared: NetworkInput, clock: Stopwatch) -> Findings:
        images = prepared.image[None, None]
        with clock("global"):
            maps = run_global(self.engines["global"], images)
        if self._network.selection is None:
            return _without_patches(self._network, prepared, maps)
        with clock("patches"):
            patches = patching.select(images, maps, self._patches, self._network)
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


def _without_patches(network: NetworkSpec, prepared: NetworkInput, maps: GlobalMaps) -> Findings:
    """Findings of a network that has a global module only."""
    assert maps.y_global is not None
    n = len(maps.saliency)
    return Findings(
        network=network,
        inputs=(prepared,),
        saliency_global=maps.saliency,
        saliency_patches=None,
        patch_locations=np.zeros((n, 0, 2), np.int64),
        flat=np.zeros((n, len(network.classes)), np.bool_),
        y_scale=None,
        y_global=maps.y_global,
        y_local=None,
        y_fusion=None,
        attention=None,
    )


# ensembles


class EnsembleChain:
    """Chains of models of one network. Thread-safe if they are.

    Scores are the arithmetic means over the models, as published for GMIC (five models, mean of y_fusion per image and
    class). Maps, patches, attention and flags are those of the first model.
    """

    def __init__(self, chains: Sequence[Chain]) -> None:
        """`chains`: at least one, all with engines of the same kind."""
        self._chains = tuple(chains)
        first = chains[0]
        self.largest_batch, self.in_flight, self.ahead = first.largest_batch, first.in_flight, first.ahead

    @property
    def engines(self) -> Mapping[Stage, Engine]:
        """The engines of the first model."""
        return self._chains[0].engines

    def prepare(self, view: ChainInput) -> ChainInput:
        """Do the host's part of the preprocessing, which is the same for all models."""
        return self._chains[0].prepare(view)

    def start(self, views: Sequence[ChainInput], clock: Stopwatch) -> PendingFindings:
        """Start the run of every model. Raises BackendRunError."""
        # a GPU chain sets its time, so that each model gets a stopwatch of its own
        clocks = [Stopwatch() for _ in self._chains]
        started = [chain.start(views, own) for chain, own in zip(self._chains, clocks, strict=True)]

        @cache
        def wait() -> Findings:
            found = [pending() for pending in started]
            for own in clocks:
                clock.add(own.times_ms)
            return _averaged(found)

        return wait

    def close(self) -> None:
        for chain in self._chains:
            chain.close()


def _averaged(found: Sequence[Findings]) -> Findings:
    first = found[0]
    return replace(
        first,
        y_scale=_mean([one.y_scale for one in found]),
        y_global=_mean([one.y_global for one in found]),
        y_local=_mean([one.y_local for one in found]),
        y_fusion=_mean([one.y_fusion for one in found]),
    )


def _mean(scores: Sequence[NDArray[np.float32] | None]) -> Any:
    """Mean over the models in float64, rounded to float32; None for a score that the network does not have."""
    if any(score is None for score in scores):
        return None
    return np.mean(np.array(scores, np.float64), axis=0).astype(np.float32)
