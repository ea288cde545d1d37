"""The network stages of an engine, bound to their own memory, to be timed one by one."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from glam_bench.clock import Runs, spread
from glam_bench.gpu.clock import Timer, Work, recorded
from glam_bench.gpu.maps import places
from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.context import DeviceMemory
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.engines.base import DeviceEngine, DeviceRun
from glam_deploy.networks import STAGES, Stage, Tensor

Row = dict[str, float]


class StageRuns:
    """The three stages on one stream, for `n` images of `k` patches each, with random inputs."""

    def __init__(self, engines: Mapping[Stage, DeviceEngine], gpu: Gpu, n: int, k: int) -> None:
        self.gpu, self.stream = gpu, gpu.stream()
        self._rng = np.random.default_rng(5)
        self._memory: list[DeviceMemory] = []
        self.not_recorded: dict[str, str] = {}
        """Stages -> why they are timed without a CUDA graph: the error of a recording that has failed."""
        batches: dict[Stage, int] = {"global": n, "local": n * k, "fusion": n}
        self._runs: dict[Stage, DeviceRun] = {s: self._bind(engines[s], batches[s], k) for s in STAGES}

    def times(self, runs: Runs) -> dict[str, Row]:
        """Milliseconds of each stage, and of both networks one after the other, the lower bound of the chain."""
        timer = Timer(self.gpu, self.stream)
        works: dict[str, Work] = {stage: self._work(stage) for stage in STAGES}
        works["both networks"] = self._work("global", "local")
        return {name: spread(timer.on_gpu(work, runs)) for name, work in works.items()}

    def call_times(self, runs: Runs) -> dict[str, Row]:
        """Milliseconds of the host until the calls for all stages return: one by one, and as one CUDA graph.

        Without the second if the stages cannot be recorded together.
        """
        timer, names = Timer(self.gpu, self.stream), ", ".join(STAGES)
        works: dict[str, Work] = {"one by one": self._one_by_one(*STAGES), "one graph": self._work(*STAGES)}
        if names in self.not_recorded or not all(self.capturable.values()):
            del works["one graph"]
        return {name: spread(timer.to_return(work, runs)) for name, work in works.items()}

    @property
    def capturable(self) -> dict[Stage, bool]:
        """Which stages can be recorded into a CUDA graph, once they have run."""
        return {stage: run.capturable for stage, run in self._runs.items()}

    def _work(self, *stages: Stage) -> Work:
        """Stages as one CUDA graph where the engines can be recorded, as in the pipeline."""
        enqueue = self._one_by_one(*stages)
        enqueue()
        self.stream.synchronize()
        if not all(self._runs[stage].capturable for stage in stages):
            return enqueue
        try:
            graph = recorded(self.stream, enqueue)
        except BackendRunError as error:
            self.not_recorded[", ".join(stages)] = str(error)
            return enqueue
        return lambda: graph.launch(self.stream)

    def _one_by_one(self, *stages: Stage) -> Work:
        def enqueue() -> None:
            for stage in stages:
                self._runs[stage].enqueue(self.stream)

        return enqueue

    def _bind(self, engine: DeviceEngine, batch: int, k: int) -> DeviceRun:
        inputs = {name: self._upload(self._values(name, t, batch, k)) for name, t in engine.contract.inputs.items()}
        outputs = {name: self._allocate(_nbytes(t, batch)) for name, t in engine.contract.outputs.items()}
        scratch = self._allocate(max(engine.scratch_bytes(batch), 1))
        return engine.bind(inputs | outputs, batch=batch, scratch=scratch, stream=self.stream)

    def _values(self, name: str, tensor: Tensor, batch: int, k: int) -> NDArray[np.generic]:
        shape = (batch, *tensor.shape)
        if name == "patch_locations":
            return places(self._rng, batch, k)
        if name in {"image", "patches"}:
            return self._rng.standard_normal(shape, np.float32)
        return self._rng.random(shape, np.float32)

    def _upload(self, values: NDArray[np.generic]) -> int:
        address = self._allocate(values.nbytes)
        self.stream.copy_in(address, values.ctypes.data, values.nbytes)
        self.stream.synchronize()
        return address

    def _allocate(self, nbytes: int) -> int:
        self._memory.append(self.gpu.allocate(nbytes))
        return self._memory[-1].address


def _nbytes(tensor: Tensor, batch: int) -> int:
    return batch * int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize
