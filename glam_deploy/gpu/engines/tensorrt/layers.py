"""Check of an engine's precision with its layer report, which has the types of each convolution.

Networks are strongly typed, so the builder must use the types of the parsed network (`builder.require_typed`). The
report is additional evidence: it can confirm or contradict a type. A type that is missing in the report counts as
unknown, because the content of reports differs between releases; see `report`.

Convolutions are weighted by their multiply-adds, so that many small layers cannot hide a large one of a wrong type.
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
"""Minimum share of the convolutions' multiply-adds that the report must not contradict; below it the build fails.

FP16 and BF16: one misread line of the report must not fail the build; a layer of the global graph has up to 6.9 % of
the multiply-adds. FP32: strong typing excludes even a single layer in half precision.
"""

NO_OPERAND = frozenset({"bool", "int32", "int64", "uint8"})
"""Types of shapes and indices: an input of such a type does not show the precision of a layer."""


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A convolution of the parsed network."""

    name: str
    """Name of its ONNX node."""
    weights: int
    """Number of elements of its kernel tensor."""
    multiply_adds: int
    """Number of multiply-adds for a batch of one."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Result of comparing a report with a precision, in shares of the multiply-adds, 0..1; the rest is unknown."""

    confirmed: float
    """Share of convolutions whose kernel type is known, with no operand of another type."""
    contradicted: float
    """Share of convolutions with a kernel or input of another type."""

    @property
    def uncontradicted(self) -> float:
        """Share that is confirmed or unknown."""
        return 1 - self.contradicted

    @property
    def is_complete(self) -> bool:
        """Whether no convolution is unknown."""
        return self.confirmed + self.contradicted > 1 - 1e-9


def weigh(
    convolutions: Sequence[Convolution], layers: Sequence[Layer], precision: Precision, *, float_inputs: Iterable[str]
) -> Evidence:
    """Compare the types of the convolutions in the report's `layers` with `precision`.

    A convolution is confirmed if the type of its kernel is known and all known types of its operands are `precision`,
    and contradicted if a known type is another one. Operands are the kernel and activations of more than one element;
    scalars, biases and scales may have any type. `float_inputs`: names of the engine's inputs, which are float32 in
    every precision; a layer that reads and converts one of them still computes in `precision`.
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
    """Result of the precision check of an engine whose reports do not contradict its precision."""

    share: float | None
    """Confirmed share of the multiply-adds, 0..1; None if nothing is confirmed or there is no convolution."""
    unconfirmed: str | None
    """Text of the reports if they confirm less than MINIMUM_SHARE; else None."""


def judge(
    stage: Stage,
    precision: Precision,
    convolutions: Sequence[Convolution],
    reports: Iterable[str],
    *,
    float_inputs: Iterable[str],
) -> Verdict:
    """Read the forms of a report in turn, until the type of each convolution is known.

    Texts that cannot be parsed are ignored. Raises BackendBuildError if the reports contradict the precision.
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
        if found.is_complete:
            break
    report = "\n\n".join(texts)
    require(stage, precision, found.uncontradicted, report=report)
    enough = found.confirmed >= MINIMUM_SHARE[precision]
    return Verdict(share=found.confirmed or None, unconfirmed=None if enough else report)


def share(
    convolutions: Sequence[Convolution], layers: Sequence[Layer], precision: Precision, *, float_inputs: Iterable[str]
) -> float:
    """Share of the convolutions' multiply-adds that the report does not contradict, 0..1; input of `require`."""
    return weigh(convolutions, layers, precision, float_inputs=float_inputs).uncontradicted


def require(stage: Stage, precision: Precision, found: float, *, report: str = "") -> None:
    """Raises BackendBuildError if the report contradicts more than MINIMUM_SHARE allows.

    `found`: share of the multiply-adds that the report does not contradict, 0..1. The text of the report is written to
    a file in the system's temporary folder, whose path is in the message.
    """
    if found < MINIMUM_SHARE[precision]:
        raise BackendBuildError(
            f"{stage} graph: according to the engine's layer report only {percent(found)} of the multiply-adds of its "
            f"convolutions are {precision}, expected {MINIMUM_SHARE[precision]:.0%}. The engine was not stored. "
            f"{_saved(stage, precision, report)}Build another precision or with another library (--flavour), or run "
            f"with --engine onnx-cuda, which needs no build."
        )


def _saved(stage: Stage, precision: Precision, report: str) -> str:
    """Write the report to a temporary file; returns a sentence with its path, empty without a report."""
    if not report:
        return ""
    file = Path(tempfile.mkdtemp(prefix="glam-deploy-")) / f"{stage}.{precision}.layers.txt"
    file.write_text(report, "utf-8")
    return f"The report is in {file}: please attach it to an issue about this. "


def percent(share: float) -> str:
    """Share as a percentage, rounded down to a tenth, so that 100.0% means everything."""
    return f"{floor(share * 1000 + 1e-9) / 10:.1f}%"


# the operands of a convolution

PARTS = 8
"""Maximum number of layers among which a kernel is split; a smaller constant is a bias or a scale."""


def _types(
    convolution: Convolution, layers: Sequence[Layer], float_inputs: frozenset[str]
) -> tuple[set[str], set[str]]:
    """Known types of kernels and of activations in all layers of a convolution (at least one for each profile)."""
    own = _layers_of(convolution, layers)
    kernels = {kernel.type for layer in own for kernel in _kernels(layer, convolution)}
    inputs = {o.type for layer in own for o in _activations(layer, convolution) if o.name not in float_inputs}
    return {kind for kind in kernels if kind}, {kind for kind in inputs if kind} - NO_OPERAND


def _layers_of(convolution: Convolution, layers: Sequence[Layer]) -> list[Layer]:
    """Layers that compute a convolution: those of its ONNX node that have its kernel, else all of the node.

    Layers of the same node without the kernel only copy or reformat the input.
    """
    naming = [layer for layer in layers if layer.does(convolution.name) and layer.kind != "Reformat"]
    return [layer for layer in naming if _kernels(layer, convolution)] or naming


def _kernels(layer: Layer, convolution: Convolution) -> list[Operand]:
    """Constants that can be the kernel: those of its size, else larger ones (padded kernels), else parts of it."""
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
    """Inputs of more than one element that are not constants and, without a dynamic axis, too large for a bias."""
    inputs = [o for o in layer.inputs if o.elements > 1 and not _is_constant(o, layer)]
    return [o for o in inputs if o.dynamic or _is_part(o, convolution)]


def _is_part(operand: Operand, convolution: Convolution) -> bool:
    return operand.elements > 1 and operand.elements * PARTS >= convolution.weights


def _is_constant(operand: Operand, layer: Layer) -> bool:
    """Whether an input is a constant, which Myelin lists among the inputs in release 10.

    If one activation has a dynamic batch axis, all activations have one.
    """
    return operand.is_named_constant or (not operand.dynamic and any(o.dynamic for o in layer.inputs))
