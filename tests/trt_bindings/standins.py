"""What the made-up libraries of other tests offer, so that it can be held against the real bindings."""

import inspect
from collections.abc import Mapping
from types import FunctionType, ModuleType

from support import tensorrt as support_tensorrt
from support import tensorrt_network as support_tensorrt_network
from support import tensorrt_runtime as support_tensorrt_runtime

from trt_bindings.offer import Arity, Offer

STANDS_FOR: Mapping[str, str] = {
    "Config": "IBuilderConfig",
    "Context": "IExecutionContext",
    "ConvolutionLayer": "IConvolutionLayer",
    "CudaEngine": "ICudaEngine",
    "Engine": "ICudaEngine",
    "ExecutionContext": "IExecutionContext",
    "Inspector": "EngineInspector",
    "Layer": "ILayer",
    "Logger": "ILogger",
    "Monitor": "IProgressMonitor",
    "Network": "INetworkDefinition",
    "Profile": "IOptimizationProfile",
    "RuntimeConfig": "IRuntimeConfig",
    "TimingCache": "ITimingCache",
}
"""Where the name is not that of the real class."""
OF_RTX: Mapping[str, str] = {"RtxExecutionContext": "IExecutionContext", "RtxRuntimeConfig": "IRuntimeConfig"}
"""With names that only TensorRT-RTX has."""
NO_CLASS_OF_THEIRS = {"Behaviour", "Faults"}
MODULES: tuple[ModuleType, ...] = (support_tensorrt, support_tensorrt_network, support_tensorrt_runtime)
UNBOUNDED = 99


def made_up(*, rtx: bool) -> dict[str, tuple[str, type]]:
    """Name in its file -> the real class's name, the class; those of TensorRT-RTX only where asked for."""
    found = {}
    for module in MODULES:
        for name, kind in vars(module).items():
            if not inspect.isclass(kind) or kind.__module__ != module.__name__ or issubclass(kind, int):
                continue
            if name in NO_CLASS_OF_THEIRS or name.startswith("_") or (name in OF_RTX and not rtx):
                continue
            found[f"{module.__name__}.{name}"] = ({**STANDS_FOR, **OF_RTX}.get(name, name), kind)
    return found


def beyond(offer: Offer, *, rtx: bool) -> list[str]:
    """What the made-up classes have or take, and the real ones do not."""
    wrong = []
    for place, (real, kind) in made_up(rtx=rtx).items():
        if real not in offer.classes:
            wrong.append(f"{place}: the bindings have no {real}; say in STANDS_FOR which class it stands for")
            continue
        for name, value in _offered(kind).items():
            overloads = offer.classes[real].get(name)
            if overloads is None:
                wrong.append(f"{place}.{name}: {real} has no such name")
            elif isinstance(value, FunctionType) and not any(_within(_arity(value), tuple(o)) for o in overloads):
                wrong.append(f"{place}.{name}: takes {_arity(value)} arguments, the real one {overloads}")
    return wrong


def _offered(kind: type) -> dict[str, object]:
    """Methods, properties and constants; what a test may look at lies in instances."""
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


def _arity(function: FunctionType) -> Arity:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return len(parameters) - 1, UNBOUNDED
    return sum(p.default is p.empty for p in parameters), len(parameters)


def _within(made: Arity, real: tuple[int, ...]) -> bool:
    return real[0] <= made[0] and made[1] <= real[1]
