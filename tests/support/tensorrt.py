"""A made-up `tensorrt` with the attributes of its release 10 or 11, for what can be installed nowhere.

Its graphs are JSON (`graph`), its engines are JSON too: what they were built with, and the layers that the engine
inspector will tell. It differs between releases where the real ones do: numbers of enums, flags that are gone, typing
that is weak unless asked for, fields of the layer report. Anything else that is asked of it is an AttributeError.

What it insists on, or does as the real library does, has a note at its place with the page or header that says so.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from enum import IntEnum
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from glam_deploy.bundle import graph_file
from glam_deploy.gpu.engines.tensorrt import flavours, identity, store
from glam_deploy.gpu.engines.tensorrt.flavours import FLAVOURS, Library
from glam_deploy.networks import GLAM_CONCATENATION, NetworkSpec, Stage
from glam_deploy.precision import Precision
from support.bundles import facts, write_manifest
from support.reports import NOT_TOLD, MadeLayer, Tensor, inspected, lines
from support.tensorrt_network import (
    ConvolutionLayer,
    DataType,
    Logger,
    Monitor,
    Network,
    OnnxParser,
    graph_file_of,
    nptype,
)

TYPES: Mapping[Precision, str] = {"fp32": "Float", "fp16": "Half", "bf16": "BFloat16"}


GPU = SimpleNamespace(name="NVIDIA L4", compute_capability="8.9", driver="580.95.05", current=nullcontext)


def install(patch: pytest.MonkeyPatch, **behaviour: Any) -> None:
    """From now on this machine has `GPU`, the made-up TensorRT alone, and a compiler that costs nothing."""
    patch.setitem(sys.modules, "tensorrt", module(**behaviour))
    patch.setattr(flavours, "find_spec", lambda name: ModuleSpec(name, None) if name == "tensorrt" else None)
    patch.setattr(identity, "Gpu", lambda index: GPU)
    patch.setattr(store, "compile_cubin", lambda source, *, architecture, name: architecture.encode())


def fill(folder: Path, network: NetworkSpec = GLAM_CONCATENATION) -> None:
    """Make a bundle of made-up graphs in fp32 and fp16."""
    (folder / "graphs").mkdir(parents=True)
    for name, content in graphs("fp32", "fp16", network=network).items():
        (folder / name).write_bytes(content)
    described = facts()
    described["network"] |= {
        "name": network.name,
        "aggregation": network.aggregation,
        "patches": network.patch_count(None),
    }
    write_manifest(folder, described)


def graph(stage: Stage, precision: Precision, *, network: NetworkSpec = GLAM_CONCATENATION, **changes: Any) -> bytes:
    """A graph of the contract of `stage` with two convolutions, 9 and 1 parts of the work (none in fusion)."""
    contract = network.contract(stage)
    convolutions = [
        {"name": "node_big", "kernel": [3, 3], "channels": [8, 8], "pixels": [16, 16], "type": TYPES[precision]},
        {"name": "node_small", "kernel": [1, 1], "channels": [8, 8], "pixels": [16, 16], "type": TYPES[precision]},
    ]
    said = {
        "inputs": {name: [t.dtype, [-1, *t.shape]] for name, t in contract.inputs.items()},
        "outputs": {name: [t.dtype, [-1, *t.shape]] for name, t in contract.outputs.items()},
        "convolutions": [] if stage == "fusion" else convolutions,
    }
    return graph_file_of(said | changes)


def graphs(*precisions: Precision, network: NetworkSpec = GLAM_CONCATENATION) -> dict[str, bytes]:
    """Files of a bundle."""
    return {
        graph_file(stage, precision): graph(stage, precision, network=network)
        for precision in precisions
        for stage in network.stages
    }


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How builds go."""

    stop_after: int | None = None
    """A step at which they wait to be stopped."""
    fails: str = ""
    """An error that ends them."""
    warns: str = ""
    """A warning that they give."""
    computes_in: str = ""
    """The type of all convolutions, whatever the graph says."""
    silent: bool = False
    """The builder says no "Layers:"."""
    tells: str = "all"
    """Which types a report tells: "all" where it would, those of "weights" alone, or "nothing"."""


def library(release: int = 11, **behaviour: Any) -> Library:
    """The flavour "tensorrt", imported."""
    return Library(flavour=FLAVOURS["tensorrt"], trt=module(release, **behaviour))


def module(release: int = 11, **behaviour: Any) -> ModuleType:
    """The module as of a release; `behaviour` is that of `Behaviour`."""
    made = ModuleType("tensorrt")
    made.__spec__ = ModuleSpec("tensorrt", None)
    vars(made).update(_contents(release, Behaviour(**behaviour)))
    return made


def _contents(release: int, behaviour: Behaviour) -> dict[str, Any]:
    old = release == 10
    flags = ["FP16", "TF32"] if old else ["TF32"]
    return {
        "__version__": f"{release}.4.0.1",
        "NetworkDefinitionCreationFlag": _enum("NetworkDefinitionCreationFlag", EXPLICIT_BATCH=0, STRONGLY_TYPED=1)
        if old
        else _enum("NetworkDefinitionCreationFlag", STRONGLY_TYPED=0),
        "BuilderFlag": _enum("BuilderFlag", **{name: number for number, name in enumerate(flags)}),
        "ProfilingVerbosity": _enum("ProfilingVerbosity", LAYER_NAMES_ONLY=0, DETAILED=1),
        "LayerInformationFormat": _enum("LayerInformationFormat", ONELINE=0, JSON=1),
        "LayerType": _enum("LayerType", CONVOLUTION=0, ACTIVATION=2),
        "DataType": DataType,
        "TensorIOMode": _enum("TensorIOMode", NONE=0, INPUT=1, OUTPUT=2),
        "ExecutionContextAllocationStrategy": _enum(
            "ExecutionContextAllocationStrategy", STATIC=0, ON_PROFILE_CHANGE=1, USER_MANAGED=2
        ),
        "ILogger": Logger,
        "IProgressMonitor": Monitor,
        "IConvolutionLayer": ConvolutionLayer,
        "OnnxParser": OnnxParser,
        "Builder": lambda log: Builder(log, old=old, behaviour=behaviour),
        "Runtime": Runtime,
        "nptype": nptype,
    }


def _enum(name: str, **members: int) -> Any:
    return IntEnum(name, members)


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:
        self.shapes[input] = [list(shape) for shape in (min, opt, max)]


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> memoryview:
        return memoryview(self.content)


class Config:
    def __init__(self) -> None:
        self.flags = {"TF32"}
        self.profiling_verbosity = 0
        self.profiles: list[Profile] = []
        self.progress_monitor: Any = None
        self.cache: TimingCache | None = None

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag.name)

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> TimingCache:
        return TimingCache(content)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        """A cache that begins with "foreign" is of another GPU."""
        assert not ignore_mismatch
        if cache.content.startswith(b"foreign"):
            return False
        self.cache = cache
        return True


class Builder:
    """Each build walks through steps and asks at each whether to go on.

    With `stop_after`, it stands at that step until it is told to stop, as a long build would.
    """

    def __init__(self, log: Logger, *, old: bool, behaviour: Behaviour) -> None:
        self._log, self._old, self._behaviour = log, old, behaviour
        self._release = 10 if old else 11

    def create_network(self, flags: int) -> Network:
        # release 10 counts from EXPLICIT_BATCH and is weakly typed unless told; release 11 is never weakly typed
        return Network(strongly_typed=flags == 2 if self._old else flags in (0, 1))

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> memoryview | None:
        self._log.log(Logger.VERBOSE, "one of thousands")
        self._log.log(Logger.WARNING, "Make sure input patch_locations has Int64 binding.")
        if self._behaviour.warns:
            self._log.log(Logger.WARNING, self._behaviour.warns)
        if self._behaviour.fails:
            self._log.log(Logger.ERROR, self._behaviour.fails)
            return None
        if not self._walk(config.progress_monitor):
            self._log.log(Logger.ERROR, "Build canceled by user")
            return None
        if config.cache:
            config.cache.content += b"+"
        layers = self._layers(network)
        if config.profiling_verbosity and not self._behaviour.silent:
            # issue 4397: with detailed profiling the layers are told at VERBOSE, though no shapes are set
            self._log.log(Logger.VERBOSE, lines(_hidden(layers, self._behaviour), release=self._release))
        return memoryview(json.dumps(self._engine(network, config, layers)).encode())

    def _walk(self, monitor: Any) -> bool:
        _called(monitor.phase_start, "Building engine", None, 4)
        for step in range(4):
            while self._behaviour.stop_after == step and _called(monitor.step_complete, "Building engine", step):
                pass
            if not _called(monitor.step_complete, "Building engine", step):
                return False
        _called(monitor.phase_finish, "Building engine")
        return True

    def _layers(self, network: Network) -> list[MadeLayer]:
        kind = self._behaviour.computes_in or ("" if network.strongly_typed else "Float")
        return [layer for said in network.said["convolutions"] for layer in _made(said, kind or said["type"])]

    def _engine(self, network: Network, config: Config, layers: Sequence[MadeLayer]) -> dict[str, Any]:
        told = {"hidden": _hidden(layers, self._behaviour), "shown": _hidden(layers, self._behaviour, shapes=True)}
        names = {"Layers": [layer.name for layer in layers]}
        return {
            "inputs": [tensor.name for tensor in network.inputs],
            "outputs": [tensor.name for tensor in network.outputs],
            "flags": sorted(config.flags),
            "profiles": [profile.shapes for profile in config.profiles],
            **{
                key: inspected(found, release=self._release) if config.profiling_verbosity else names
                for key, found in told.items()
            },
        }


def _called(callback: Any, *arguments: Any) -> bool:
    """pyCore.cpp, PyProgressMonitor: an exception is printed, and is taken for False: the build is cancelled."""
    try:
        return bool(callback(*arguments))
    except Exception as error:
        print(f"[ERROR] Exception caught in {callback.__name__}(): {error}", file=sys.stderr)
        return False


def _made(said: Mapping[str, Any], kind: str) -> list[MadeLayer]:
    """A 1x1 convolution becomes a matrix product of Myelin, with FP32 scalars beside its operands, another a Cask layer
    with what comes before it: see support.reports for where this was seen."""
    name, (entering, leaving) = said["name"], said["channels"]
    activation = Tensor(name="x", axes=[-1, entering, *said["pixels"]], kind=kind)
    output = Tensor(name="y", axes=[-1, leaving, *said["pixels"]], kind=kind)
    if list(said["kernel"]) == [1, 1]:
        scalars = [Tensor(name=f"__mye7{name}_{scalar}", axes=[1], kind="Float") for scalar in ("alpha", "beta")]
        kernel = Tensor(name="__mye77_dconst", axes=[entering, leaving], kind=kind)
        product = MadeLayer(name=f"{name}_myl4_3", kind="gemm", nodes=[name], inputs=[activation, *scalars],
                            constants=[kernel], outputs=[output])  # fmt: skip
        return [product]
    given = Tensor(name="patches", axes=[-1, 1, 512, 512], kind="Float")
    moved = MadeLayer(name=f"Reformatting CopyNode for Input Tensor 0 to {name} + relu", kind="Reformat",
                      inputs=[given], outputs=[activation])  # fmt: skip
    count = int(np.prod([*said["channels"], *said["kernel"]]))
    convolution = MadeLayer(name=f"{name} + relu", nodes=[name, "relu"], inputs=[activation], outputs=[output],
                            weights=(kind, count), extra={"Bias": {"Type": "Float", "Count": leaving}})  # fmt: skip
    return [moved, convolution]


def _hidden(layers: Sequence[MadeLayer], behaviour: Behaviour, *, shapes: bool = False) -> list[MadeLayer]:
    """As a report tells them. NvInferRuntime.h, IEngineInspector::setExecutionContext: without shapes, no formats where
    shapes are dynamic. Whether that holds for constants too is not known: the worse is taken."""
    told = behaviour.tells

    def shown(tensor: Tensor) -> Tensor:
        known = told == "all" and (shapes or list(tensor.axes) == [1])
        return tensor if known else replace(tensor, kind=NOT_TOLD)

    return [
        replace(
            layer,
            inputs=[shown(tensor) for tensor in layer.inputs],
            constants=[shown(tensor) for tensor in layer.constants],
            outputs=[shown(tensor) for tensor in layer.outputs],
            weights=None if told == "nothing" else layer.weights,
        )
        for layer in layers
    ]


class Runtime:
    def __init__(self, log: Logger) -> None:
        pass

    def deserialize_cuda_engine(self, content: bytes) -> Any:
        return Engine(json.loads(content))


class Engine:
    def __init__(self, said: Mapping[str, Any]) -> None:
        self._said = said
        self._names = [*said["inputs"], *said["outputs"]]

    num_optimization_profiles = property(lambda self: len(self._said["profiles"]))
    num_io_tensors = property(lambda self: len(self._names))

    def get_tensor_name(self, index: int) -> str:
        return str(self._names[index])

    def get_tensor_mode(self, name: str) -> int:
        return 1 if name in self._said["inputs"] else 2

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        shapes: list[list[int]] = self._said["profiles"][profile][name]
        return shapes

    def create_execution_context(self, strategy: Any) -> "Context":
        # NvInferRuntime.h, ExecutionContextAllocationStrategy: kSTATIC allocates for the largest profile
        assert strategy.name == "USER_MANAGED"
        return Context(self._said)

    def create_engine_inspector(self) -> "Inspector":
        return Inspector(self._said)


class Context:
    def __init__(self, said: Mapping[str, Any]) -> None:
        self._said = said
        self.active_optimization_profile = 0
        self.shapes: dict[str, tuple[int, ...]] = {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.active_optimization_profile, self.shapes = profile, {}  # the header: shapes must be set again
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        low, _, high = self._said["profiles"][self.active_optimization_profile][name]
        if not low[0] <= shape[0] <= high[0]:
            return False
        self.shapes[name] = tuple(shape)
        return True


class Inspector:
    execution_context: Context | None = None

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._said = said

    def get_engine_information(self, form: Any) -> str:
        assert form.name == "JSON"
        context = self.execution_context
        whole = context is not None and context.shapes.keys() == set(self._said["inputs"])
        return json.dumps(self._said["shown" if whole else "hidden"])
