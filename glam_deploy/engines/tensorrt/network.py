"""The parsed network as evidence of the precision: strong typing binds the builder to the types that stand in it.

Sources: NvInfer.h, `NetworkDefinitionCreationFlag::kSTRONGLY_TYPED`, which TensorRT 11 ignores, for every network is
strongly typed there; docs.nvidia.com, "Strongly Typed Networks" and "Migrating from TensorRT 10.x to 11.x".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from glam_deploy.engines.tensorrt.layers import Convolution, percent
from glam_deploy.errors import BackendBuildError
from glam_deploy.networks import Stage
from glam_deploy.precision import Precision


@dataclass(frozen=True, kw_only=True)
class TypedConvolution:
    """A convolution with the types that the network gives it."""

    convolution: Convolution
    types: tuple[str, str, str]
    """Of its input, kernel and output: "fp32", "fp16", "bf16", or the library's own name of another."""


def require_typed(trt: Any, network: Any, stage: Stage, precision: Precision) -> list[Convolution]:
    """The convolutions of a network that is strongly typed, and all of them in `precision`.

    Raises BackendBuildError where it is not, or one of them has an input, kernel or output of another type.
    """
    _require_strong(trt, network, stage)
    found = list(_convolutions(trt, network))
    if wrong := [c for c in found if set(c.types) != {precision}]:
        raise BackendBuildError(_wrong_types(stage, precision, found, wrong))
    return [c.convolution for c in found]


def _require_strong(trt: Any, network: Any, stage: Stage) -> None:
    """Where the builder knows precision flags (release 10), networks are weakly typed unless they are told."""
    if hasattr(trt.BuilderFlag, "FP16") and not network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED):
        raise BackendBuildError(
            f"{stage} graph: the library made a weakly typed network of it, in which a builder may take any precision. "
            f"Please report this with the library's version, {trt.__version__}."
        )


def _wrong_types(
    stage: Stage, precision: Precision, found: Sequence[TypedConvolution], wrong: Sequence[TypedConvolution]
) -> str:
    work = [sum(c.convolution.multiply_adds for c in some) for some in (found, wrong)]
    first = wrong[0]
    return (
        f"{stage} graph: the engine was to compute in {precision}, but in the network only "
        f"{percent((work[0] - work[1]) / work[0])} of the multiply-adds of its convolutions do; 100% are expected. "
        f"{first.convolution.name} has input, kernel and output of type {', '.join(first.types)}. No engine was built. "
        f"Export the checkpoint again with --precision {precision}."
    )


def _convolutions(trt: Any, network: Any) -> Iterator[TypedConvolution]:
    names = {trt.DataType.FLOAT: "fp32", trt.DataType.HALF: "fp16", trt.DataType.BF16: "bf16"}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.CONVOLUTION:
            layer.__class__ = trt.IConvolutionLayer  # the binding hands out the base class
            types = (layer.get_input(0).dtype, _kernel_type(trt, layer), layer.get_output(0).dtype)
            kinds = tuple(names.get(kind, str(kind)) for kind in types)
            yield TypedConvolution(convolution=_convolution(layer), types=(kinds[0], kinds[1], kinds[2]))


def _convolution(layer: Any) -> Convolution:
    taps = prod(layer.kernel_size_nd) * layer.get_input(0).shape[1] // layer.num_groups
    weights = taps * layer.num_output_maps
    return Convolution(name=layer.name, weights=weights, multiply_adds=weights * prod(layer.get_output(0).shape[2:]))


def _kernel_type(trt: Any, layer: Any) -> Any:
    """A kernel that the network computes is the second input. A constant one is an array, or `Weights` in BF16."""
    if (computed := layer.get_input(1)) is not None:
        return computed.dtype
    kind = layer.kernel.dtype
    return {"float32": trt.DataType.FLOAT, "float16": trt.DataType.HALF}.get(getattr(kind, "name", ""), kind)
