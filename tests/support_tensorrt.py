"""A made-up `tensorrt` with the attributes of its release 10 or 11, for what can be installed nowhere.

Its graphs are JSON (`graph`), its engines are JSON too: what they were built with, and the report that the engine
inspector will give. It differs between releases where the real ones do: numbers of enums, flags that are gone, typing
that is weak unless asked for, fields of the inspector's JSON. Anything else that is asked of it is an AttributeError.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import IntEnum
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support_bundles import facts

from glam_deploy.bundle import graph_file, write_manifest
from glam_deploy.engines.tensorrt import flavours, identity, store
from glam_deploy.engines.tensorrt.flavours import FLAVOURS, Library
from glam_deploy.spec import STAGES, Precision, Stage, graph_contract

TYPES: Mapping[Precision, str] = {"fp32": "Float", "fp16": "Half", "bf16": "BFloat16"}


GPU = SimpleNamespace(name="NVIDIA L4", compute_capability="8.9", driver="580.95.05", current=nullcontext)


def install(patch: pytest.MonkeyPatch, **behaviour: Any) -> None:
    """From now on this machine has `GPU`, the made-up TensorRT alone, and a compiler that costs nothing."""
    patch.setitem(sys.modules, "tensorrt", module(**behaviour))
    patch.setattr(flavours, "find_spec", lambda name: ModuleSpec(name, None) if name == "tensorrt" else None)
    patch.setattr(identity, "Gpu", lambda index: GPU)
    patch.setattr(store, "compile_cubin", lambda source, *, architecture, name: architecture.encode())


def fill(folder: Path) -> None:
    """Make a bundle of made-up graphs in fp32 and fp16."""
    (folder / "graphs").mkdir(parents=True)
    for name, content in graphs("fp32", "fp16").items():
        (folder / name).write_bytes(content)
    write_manifest(folder, facts())


def graph(stage: Stage, precision: Precision, **changes: Any) -> bytes:
    """A graph of the contract of `stage` with two convolutions, 9 and 1 parts of the work (none in fusion)."""
    contract = graph_contract(stage, fusion_head=False)
    convolutions = [
        {"name": "node_big", "kernel": [3, 3], "channels": [8, 8], "pixels": [16, 16], "type": TYPES[precision]},
        {"name": "node_small", "kernel": [1, 1], "channels": [8, 8], "pixels": [16, 16], "type": TYPES[precision]},
    ]
    said = {
        "inputs": {name: [t.dtype, [-1, *t.shape]] for name, t in contract.inputs.items()},
        "outputs": {name: [t.dtype, [-1, *t.shape]] for name, t in contract.outputs.items()},
        "convolutions": [] if stage == "fusion" else convolutions,
    }
    return json.dumps(said | changes).encode()


def graphs(*precisions: Precision) -> dict[str, bytes]:
    """Files of a bundle."""
    return {graph_file(stage, precision): graph(stage, precision) for precision in precisions for stage in STAGES}


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


def library(release: int = 11, **behaviour: Any) -> Library:
    """The flavour "tensorrt", imported."""
    return Library(flavour=FLAVOURS["tensorrt"], trt=module(release, **behaviour))


def module(
    release: int = 11, *, stop_after: int | None = None, fails: str = "", computes_in: str = "", warns: str = ""
) -> ModuleType:
    """The module as of a release; `behaviour` is that of `Behaviour`."""
    made = ModuleType("tensorrt")
    made.__spec__ = ModuleSpec("tensorrt", None)
    vars(made).update(
        _contents(release, SimpleNamespace(stop_after=stop_after, fails=fails, computes_in=computes_in, warns=warns))
    )
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
        "ILogger": Logger,
        "IProgressMonitor": Monitor,
        "IConvolutionLayer": ConvolutionLayer,
        "OnnxParser": OnnxParser,
        "Builder": lambda log: Builder(log, old=old, behaviour=behaviour),
        "Runtime": Runtime,
        "nptype": lambda dtype: np.dtype(dtype).type,
    }


def _enum(name: str, **members: int) -> Any:
    return IntEnum(name, members)


class Logger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def log(self, severity: int, message: str) -> None:
        raise NotImplementedError


class Monitor:
    pass


class Layer:
    """The base class, which is all that a network hands out."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.name = said["name"]
        self.type = 0
        self._said = said

    def get_input(self, index: int) -> Any:
        return SimpleNamespace(shape=(-1, self._said["channels"][0], *self._said["pixels"]))

    def get_output(self, index: int) -> Any:
        return SimpleNamespace(shape=(-1, self._said["channels"][1], *self._said["pixels"]))


class ConvolutionLayer(Layer):
    num_groups = 1

    @property
    def kernel_size_nd(self) -> tuple[int, ...]:
        return tuple(self._said["kernel"])

    @property
    def num_output_maps(self) -> int:
        return int(self._said["channels"][1])


class Network:
    def __init__(self, *, strongly_typed: bool) -> None:
        self.strongly_typed = strongly_typed
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.layers: list[Layer] = []
        self.said: Mapping[str, Any] = {}

    num_inputs = property(lambda self: len(self.inputs))
    num_outputs = property(lambda self: len(self.outputs))
    num_layers = property(lambda self: len(self.layers))

    def get_input(self, index: int) -> Any:
        return self.inputs[index]

    def get_output(self, index: int) -> Any:
        return self.outputs[index]

    def get_layer(self, index: int) -> Layer:
        return self.layers[index]

    def unmark_output(self, tensor: Any) -> None:
        self.outputs.remove(tensor)


class OnnxParser:
    def __init__(self, network: Network, log: Logger) -> None:
        self._network = network
        self._errors: list[str] = []

    num_errors = property(lambda self: len(self._errors))

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: self._errors[index])

    def parse(self, content: bytes) -> bool:
        try:
            said = json.loads(content)
        except ValueError:
            self._errors = ["Failed to parse the ONNX model."]
            return False
        self._network.said = said
        self._network.layers = [Layer(convolution) for convolution in said["convolutions"]]
        for kind, tensors in (("inputs", self._network.inputs), ("outputs", self._network.outputs)):
            tensors += [SimpleNamespace(name=n, dtype=d, shape=tuple(shape)) for n, (d, shape) in said[kind].items()]
        return True


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, name: str, *shapes: Sequence[int]) -> None:
        assert len(shapes) == 3
        self.shapes[name] = [list(shape) for shape in shapes]


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
        return memoryview(json.dumps(self._engine(network, config)).encode())

    def _walk(self, monitor: Any) -> bool:
        monitor.phase_start("Building engine", None, 4)
        for step in range(4):
            while self._behaviour.stop_after == step and monitor.step_complete("Building engine", step):
                pass
            if not monitor.step_complete("Building engine", step):
                return False
        monitor.phase_finish("Building engine")
        return True

    def _engine(self, network: Network, config: Config) -> dict[str, Any]:
        return {
            "outputs": [tensor.name for tensor in network.outputs],
            "flags": sorted(config.flags),
            "profiles": [profile.shapes for profile in config.profiles],
            "report": self._report(network, config),
        }

    def _report(self, network: Network, config: Config) -> dict[str, Any]:
        if not config.profiling_verbosity:
            return {"Layers": [layer.name for layer in network.layers]}
        kind = self._behaviour.computes_in or ("" if network.strongly_typed else "Float")
        layers = [_layer(said, kind or said["type"], old=self._old) for said in network.said["convolutions"]]
        names = [tensor.name for tensor in (*network.inputs, *network.outputs)]
        return {"Layers": layers, **({"Bindings": names} if self._old else {"I/O Tensors": []})}


def _layer(said: Mapping[str, Any], kind: str, *, old: bool) -> dict[str, Any]:
    dimensions = [-1, said["channels"][0], *said["pixels"]]
    words = {"Float": "FP32", "Half": "FP16", "BFloat16": "BF16"}[kind]
    kinds = {"Format/Datatype": f"Channel major {words} format"} if old else {"Format": "N/A", "DataType": kind}
    return {
        "Name": f"{said['name']} + relu",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "x", "Dimensions": dimensions, **kinds}],
        "Outputs": [{"Name": "y", "Dimensions": dimensions, **kinds}],
        "Weights": {"Type": kind, "Count": int(np.prod([*said["channels"], *said["kernel"]]))},
        "Bias": {"Type": "Float", "Count": 8},
        "Metadata": f"[ONNX Layer: {said['name']}]\x1f[ONNX Layer: relu]",
    }


class Runtime:
    def __init__(self, log: Logger) -> None:
        pass

    def deserialize_cuda_engine(self, content: bytes) -> Any:
        report = json.loads(content)["report"]

        def information(form: Any) -> str:
            assert form.name == "JSON"
            return json.dumps(report)

        inspector = SimpleNamespace(get_engine_information=information)
        return SimpleNamespace(create_engine_inspector=lambda: inspector)
