"""Whether an engine computes in the precision that it is called: what its layer report says of each convolution.

Networks are strongly typed, so the types of the parsed network bind the builder (`builder.require_typed`). The report
is the second evidence: it can confirm and it can contradict. A type that it does not give counts neither way, because
releases differ in what they print; see `report`.

The weight of a convolution is its multiply-adds, so that one large layer in the wrong type is not hidden by many small
ones.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import floor
from pathlib import Path

from glam_deploy.errors import BackendBuildError
from glam_deploy.gpu.engines.tensorrt.report import Layer, Operand, read_report
from glam_deploy.networks import Stage
from glam_deploy.precision import Precision

MINIMUM_SHARE: Mapping[Precision, float] = {"fp32": 1.0, "fp16": 0.95, "bf16": 0.95}
"""Share of the convolutions' arithmetic that the report must not contradict; below it the engine is refused.

Half precisions: a layer whose line is misread must not refuse the engine, and one layer of the global graph has up to
6.9 % of its arithmetic. FP32: strong typing leaves no way to a single layer in half precision.
"""

NO_OPERAND = frozenset({"bool", "int32", "int64", "uint8"})
"""Types of shapes and indices: an input of such a type says nothing of the arithmetic."""


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A convolution of the network before it was built."""

    name: str
    """Of its ONNX node."""
    weights: int
    """Elements of its kernel tensor."""
    multiply_adds: int
    """For a batch of one."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a report says of a network's convolutions, in shares of their multiply-adds, 0..1; the rest is unknown."""

    confirmed: float
    """The type of the kernel is known and no operand is of another type."""
    contradicted: float
    """A kernel or an input is of another type."""

    @property
    def uncontradicted(self) -> float:
        """Confirmed or unknown."""
        return 1 - self.contradicted

    @property
    def is_whole(self) -> bool:
        """A type is known of every convolution."""
        return self.confirmed + self.contradicted > 1 - 1e-9


def weigh(
    convolutions: Sequence[Convolution], layers: Sequence[Layer], precision: Precision, *, float_inputs: Iterable[str]
) -> Evidence:
    """What the layers say of the convolutions.

    A convolution is confirmed where the type of its kernel is known and no known type of an operand is another than
    `precision`, and contradicted where one is. Operands are the kernel, and activations of more than one element:
    scalars, biases and scales may have any type. `float_inputs` are the engine's own inputs, which are float32 in every
    precision: a layer that reads one and converts it on the way still computes in `precision`.
    """
    total = sum(convolution.multiply_adds for convolution in convolutions)
    given = frozenset(float_inputs)
    confirmed = contradicted = 0
    for convolution in convolutions:
        kernels, inputs = _types(convolution, layers, given)
        if (kernels | inputs) - {precision}:
            contradicted += convolution.multiply_adds
        elif kernels:
            confirmed += convolution.multiply_adds
    return Evidence(confirmed=confirmed / total, contradicted=contradicted / total)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of all forms of an engine's report: nothing contradicts its precision."""

    share: float | None
    """Of the multiply-adds, what is confirmed, 0..1; None where nothing is, and where there is no convolution."""
    unconfirmed: str | None
    """The text of the reports where they confirm less than MINIMUM_SHARE; else None."""


def judge(
    stage: Stage,
    precision: Precision,
    convolutions: Sequence[Convolution],
    reports: Iterable[str],
    *,
    float_inputs: Iterable[str],
) -> Verdict:
    """Read the forms of a report one after the other, until a type is known of each convolution.

    A text that cannot be read gives no type. Raises BackendBuildError where they contradict the precision.
    """
    if not convolutions:
        return Verdict(share=None, unconfirmed=None)
    texts: list[str] = []
    known: list[Layer] = []
    found = Evidence(confirmed=0, contradicted=0)
    for text in reports:
        texts.append(text)
        with suppress(BackendBuildError):
            known += read_report(text)
        found = weigh(convolutions, known, precision, float_inputs=float_inputs)
        if found.is_whole:
            break
    report = "\n\n".join(texts)
    require(stage, precision, found.uncontradicted, report=report)
    enough = found.confirmed >= MINIMUM_SHARE[precision]
    return Verdict(share=found.confirmed or None, unconfirmed=None if enough else report)


def share(
    convolutions: Sequence[Convolution], layers: Sequence[Layer], precision: Precision, *, float_inputs: Iterable[str]
) -> float:
    """Share of the convolutions' multiply-adds, 0..1, that the report does not contradict: what `require` takes."""
    return weigh(convolutions, layers, precision, float_inputs=float_inputs).uncontradicted


def require(stage: Stage, precision: Precision, found: float, *, report: str = "") -> None:
    """Raises BackendBuildError where the report contradicts too much of the convolutions' arithmetic.

    `found`: share of their multiply-adds that it does not contradict, 0..1. The text of the report is kept in a file
    of the system's folder for temporary files, which the error names.
    """
    if found < MINIMUM_SHARE[precision]:
        raise BackendBuildError(
            f"{stage} graph: the engine was to compute in {precision}, but by its own layer report only "
            f"{percent(found)} of the multiply-adds of its convolutions do; {MINIMUM_SHARE[precision]:.0%} are "
            f"expected. It was not kept. {_kept(stage, precision, report)}Build another precision or with another "
            f"library (--flavour), or run with --engine onnx-cuda, which needs no build."
        )


def _kept(stage: Stage, precision: Precision, report: str) -> str:
    if not report:
        return ""
    file = Path(tempfile.mkdtemp(prefix="glam-deploy-")) / f"{stage}.{precision}.layers.txt"
    file.write_text(report, "utf-8")
    return f"Its report is kept in {file}: please attach it to an issue about this. "


def percent(share: float) -> str:
    """Rounded down to a tenth, so that 100.0% is all of it."""
    return f"{floor(share * 1000 + 1e-9) / 10:.1f}%"


# the operands of a convolution

PARTS = 8
"""A kernel that is split among layers has no more parts: what is smaller than one is a bias or a scale."""


def _types(
    convolution: Convolution, layers: Sequence[Layer], float_inputs: frozenset[str]
) -> tuple[set[str], set[str]]:
    """Known types of kernels and of activations, in all layers that do a convolution: one or more for each profile."""
    doing = _doing(convolution, layers)
    kernels = {kernel.type for layer in doing for kernel in _kernels(layer, convolution)}
    inputs = {o.type for layer in doing for o in _activations(layer, convolution) if o.name not in float_inputs}
    return {kind for kind in kernels if kind}, {kind for kind in inputs if kind} - NO_OPERAND


def _doing(convolution: Convolution, layers: Sequence[Layer]) -> list[Layer]:
    """Layers that only move its input name the same node: those that hold its kernel are the ones, where any does."""
    naming = [layer for layer in layers if layer.does(convolution.name) and layer.kind != "Reformat"]
    return [layer for layer in naming if _kernels(layer, convolution)] or naming


def _kernels(layer: Layer, convolution: Convolution) -> list[Operand]:
    """Constants that can be its kernel: of its size, else larger, for a library may pad a kernel, else a part of it."""
    if layer.kernel and not layer.kernel.elements:
        return [layer.kernel]
    listed = [layer.kernel] if layer.kernel else []
    constants = [*listed, *layer.constants, *(o for o in layer.inputs if _is_constant(o, layer))]
    return (
        [o for o in constants if o.elements == convolution.weights]
        or [o for o in constants if o.elements > convolution.weights]
        or [o for o in constants if _is_part(o, convolution)]
    )


def _activations(layer: Layer, convolution: Convolution) -> list[Operand]:
    """Inputs of more than one element that are no constants; without a dynamic axis, those too large for a bias."""
    inputs = [o for o in layer.inputs if o.elements > 1 and not _is_constant(o, layer)]
    return [o for o in inputs if o.dynamic or _is_part(o, convolution)]


def _is_part(operand: Operand, convolution: Convolution) -> bool:
    return operand.elements > 1 and operand.elements * PARTS >= convolution.weights


def _is_constant(operand: Operand, layer: Layer) -> bool:
    """Myelin lists constants of release 10 among the inputs. Every activation has a dynamic batch where one has."""
    return operand.is_named_constant or (not operand.dynamic and any(o.dynamic for o in layer.inputs))
