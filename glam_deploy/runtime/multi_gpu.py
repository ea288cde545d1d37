"""The chain on several GPUs of one machine: each run is computed by one of them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from weakref import WeakSet

from glam_deploy.engines.base import Chain, Engine, PendingFindings, Stopwatch
from glam_deploy.engines.cpu import usable_cores
from glam_deploy.errors import BackendRunError, GpuLost
from glam_deploy.networks import Stage
from glam_deploy.records import ChainInput, Findings, UsedGpu


@dataclass(frozen=True, kw_only=True)
class GpuChain:
    """The chain of one GPU."""

    gpu: UsedGpu
    chain: Chain


class MultiGpuChain:
    """Chains of the same engines, each on a GPU of its own. Thread-safe.

    A run goes to the GPU with the fewest unfinished runs; of equal ones, to the next in turn. An error of a GPU names
    it. After a GPU was lost no further run starts, on the others neither: such an error leaves the process in an
    inconsistent state (CUDA Driver API, CUDA_ERROR_ILLEGAL_ADDRESS and others of CUresult).
    """

    def __init__(self, chains: Sequence[GpuChain]) -> None:
        """`chains`: two or more, with engines of one identity."""
        self._chains = tuple(chains)
        first = chains[0].chain
        self.largest_batch = first.largest_batch
        self.in_flight = sum(each.chain.in_flight for each in chains)
        self.ahead = min(sum(each.chain.ahead for each in chains), max(1, usable_cores() - 1))
        self._unfinished = [WeakSet[_Run]() for _ in chains]
        """Of each GPU. A run whose result is never requested is in it for as long as it is referenced."""
        self._next = 0
        self._lock = Lock()
        self._lost: GpuLost | None = None

    @property
    def engines(self) -> Mapping[Stage, Engine]:
        """The engines on the first GPU."""
        return self._chains[0].chain.engines

    def prepare(self, view: ChainInput) -> ChainInput:
        """Do the host's part of the preprocessing, which is the same for all GPUs."""
        return self._chains[0].chain.prepare(view)

    def start(self, views: Sequence[ChainInput], clock: Stopwatch) -> PendingFindings:
        """Start a run on one of the GPUs. Raises BackendRunError."""
        if self._lost:
            raise GpuLost(f"{self._lost} Its other GPUs are not used any more either.") from self._lost
        run = self._new_run()
        try:
            with self.named(run.number):
                run.start(self._chains[run.number], views, clock)
        except BaseException:
            self.finish(run)
            raise
        return run

    def close(self) -> None:
        """Close the chains of all GPUs, also if one of them fails."""
        with ExitStack() as stack:
            for each in self._chains:
                stack.callback(each.chain.close)

    @contextmanager
    def named(self, number: int) -> Iterator[None]:
        """Context for calls of the `number`-th chain: an error of its GPU names it, and a lost GPU is remembered."""
        gpu = self._chains[number].gpu
        try:
            yield
        except BackendRunError as error:
            found = type(error)(f"GPU {gpu.index} ({gpu.uuid}): {error}")
            if isinstance(found, GpuLost):
                self._lost = self._lost or found
            raise found from error

    def finish(self, run: "_Run") -> None:
        """The run occupies its GPU no longer; further calls do nothing."""
        with self._lock:
            self._unfinished[run.number].discard(run)

    def _new_run(self) -> "_Run":
        """A run on the GPU with the fewest unfinished runs."""
        count = len(self._chains)
        with self._lock:
            in_turn = [(self._next + n) % count for n in range(count)]
            number = min(in_turn, key=lambda n: len(self._unfinished[n]))
            self._next = (number + 1) % count
            run = _Run(self, number)
            self._unfinished[number].add(run)
        return run


class _Run:
    """A run on one of several GPUs: the `PendingFindings` of `MultiGpuChain.start`."""

    def __init__(self, owner: MultiGpuChain, number: int) -> None:
        """`number`: of the chain in `owner`, from 0."""
        self.number = number
        self._owner = owner

    def start(self, on: GpuChain, views: Sequence[ChainInput], clock: Stopwatch) -> None:
        """Start it on the chain of its number."""
        self._gpu, self._pending = on.gpu, on.chain.start(views, clock)

    def __call__(self) -> Findings:
        return self._findings

    @cached_property
    def _findings(self) -> Findings:
        try:
            with self._owner.named(self.number):
                return replace(self._pending(), gpu=self._gpu)
        finally:
            self._owner.finish(self)
