"""Check of the work that a library adds to a CUDA graph during its capture: may it be launched again?

Each launch of a graph reads the host memory of its copies again, and calls its host functions again. A library that
expects its work to run once may free this memory after its call, or in the host function: a later launch would then
read other data, or free the memory twice.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.driver import bindings
from glam_deploy.gpu.device.stream import Stream

DEVICE_COPY = "MEMCPY within device memory"
HOST_COPY = "MEMCPY from or to host memory"
REPEATABLE = frozenset({"KERNEL", "MEMSET", "EMPTY", DEVICE_COPY})
"""Types of nodes that use neither host memory nor memory that the graph itself allocates (CUgraphNodeType)."""


@contextmanager
def only_repeatable(stream: Stream, *, of: str) -> Iterator[None]:
    """Context for a call of a library while `stream` is capturing.

    `of`: the library, for the message. Raises BackendRunError if the call has added other nodes than kernels, memsets
    and copies within device memory; the capture is then to be abandoned.
    """
    before = {int(node) for node in _nodes(stream)}
    yield
    added = [_kind(stream, node) for node in _nodes(stream) if int(node) not in before]
    if other := Counter(kind for kind in added if kind not in REPEATABLE):
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(other.items()))
        raise BackendRunError(
            f"{of} has recorded work that may not be launched again, because it may use host memory that is freed: "
            f"{listed} (of {len(added)} nodes)"
        )


def _nodes(stream: Stream) -> list[Any]:
    """Nodes that the capture of a stream has so far; none if the capture was invalidated, which its end reports."""
    _, _, graph, *_ = stream.context.call("cuStreamGetCaptureInfo", stream.handle)
    if not int(graph):
        return []
    _, count = stream.context.call("cuGraphGetNodes", graph)
    nodes: list[Any] = stream.context.call("cuGraphGetNodes", graph, count)[0]
    return nodes


def _kind(stream: Stream, node: Any) -> str:
    """Type of a node (CUgraphNodeType without its prefix); for a copy DEVICE_COPY or HOST_COPY."""
    name = stream.context.call("cuGraphNodeGetType", node).name.removeprefix("CU_GRAPH_NODE_TYPE_")
    if name != "MEMCPY":
        return str(name)
    copy = stream.context.call("cuGraphMemcpyNodeGetParams", node)
    ends = ((copy.srcMemoryType, copy.srcDevice), (copy.dstMemoryType, copy.dstDevice))
    return DEVICE_COPY if all(_on_device(stream, kind, address) for kind, address in ends) else HOST_COPY


def _on_device(stream: Stream, kind: Any, address: Any) -> bool:
    types = bindings().CUmemorytype
    if kind == types.CU_MEMORYTYPE_UNIFIED:  # the driver finds the type from the address when it copies
        attribute = bindings().CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE
        kind = stream.context.call("cuPointerGetAttribute", attribute, address, unless="CUDA_ERROR_INVALID_VALUE")
    return bool(kind == types.CU_MEMORYTYPE_DEVICE)
