"""Stand-in for ONNX Runtime with its CUDA provider, for processes with the fake driver: what its source says it does.

Read in microsoft/onnxruntime, onnxruntime/core/providers/cuda: cuda_execution_provider.cc at commit 0018ddb6,
cuda_call.cc at 1a42650e, and versions of cuda_stream_handle.cc and tensor/concat.cc after them, whose commits are not
known. The source of 1.31.1 was not available; its library has the same functions and messages.

- The first two runs of a session allocate device memory: the arena's, then the memory pattern's (pull 15005).
- All work goes into `user_compute_stream`; a run waits for nothing if `disable_synchronize_execution_providers` is set.
- A kernel that copies arguments from the host frees them in a host function of the stream (`CleanUpOnRunEnd`).
- A call of CUDA that fails raises "CUDA failure 900: ...". The runtime's error of this thread is cleared, but then the
  message is made, which synchronizes the device: in a capture this fails too, and its error stays (`CudaErrString`).
  The next run in this thread finds it after its first launch, and clears it.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

from fake_cuda.control import FakeDriver

from glam_deploy import networks
from glam_deploy.engines import onnxruntime
from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.networks import NetworkSpec, Stage, Tensor
from glam_deploy.precision import Precision
from support.engines import FakeEngine
from support.tensorrt_network import described, graph_file_of

PROVIDER = "CUDAExecutionProvider"
TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)"}
REAL = onnxruntime.ort
IN_CAPTURE = "CUDA failure 900: operation not permitted when stream is capturing ; GPU=0 ; hostname=x ; expr="


class World:
    """The made-up library: what was opened, and what goes wrong."""

    def __init__(self, gpu: Gpu, driver: FakeDriver) -> None:
        self.gpu, self.driver = gpu, driver
        self.sessions: list[Session] = []
        self.has_provider = True
        self.provider_loads = True
        self.runs = True
        self.copying: set[Stage] = set()
        """Stages with a kernel that copies arguments from the host."""
        self.waiting: set[Stage] = set()
        """Stages with a kernel that waits for the stream."""
        self.arguments: set[int] = set()
        """Host copies of arguments that are not freed yet."""
        self.engine: Callable[[Stage, NetworkSpec], FakeEngine] = lambda stage, spec: FakeEngine(stage, network=spec)
        """What the graph of a stage computes."""
        self._errors: dict[int, str] = {}
        """Thread -> the last error of the CUDA runtime in that thread, until a call returns it (cudaGetLastError)."""
        self.library = SimpleNamespace(
            __version__="1.31.1",
            SessionOptions=REAL.SessionOptions,
            RunOptions=REAL.RunOptions,
            InferenceSession=self.session,
            get_available_providers=lambda: [PROVIDER] if self.has_provider else ["CPUExecutionProvider"],
        )
        """In place of the module `onnxruntime`."""

    def session(self, graph: bytes, settings: Any, **arguments: Any) -> "Session":
        self.sessions.append(Session(self, graph, settings, **arguments))
        return self.sessions[-1]

    @contextmanager
    def checked(self, expression: str) -> Iterator[None]:
        """A call of CUDA, as `CUDA_CALL` makes it."""
        try:
            yield
        except BackendRunError as error:
            self._errors[threading.get_ident()] = f"{IN_CAPTURE}cudaGetLastError()"
            raise RuntimeError(f"{IN_CAPTURE}{expression}") from error

    def require_no_error(self) -> None:
        """As `CUDA_RETURN_IF_ERROR(cudaGetLastError())` after a launch."""
        if error := self._errors.pop(threading.get_ident(), None):
            raise RuntimeError(error)

    def free_argument(self, number: int) -> None:
        """Raises KeyError for one that was freed."""
        self.arguments.remove(number)


class Session:
    """Computes with `support.engines` in the stream that it was given."""

    def __init__(
        self,
        world: World,
        graph: bytes,
        settings: Any,
        *,
        providers: list[tuple[str, Mapping[str, Any]]],
        enable_fallback: int,
    ) -> None:
        ((name, self.options),) = providers
        assert (name, enable_fallback) == (PROVIDER, 0)
        self.world = world
        self.strict = has(settings, "session.disable_cpu_ep_fallback")
        self.own_arena = not has(settings, "session.use_env_allocators")
        if self.strict and not world.provider_loads:
            raise RuntimeError("graph nodes are assigned to the default CPU EP, but fallback has been disabled")
        said = described(graph)
        self.precision = said["precision"]
        self.engine = world.engine(said["stage"], networks.network(said["network"], said["aggregation"]))
        self.bound: dict[str, tuple[Any, ...]] = {}
        self.runs = 0
        self.arena: list[Any] = []

    def get_providers(self) -> list[str]:
        return [PROVIDER, "CPUExecutionProvider"] if self.world.provider_loads else ["CPUExecutionProvider"]

    def get_inputs(self) -> list[Any]:
        return arguments_of(self.engine.contract.inputs)

    def get_outputs(self) -> list[Any]:
        return arguments_of(self.engine.contract.outputs)

    def io_binding(self) -> Any:
        def bind(name: str, *place: Any) -> None:
            self.bound[name] = place

        return SimpleNamespace(bind_input=bind, bind_output=bind)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
        if not self.world.runs:
            raise RuntimeError("CUDNN failure 4000")
        world, stream = self.world, self.world.gpu.adopt(self.options["user_compute_stream"])
        if self.runs < 2:
            with world.checked("cudaMalloc(&p, size)"):
                self.arena.append((world.gpu.allocate(8), world.gpu.pinned(8)))
        world.driver.compute(stream, partial(compute, self.engine, self.bound))
        world.require_no_error()
        if self.engine.stage in world.waiting:
            with world.checked("cudaStreamSynchronize(stream)"):
                stream.synchronize()
        if self.engine.stage in world.copying:
            self._copy_arguments(stream)
        self.runs += 1

    def _copy_arguments(self, stream: Any) -> None:
        device, host = self.arena[-1]
        stream.copy_in(device.address, host.address, 8)
        self.world.arguments.add(number := self.runs + 1000 * id(self))
        self.world.driver.put(stream, partial(self.world.free_argument, number))


def compute(engine: FakeEngine, bound: Mapping[str, tuple[Any, ...]]) -> None:
    """The work of a run, which keeps no session alive."""
    arrays = {name: FakeDriver.peek(at, shape, dtype) for name, (_, _, dtype, shape, at) in bound.items()}
    results = engine._run({name: arrays[name] for name in engine.contract.inputs})
    for name in arrays.keys() - engine.contract.inputs:
        arrays[name][:] = results[name]


def has(settings: Any, entry: str) -> bool:
    try:
        return bool(settings.get_session_config_entry(entry) == "1")
    except RuntimeError:
        return False


def arguments_of(tensors: Mapping[str, Tensor]) -> list[Any]:
    return [SimpleNamespace(name=n, type=TYPES[t.dtype], shape=["batch", *t.shape]) for n, t in tensors.items()]


def said(stage: Stage, network: NetworkSpec, precision: Precision = "fp32") -> bytes:
    """What a graph of such a bundle consists of."""
    whose = {"network": network.name, "aggregation": network.aggregation}
    return graph_file_of({"stage": stage, **whose, "precision": "fp32" if stage == "fusion" else precision})
