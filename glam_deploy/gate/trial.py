"""One image through the candidate's and the reference's pipeline, and all that the gate keeps of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from glam_deploy.agreement.answers import Answer, answer
from glam_deploy.agreement.image import ImageAgreement, compare_answers, on_reference_patches
from glam_deploy.agreement.limits import Limits
from glam_deploy.bundle import CHECKPOINT_FILE, Bundle
from glam_deploy.engines.base import Engine, EngineOptions, OpenedEngines
from glam_deploy.engines.registry import AUTO, OWNERS, open_engines
from glam_deploy.engines.selection import check_asked, open_asked
from glam_deploy.errors import BackendError, BackendRunError, UsageError
from glam_deploy.gate.ground_truth import Mask, classes_in, ground_truth_dice
from glam_deploy.networks import NetworkSpec
from glam_deploy.records import Mammogram, NetworkInput
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Result
from glam_deploy.runtime.session import bundle_provenance

Image = Mammogram | NetworkInput
FLAT = "no-contrast"


class ReferenceFailed(BackendError):
    """The reference engine failed, so that the candidate cannot be compared with it."""

    exit_code = BackendRunError.exit_code


@dataclass(frozen=True, kw_only=True)
class EnginePair:
    """The candidate and the reference pipeline that a gate compares. The candidate needs no passed gate here."""

    network: NetworkSpec
    reference: Pipeline
    candidate: Pipeline
    local: Engine
    """The candidate's local stage, which is also run on the reference's patches."""
    onnx: Pipeline | None = None
    """The engine "onnx" with the candidate's threads, to be timed beside it; None where it is the candidate."""


@dataclass(frozen=True, kw_only=True)
class ImageTrial:
    """What a gate keeps of one image."""

    image: str
    agreement: ImageAgreement
    flat: tuple[bool, bool]
    """Whether a class's global map had no contrast: (candidate, reference)."""
    positive: Mapping[str, bool] | None
    """Class -> whether the mask has it; None without mask."""
    ground_truth: Mapping[str, tuple[tuple[float, float], ...]]
    """Class in the mask -> for each threshold (candidate, reference) Dice of the fused map against it."""
    latency_ms: float
    """From the standardized image to scores and maps, the candidate's."""
    onnx_ms: float | None = None
    """The same of the engine "onnx", right after it; None where that was not timed."""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, as gate.json holds it."""
        row = asdict(self)
        ground_truth, agreement = row.pop("ground_truth"), row.pop("agreement")
        return {**row, **agreement, "truth": ground_truth, "lowest": self.agreement.lowest}


@dataclass(frozen=True, kw_only=True)
class Examined:
    """One image, with all that a picture of it shows."""

    network: NetworkSpec
    trial: ImageTrial
    reference: Result
    candidate: Answer


def open_pair(
    bundle: Bundle, engine: str, *, reference: str | None, patches: int, options: EngineOptions
) -> EnginePair:
    """The pipelines of a bundle's candidate and reference.

    `reference`: an engine's name; None takes "torch" where it is installed and the bundle has the weights, else "onnx".
    Raises UsageError where the candidate is the reference, and what opening engines raises.
    """
    name = _other_name(bundle, engine, reference)
    opened, on_cpu = open_asked(engine, bundle, options), EngineOptions(threads=options.threads)

    def pipeline(engines: OpenedEngines) -> Pipeline:
        return Pipeline(engines, patches=patches, provenance=bundle_provenance(bundle))

    other = pipeline(open_engines(name, bundle, on_cpu))
    return EnginePair(
        network=bundle.network,
        reference=other,
        candidate=pipeline(opened),
        local=opened.engines["local"],
        onnx=other if name == AUTO else None if engine == AUTO else pipeline(open_engines(AUTO, bundle, on_cpu)),
    )


def check_pair(bundle: Bundle, engine: str, *, reference: str | None, options: EngineOptions) -> None:
    """Raises as `open_pair`, as far as that is known before an engine is opened."""
    name = _other_name(bundle, engine, reference)
    check_asked(engine, bundle, options)
    check_asked(name, bundle, EngineOptions(threads=options.threads))


def _other_name(bundle: Bundle, engine: str, reference: str | None) -> str:
    name = reference or reference_name(bundle)
    if name == engine:
        raise UsageError(f"engine {engine!r} cannot be compared with itself; name another --reference")
    return name


def reference_name(bundle: Bundle) -> str:
    """The engine that is the reference where none is named."""
    return "torch" if CHECKPOINT_FILE in bundle.files and not OWNERS["torch"].missing else "onnx"


def examine(pair: EnginePair, image: Image, mask: Mask | None, limits: Limits, *, timed: bool = False) -> Examined:
    """Run the candidate and the reference, and the engine "onnx" too where `timed`, and compare.

    Raises InputError for an image that cannot be used, BackendRunError where the candidate fails, and ReferenceFailed
    where the reference fails, which is not a failure of the candidate.
    """
    reference, result = _reference(pair, image), pair.candidate(image)
    expected, found = answer(reference), answer(result)
    forced = on_reference_patches(pair.local, reference.network_input.image, found, expected)
    trial = ImageTrial(
        image=reference.input.source.name,
        agreement=compare_answers(found, expected, pair.network, limits, forced=forced),
        flat=(_flat(result), _flat(reference)),
        positive=None if mask is None else classes_in(mask, pair.network),
        ground_truth={} if mask is None else _against_ground_truth(result, reference, mask, pair.network),
        latency_ms=_latency_ms(result),
        onnx_ms=_onnx_ms(pair, reference, image) if timed else None,
    )
    return Examined(network=pair.network, trial=trial, reference=reference, candidate=found)


def _reference(pair: EnginePair, image: Image) -> Result:
    try:
        return pair.reference(image)
    except BackendRunError as error:
        raise ReferenceFailed(
            f"the reference itself failed, so nothing can be compared and no verdict is stored: {error} Check the "
            f"bundle with `glam-deploy verify`, or name another --reference."
        ) from error


def _onnx_ms(pair: EnginePair, reference: Result, image: Image) -> float | None:
    if pair.onnx is None:
        return None
    return _latency_ms(reference if pair.onnx is pair.reference else pair.onnx(image))


def _latency_ms(result: Result) -> float:
    return sum(ms for step, ms in result.timings_ms.items() if step != "preprocess")


def _flat(result: Result) -> bool:
    return any(notice.code == FLAT for notice in result.notices)


def _against_ground_truth(
    result: Result, reference: Result, mask: Mask, network: NetworkSpec
) -> dict[str, tuple[tuple[float, float], ...]]:
    candidate, expected = (ground_truth_dice(each, mask, network) for each in (result, reference))
    return {name: tuple(zip(candidate[name], expected[name], strict=True)) for name in expected}
