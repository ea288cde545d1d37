"""The layer report of an engine as its inspector gives it, in JSON.

Source: NvInferRuntime.h, `IEngineInspector::setExecutionContext`: formats of tensors with a dynamic shape are told only
with an execution context in which the shapes of all inputs are set; docs.nvidia.com, "Engine Inspector".
"""

from collections.abc import Iterator
from typing import Any


def reports(trt: Any, engine: Any) -> Iterator[str]:
    """Without an execution context, then with one for each optimization profile, at the batch that it is made for.

    The GPU of the engine is the current one. A context that the library does not make, or that does not take the
    shapes, gives no report; the library's log has the reason.
    """
    inspector = engine.create_engine_inspector()
    yield str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    for profile in range(engine.num_optimization_profiles):
        # its memory is the caller's, who gives none, because nothing is run
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is not None and _shaped(trt, engine, context, profile):
            inspector.execution_context = context
            yield str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _shaped(trt: Any, engine: Any, context: Any, profile: int) -> bool:
    """Set a profile, on the default stream, and the shapes that its kernels were chosen for."""
    if context.active_optimization_profile != profile and not context.set_optimization_profile_async(profile, 0):
        return False
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    return all(context.set_input_shape(name, engine.get_tensor_profile_shape(name, profile)[1]) for name in inputs)
