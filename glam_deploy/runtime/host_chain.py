"""The chain in numpy, stage by stage, on engines that take and give host arrays: the truth for every faster one."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from glam_deploy.engines.base import Engine
from glam_deploy.errors import UsageError
from glam_deploy.networks import NetworkSpec, Stage
from glam_deploy.patches import host
from glam_deploy.preprocess import network_input
from glam_deploy.records import Findings, NetworkInput, PlacedView
from glam_deploy.runtime import stages
from glam_deploy.runtime.chain import Flight
from glam_deploy.runtime.stopwatch import Stopwatch


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
            maps = stages.run_global(self.engines["global"], images)
        with clock("patches"):
            patches = host.select(images, maps, self._patches, self._network)
        with clock("local"):
            local = stages.run_local(self.engines["local"], patches)
        with clock("fusion"):
            scores = stages.run_fusion(self.engines["fusion"], maps, patches, local)
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
