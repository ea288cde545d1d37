"""Every name of TensorRT's Python bindings that this package uses, and whether a module of bindings has it.

The table was read in the bindings 10.13.2.6, 11.0.0.114 and 11.4.0.106 and in those of TensorRT-RTX 1.7.1.116. A
name that is used newly must be added here: `make bindings-test` and the tests find names that are missing.

Signatures are those that pybind11 puts into the docstrings, with `plain` applied.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Names = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Names that a module must have."""

    methods: Names
    """Class -> what it must take and give; several lines of one name are overloads that are all used."""
    properties: Names
    """Class -> "name: type" for what is read, "name = type" for what is set."""
    enums: Names
    """Enum -> members."""


COMMON = Part(
    methods={
        "Builder": (
            "__init__(logger: ILogger) -> None",
            "create_network(flags: int = 0) -> INetworkDefinition",
            "create_builder_config() -> IBuilderConfig",
            "create_optimization_profile() -> IOptimizationProfile",
            "build_serialized_network(network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory",
        ),
        "INetworkDefinition": (
            "unmark_output(tensor: ITensor) -> None",
            "get_input(index: int) -> ITensor",
            "get_output(index: int) -> ITensor",
            "get_layer(index: int) -> ILayer",
            "get_flag(flag: NetworkDefinitionCreationFlag) -> bool",
        ),
        "ILayer": ("get_input(index: int) -> ITensor", "get_output(index: int) -> ITensor"),
        "OnnxParser": (
            "__init__(network: INetworkDefinition, logger: ILogger) -> None",
            "parse(model: buffer, path: str = None) -> bool",
            "get_error(index: int) -> IParserError",
        ),
        "ParserError": ("desc() -> str",),
        "IBuilderConfig": (
            "clear_flag(flag: BuilderFlag) -> None",
            "set_flag(flag: BuilderFlag) -> None",
            "add_optimization_profile(profile: IOptimizationProfile) -> int",
            "create_timing_cache(serialized_timing_cache: buffer) -> ITimingCache",
            "set_timing_cache(cache: ITimingCache, ignore_mismatch: bool) -> bool",
        ),
        "IOptimizationProfile": ("set_shape(input: str, min: Dims, opt: Dims, max: Dims) -> None",),
        "ITimingCache": ("serialize() -> IHostMemory",),
        "IProgressMonitor": (
            "__init__() -> None",
            "phase_start(phase_name: str, parent_phase: str, num_steps: int) -> None",
            "step_complete(phase_name: str, step: int) -> bool",
            "phase_finish(phase_name: str) -> None",
        ),
        "ILogger": ("__init__() -> None", "log(severity: Severity, msg: str) -> None"),
        "Runtime": (
            "__init__(logger: ILogger) -> None",
            "deserialize_cuda_engine(serialized_engine: buffer) -> ICudaEngine",
        ),
        "ICudaEngine": (
            "get_tensor_name(index: int) -> str",
            "get_tensor_mode(name: str) -> TensorIOMode",
            "get_tensor_dtype(name: str) -> DataType",
            "get_tensor_shape(name: str) -> Dims",
            "get_tensor_profile_shape(name: str, profile_index: int) -> list[Dims]",
            "get_device_memory_size_for_profile_v2(profile_index: int) -> int",
            "create_engine_inspector() -> EngineInspector",
            "create_runtime_config() -> IRuntimeConfig",
            "create_execution_context(strategy: ExecutionContextAllocationStrategy = STATIC) -> IExecutionContext",
            "create_execution_context(runtime_config: IRuntimeConfig = None) -> IExecutionContext",
        ),
        "EngineInspector": ("get_engine_information(format: LayerInformationFormat) -> str",),
        "IRuntimeConfig": (
            "set_execution_context_allocation_strategy(strategy: ExecutionContextAllocationStrategy = STATIC) -> None",
        ),
        "IExecutionContext": (
            "set_optimization_profile_async(profile_index: int, stream_handle: int) -> bool",
            "update_device_memory_size_for_shapes() -> int",
            "set_device_memory(memory: int, size: int) -> None",
            "set_input_shape(name: str, shape: tuple) -> bool",
            "set_input_shape(name: str, shape: Dims) -> bool",
            "set_tensor_address(name: str, memory: int) -> bool",
            "execute_async_v3(stream_handle: int) -> bool",
        ),
    },
    properties={
        "INetworkDefinition": ("num_inputs: int", "num_outputs: int", "num_layers: int"),
        "ILayer": ("type: LayerType", "name: str"),
        "IConvolutionLayer": ("kernel_size_nd: Dims", "num_output_maps: int", "num_groups: int", "kernel: object"),
        "ITensor": ("name: str", "dtype: DataType", "shape: Dims"),
        "OnnxParser": ("num_errors: int",),
        "IBuilderConfig": ("profiling_verbosity = ProfilingVerbosity", "progress_monitor = IProgressMonitor"),
        "Runtime": ("engine_host_code_allowed = bool",),
        "ICudaEngine": ("num_io_tensors: int", "num_optimization_profiles: int"),
        "EngineInspector": ("execution_context = IExecutionContext",),
        "IExecutionContext": ("active_optimization_profile: int",),
    },
    enums={
        "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
        "BuilderFlag": ("TF32",),
        "ProfilingVerbosity": ("DETAILED",),
        "LayerInformationFormat": ("JSON",),
        "LayerType": ("CONVOLUTION",),
        "DataType": ("FLOAT", "HALF", "BF16", "INT64"),
        "TensorIOMode": ("INPUT", "OUTPUT"),
        "ExecutionContextAllocationStrategy": ("USER_MANAGED",),
    },
)
"""Names of both libraries."""

RTX = Part(
    methods={
        "IBuilderConfig": ("set_compute_capability(compute_capability: ComputeCapability, index: int) -> bool",),
        "IRuntimeConfig": (
            "create_runtime_cache() -> IRuntimeCache",
            "set_runtime_cache(cache: IRuntimeCache = None) -> bool",
        ),
        "IExecutionContext": ("is_stream_capturable(stream: int) -> bool",),
    },
    properties={
        "IBuilderConfig": ("num_compute_capabilities = int",),
        "IRuntimeConfig": (
            "cuda_graph_strategy = CudaGraphStrategy",
            "dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy",
        ),
    },
    enums={
        "BuilderFlag": ("REQUIRE_USER_ALLOCATION",),
        "ComputeCapability": ("CURRENT", "SM80"),
        "CudaGraphStrategy": ("DISABLED",),
        "DynamicShapesKernelSpecializationStrategy": ("EAGER",),
    },
)
"""Names of TensorRT-RTX alone; the code looks for these before it uses them."""

LOOKED_FOR: Names = {"BuilderFlag": ("FP16",)}
"""Names that are looked for only to find out which kind of library this is; any may be absent."""

DTYPES: Mapping[str, str] = {"FLOAT": "float32", "HALF": "float16", "INT64": "int64"}
"""DataType -> numpy's name of what `nptype` must make of it."""

SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
"""Of ILogger, worst first."""


def differences(trt: Any, *, rtx: bool) -> list[str]:
    """Names that a module of bindings lacks or has in another form; empty where it has all of them."""
    parts = (COMMON, RTX) if rtx else (COMMON,)
    found = [line for part in parts for line in _of_part(trt, part)]
    return [*found, *_of_types(trt)]


def signatures(documented: str | None) -> set[str]:
    """Every overload that a docstring of pybind11 names, as `plain` writes them."""
    lines = (re.sub(r"^\d+\. ", "", line.strip()) for line in (documented or "").splitlines())
    return {plain(line) for line in lines if re.match(r"\w+\(.*\) -> ", line) and "*args" not in line}


def plain(signature: str) -> str:
    """Without `self`, modules and the words that differ between releases of pybind11 for the same types."""
    short = re.sub(r"\bself: [\w.:]+(, )?", "", signature)
    short = re.sub(r"<\w+\.(\w+): \d+>", r"\1", short)  # a default value of an enum
    for written, meant in (("typing.SupportsInt", "int"), ("typing_extensions.Buffer", "buffer"), ("List[", "list[")):
        short = short.replace(written, meant)
    return re.sub(r"\b(?:\w+(?:\.|::))+(?=\w)", "", short)


def _of_part(trt: Any, part: Part) -> Iterator[str]:
    for name, wanted in part.methods.items():
        for signature in wanted:
            method = signature.partition("(")[0]
            found = signatures(getattr(getattr(trt, name, None), method, None).__doc__)
            if signature not in found:
                yield f"{name}.{signature}: found {' and '.join(sorted(found)) or 'nothing of that name'}"
    for name, wanted in part.properties.items():
        for line in wanted:
            if (found_one := _property(getattr(trt, name, None), line)) != line:
                yield f"{name}.{line}: found {found_one or 'nothing of that name'}"
    for name, wanted in part.enums.items():
        members = getattr(getattr(trt, name, None), "__members__", {})
        yield from (f"{name}.{member}: not there" for member in wanted if member not in members)


def _property(owner: Any, line: str) -> str:
    """The property of an owner in the form of `line`."""
    name, sign, _ = re.split(r"( = |: )", line, maxsplit=1)
    found = getattr(owner, name, None)
    if not isinstance(found, property):
        return ""
    half = found.fset if sign == " = " else found.fget
    text = plain((half.__doc__ if half else None) or "").strip()
    pattern = r"arg1: (\S+)\)" if sign == " = " else r"-> (\S+)$"
    match = re.search(pattern, text)
    return f"{name}{sign}{match[1]}" if match else ""


def _of_types(trt: Any) -> Iterator[str]:
    for name, wanted in DTYPES.items():
        try:
            found = trt.nptype(getattr(trt.DataType, name)).__name__
        except (AttributeError, TypeError) as error:
            found = str(error)
        if found != wanted:
            yield f"nptype(DataType.{name}): {wanted} expected, found {found}"
    severities = getattr(getattr(trt, "ILogger", None), "Severity", None)
    members = getattr(severities, "__members__", {})
    if sorted(members, key=lambda member: int(members[member])) != list(SEVERITIES):
        yield f"ILogger.Severity: {', '.join(SEVERITIES)} expected, found {', '.join(members)}"
    yield from (f"ILogger.{name}: not there" for name in SEVERITIES if not hasattr(trt.ILogger, name))
    if not str(getattr(trt, "__version__", "")):
        yield "__version__: not there"
