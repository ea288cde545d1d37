"""The half of a made-up `tensorrt` that runs engines: as of its releases 10.13 to 11, and of TensorRT-RTX 1.7.

Each class stands for one of the bindings' and offers nothing that the real one lacks: tests/bindings holds names and
signatures against the bindings themselves. What a class insists on has its source beside it, where H is
NvInferRuntime.h (10.13 to 11.4), B the text of the bindings, and S NVIDIA's samples (trtexec's sampleInference.cpp).

For processes with the fake driver. It reads the engines of `support.tensorrt`, and those of `plan`; they compute with
`support.engines`, in their place in the stream.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from fake_cuda.control import FakeDriver

from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.driver import call
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.engines.tensorrt.builder import PROFILES
from glam_deploy.gpu.engines.tensorrt.flavours import FLAVOURS, Library
from glam_deploy.networks import GLAM_CONCATENATION, NETWORKS, NetworkSpec, Stage
from support.engines import FakeEngine

KINDS = ("tensorrt", "tensorrt-rtx")
ROW_BYTES = 512
"""Of device memory, for each row of a batch; a profile needs it for the largest of its batches."""
UNSUPPORTED = (
    "IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine cannot run on this GPU, which has "
    "compute capability 9.0. Supported compute capabilities: None. TensorRT-RTX does not support this compute "
    "capability, so the engine cannot be rebuilt for it. In throwUnlessComputeCapSupported at "
    "/_src/runtime/dispatch/runtime.cpp:84)"
)
"""What TensorRT-RTX 1.7.1.116 logged on an H200."""
CAPTURING = "Error Code 1: Cuda Runtime (operation not permitted when stream is capturing)"

Severity = IntEnum("Severity", {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3, "VERBOSE": 4})
Mode = IntEnum("Mode", {"NONE": 0, "INPUT": 1, "OUTPUT": 2})
Allocation = IntEnum("Allocation", {"STATIC": 0, "ON_PROFILE_CHANGE": 1, "USER_MANAGED": 2})
Graphs = IntEnum("Graphs", {"DISABLED": 0, "WHOLE_GRAPH_CAPTURE": 1})
Specialization = IntEnum("Specialization", {"LAZY": 0, "EAGER": 1, "NONE": 2})
Capability = IntEnum("Capability", {"NONE": 0, "CURRENT": 1, **{f"SM{n}": n for n in (75, 80, 86, 89, 120, 121)}})


class Logger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def log(self, severity: int, msg: str) -> None:
        raise NotImplementedError


def plan(
    stage: Stage,
    *,
    network: NetworkSpec = GLAM_CONCATENATION,
    profiles: Sequence[Sequence[int]] = (),
    renamed: Mapping[str, str] | None = None,
    dtypes: Mapping[str, str] | None = None,
    short: str = "",
) -> bytes:
    """An engine. `renamed`, `dtypes` and `short` (its last axis one less) name tensors that are not as they must be."""
    contract = network.contract(stage, composed=False)
    profiles = profiles or PROFILES[stage]

    def axes(name: str, shape: Sequence[int]) -> list[int]:
        return [*shape[:-1], shape[-1] - 1] if name == short else list(shape)

    said = {
        "outputs": list(contract.outputs),
        "profiles": [
            {name: [[batch, *axes(name, t.shape)] for batch in sizes] for name, t in contract.inputs.items()}
            for sizes in profiles
        ],
        "renamed": dict(renamed or {}),
        "dtypes": dict(dtypes or {}),
    }
    return json.dumps(said).encode()


class Faults(SimpleNamespace):
    """Which calls shall fail: `capability`, `context`, `shape`, `address`, `profile`, `run`, `runtime`, `sizes`,
    `capture` (TensorRT-RTX says of itself that it cannot be recorded), `graph` (it is found out as it is recorded)."""

    def __init__(self, *names: str) -> None:
        super().__init__(names=set(names))

    def __contains__(self, name: str) -> bool:
        return name in self.names


def library(kind: str, gpu: Gpu, driver: FakeDriver, faults: Faults | None = None) -> Library:
    """As imported. `trt.contexts` holds every context that was made."""
    trt = ModuleType("made_up")
    vars(trt).update(
        __version__={"tensorrt": "11.4.0.1", "tensorrt-rtx": "1.7.1.116"}[kind],
        ILogger=Logger,
        TensorIOMode=Mode,
        ExecutionContextAllocationStrategy=Allocation,
        nptype=lambda dtype: np.dtype(dtype).type,
        contexts=[],
    )
    if kind == "tensorrt-rtx":
        trt.CudaGraphStrategy = Graphs  # type: ignore[attr-defined]
        trt.DynamicShapesKernelSpecializationStrategy = Specialization  # type: ignore[attr-defined]
        trt.ComputeCapability = Capability  # type: ignore[attr-defined]
    world = SimpleNamespace(trt=trt, rtx=kind == "tensorrt-rtx", gpu=gpu, driver=driver, faults=faults or Faults())
    trt.Runtime = lambda log: Runtime(log, world)  # type: ignore[attr-defined]
    return Library(flavour=FLAVOURS[kind], trt=trt)


class Runtime:
    def __init__(self, logger: Logger, world: SimpleNamespace) -> None:
        if "runtime" in world.faults:
            logger.log(Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.engine_host_code_allowed = True
        """As if it were on by default: the owner must switch it off."""
        self._log, self._world = logger, world

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "CudaEngine | None":
        """None where it cannot (B), and why in the log."""
        assert self.engine_host_code_allowed is False
        require_current(self._world.gpu)
        if "capability" in self._world.faults:
            self._log.log(Severity.ERROR, UNSUPPORTED)
            return None
        try:
            said = json.loads(serialized_engine)
        except ValueError:
            self._log.log(Severity.ERROR, "Serialization assertion header.magicTag == kEXPECTED_MAGIC_TAG failed.")
            return None
        return CudaEngine(said, self._log, self._world)


class CudaEngine:
    def __init__(self, said: Mapping[str, Any], log: Logger, world: SimpleNamespace) -> None:
        self.log, self.world, self.profiles = log, world, said["profiles"]
        outputs = said["outputs"]
        self.stage, network = next(
            (stage, network)
            for network in NETWORKS
            for stage in network.stages
            if network.contract(stage, composed=False).outputs.keys() == set(outputs)
        )
        self.computing = FakeEngine(self.stage, network=network)
        contract = self.computing.contract
        shapes = {name: [-1, *sizes[0][1:]] for name, sizes in self.profiles[0].items()}
        shapes |= {name: [-1, *contract.outputs[name].shape] for name in outputs}
        names, dtypes = said.get("renamed", {}), said.get("dtypes", {})
        own = {**contract.inputs, **contract.outputs}
        self.tensors = {names.get(n, n): (dtypes.get(n, own[n].dtype), shape) for n, shape in shapes.items()}
        self.inputs = {names.get(n, n) for n in self.profiles[0]}

    num_io_tensors = property(lambda self: len(self.tensors))
    num_optimization_profiles = property(lambda self: len(self.profiles))

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if name in self.inputs else Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        return str(self.tensors[name][0])

    def get_tensor_shape(self, name: str) -> list[int]:
        return list(self.tensors[name][1])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[list[int]]:
        return list(self.profiles[profile_index][name])

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        """An upper bound: for the largest shapes of the profile (H, setDeviceMemoryV2)."""
        return int(ROW_BYTES * self._batches(profile_index)[1])

    def _batches(self, profile_index: int) -> tuple[int, int]:
        low, _, high = next(iter(self.profiles[profile_index].values()))
        return low[0], high[0]

    def create_runtime_config(self) -> "RuntimeConfig":
        return RtxRuntimeConfig() if self.world.rtx else RuntimeConfig()

    def create_execution_context(self, runtime_config: "RuntimeConfig") -> "ExecutionContext | None":
        require_current(self.world.gpu)
        assert runtime_config.allocation is Allocation.USER_MANAGED
        if "context" in self.world.faults:
            self.log.log(Severity.ERROR, "Error Code 2: OutOfMemory (Requested size was 1 bytes.)")
            return None
        context = (RtxExecutionContext if self.world.rtx else ExecutionContext)(self, runtime_config)
        self.world.trt.contexts.append(context)
        return context


class RuntimeConfig:
    def __init__(self) -> None:
        self.allocation = Allocation.STATIC

    def set_execution_context_allocation_strategy(self, strategy: Allocation = Allocation.STATIC) -> None:
        self.allocation = strategy


class RtxRuntimeConfig(RuntimeConfig):
    """With what only TensorRT-RTX has, each at its default."""

    def __init__(self) -> None:
        super().__init__()
        self.cuda_graph_strategy = Graphs.WHOLE_GRAPH_CAPTURE
        self.dynamic_shapes_kernel_specialization_strategy = Specialization.LAZY
        self.cache: object = None

    def create_runtime_cache(self) -> object:
        return SimpleNamespace()

    def set_runtime_cache(self, cache: object = None) -> bool:
        self.cache = cache
        return True


class ExecutionContext:
    def __init__(self, engine: CudaEngine, settings: Any) -> None:
        self.engine, self.settings = engine, settings
        self.profile = self.applied = 0
        """What was asked for, and what the stream that was named then has come to."""
        self.memory = (0, 0)
        self.partition: int | None = None
        """Bytes for the shapes that are set, once it was asked for them."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.runs = 0
        self.profile_stream: int | None = None

    active_optimization_profile = property(lambda self: self.profile)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """It copies in that stream, and waiting for it is the application's responsibility (B). Shapes that were set
        are void (H, setOptimizationProfileAsync)."""
        world = self.engine.world
        require_current(world.gpu)
        self.profile, self.profile_stream, self.shapes, self.partition = profile_index, stream_handle, {}, None
        world.driver.put(world.gpu.adopt(stream_handle), lambda: setattr(self, "applied", profile_index))
        return self._unless("profile", "Profile cannot be changed")

    def update_device_memory_size_for_shapes(self) -> int:
        """For the shapes that are set; 0 where they are not all (H)."""
        if "sizes" in self.engine.world.faults or self.shapes.keys() != self.engine.inputs:
            self._say("Error Code 3: API Usage Error (updateDeviceMemorySizeForShapes: not all shapes are specified)")
            return 0
        (batch,) = {shape[0] for shape in self.shapes.values()}
        self.partition = ROW_BYTES * batch
        return self.partition

    def set_device_memory(self, memory: int, size: int) -> None:
        if not memory:  # in the library's words
            self._say("setDeviceMemoryV2: Cannot set memory to nullptr.")
        elif memory % 512:
            self._say("setDeviceMemory: memory must be aligned on 512 byte boundary.")
        else:
            self.memory = (memory, size)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Inside the profile's range (H). Another shape partitions the memory anew."""
        low, high = self.engine._batches(self.profile)
        if not low <= shape[0] <= high or name not in self.engine.inputs:
            self._say(f"Error Code 3: API Usage Error (setInputShape: {name} {shape})")
            return False
        self.shapes[name], self.partition = shape, None
        return self._unless("shape", "setInputShape fails")

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """A multiple of 256 (H, setTensorAddress)."""
        if name not in self.engine.tensors or memory % 256 or not memory:
            self._say(f"Error Code 3: API Usage Error (setTensorAddress: {name})")
            return False
        self.addresses[name] = memory
        return self._unless("address", "setTensorAddress fails")

    def execute_async_v3(self, stream_handle: int) -> bool:
        """False where anything is not set, or the memory is smaller than the shapes need (H, enqueueV3)."""
        engine = self.engine
        require_current(engine.world.gpu)
        address, nbytes = self.memory
        needed = self.partition
        if needed is None:
            needed = engine.get_device_memory_size_for_profile_v2(self.profile)
        ready = address and nbytes >= needed and self.shapes.keys() == engine.inputs
        if not ready or self.addresses.keys() != engine.tensors.keys():
            self._say("Error Code 3: API Usage Error (enqueueV3: not everything is set)")
            return False
        if "run" in engine.world.faults:
            self._say("Error Code 1: Cuda Runtime (an illegal memory access was encountered)")
            return False
        stream = engine.world.gpu.adopt(stream_handle)
        assert int(call("cuCtxGetDevice")) == engine.world.gpu.index, "another GPU is current than that of the engine"
        engine.world.driver.put(stream, self._compute)
        if stream.is_capturing and not self._can_be_recorded():
            return False
        self.runs += 1
        return True

    def _can_be_recorded(self) -> bool:
        """Not a first run, which initializes (S: "Avoid capturing initialization calls"), nor an engine that allocates
        in each: the recording is broken, and the call returns False (S: "may contain operations that are not permitted
        under CUDA graph capture mode")."""
        if self.runs and "graph" not in self.engine.world.faults:
            return True
        with suppress(BackendRunError):
            call("cuMemAlloc", 1)
        self._say(CAPTURING)
        return False

    def _compute(self) -> None:
        assert self.applied == self.profile, "nobody waited for the change of the profile"
        (batch,) = {shape[0] for shape in self.shapes.values()}
        FakeDriver.peek(self.memory[0], (self.memory[1],), np.uint8)[:] = 0xA5
        arrays = {
            name: FakeDriver.peek(address, (batch, *self.engine.tensors[name][1][1:]), self.engine.tensors[name][0])
            for name, address in self.addresses.items()
        }
        results = self.engine.computing._run({name: arrays[name] for name in self.engine.inputs})
        for name in arrays.keys() - self.engine.inputs:
            arrays[name][:] = results[name]

    def _unless(self, fault: str, words: str) -> bool:
        if fault not in self.engine.world.faults:
            return True
        self._say(words)
        return False

    def _say(self, words: str) -> None:
        self.engine.log.log(Severity.ERROR, words)


class RtxExecutionContext(ExecutionContext):
    def is_stream_capturable(self, stream: int) -> bool:
        """True once kernels are compiled (B)."""
        require_current(self.engine.world.gpu)
        return self.runs > 0 and "capture" not in self.engine.world.faults


def require_current(gpu: Gpu) -> None:
    """The library works in the thread's current context, whatever that is."""
    assert int(call("cuCtxGetCurrent")) == int(gpu._context.handle), "called outside of the GPU's context"
