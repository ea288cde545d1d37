"""What the stages of an engine compute in: how provenance["precision"] is written and read.

One kind for all stages ("fp32", "int8+bf16"), or a list of them ("global int8, local bf16, fusion fp32"). A kind names
the type of the convolutions and, after a plus, what the rest is computed in; "winograd" is a form of FP32.
"""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from glam_deploy.errors import InternalError
from glam_deploy.networks import STAGES, Stage
from glam_deploy.precision import Precision

COARSEST_FIRST: tuple[Precision, ...] = ("int8", "bf16", "fp16", "fp32")
"""By the size of one rounding."""
_FORMS: Mapping[str, Precision] = {"winograd": "fp32"}


def in_words(kinds: Mapping[Stage, str]) -> str:
    """Of an engine whose stages are not of one kind."""
    return ", ".join(f"{stage} {kind}" for stage, kind in kinds.items())


def by_stage(precision: str) -> Mapping[Stage, Precision]:
    """Stage -> the coarsest type that it computes in. Raises InternalError for what no engine writes."""
    named = dict(part.split(" ", 1) for part in precision.split(", ") if " " in part)
    kinds = {stage: named.get(stage, "") if named else precision for stage in STAGES}
    return {stage: _coarsest_of_kind(kind, precision) for stage, kind in kinds.items()}


def coarsest(precisions: Iterable[Precision]) -> Precision:
    """Of at least one."""
    return min(precisions, key=COARSEST_FIRST.index)


def _coarsest_of_kind(kind: str, precision: str) -> Precision:
    types = [_FORMS.get(name, name) for name in kind.split("+")]
    if unknown := [name for name in types if name not in get_args(Precision)]:
        raise InternalError(f"the engine's precision is {precision!r}; {unknown[0]!r} is none of {COARSEST_FIRST}")
    return coarsest(types)  # type: ignore[arg-type]


def uses_winograd(provenance: Mapping[str, Any], stage: Stage) -> bool:
    """Whether an engine computes a stage in Winograd's form, which only the local graph comes in."""
    if stage != "local":
        return False
    kinds = dict(part.split(" ", 1) for part in str(provenance.get("precision")).split(", ") if " " in part)
    return str(provenance.get("name")).endswith("-winograd") or "winograd" in kinds.get(stage, "")
