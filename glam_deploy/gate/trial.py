"""Runs the candidate and the reference on one image, and compares their results for the gate."""

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
from glam_deploy.gate.ground_truth import GroundTruth, ground_truth_dice
from glam_deploy.networks import NetworkSpec
from glam_deploy.records import Mammogram, NetworkInput
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Result
from glam_deploy.runtime.session import bundle_provenance

Image = Mammogram | NetworkInput
FLAT = "no-contrast"


class ReferenceFailed(BackendError):
    """The reference engine failed, so the candidate cannot be compared with it."""

    exit_code = BackendRunError.exit_code


@dataclass(frozen=True, kw_only=True)
class EnginePair:
    """The candidate and the reference pipeline that a gate compares; the candidate needs no passed gate."""

    network: NetworkSpec
    reference: Pipeline
    candidate: Pipeline
    local: Engine | None
    """The candidate's local stage, which also runs on the reference's patches; None for a network without patches."""
    onnx: Pipeline | None = None
    """The engine "onnx" with the candidate's threads, for comparing times; None if it is the candidate."""


@dataclass(frozen=True, kw_only=True)
class ImageTrial:
    """Comparison results of one image."""

    image: str
    agreement: ImageAgreement
    flat: tuple[bool, bool]
    """Whether the global map of a class has no contrast: (candidate, reference)."""
    positive: Mapping[str, bool | None] | None
    """Class -> whether the image has it, None if that is unknown; None without a mask and labels."""
    ground_truth: Mapping[str, tuple[tuple[float, float], ...]]
    """Class in the mask -> for each threshold the Dice of the fused maps against the mask: (candidate, reference)."""
    latency_ms: float
    """Latency of the candidate from the standardized image to scores and maps."""
    onnx_ms: float | None = None
    """Latency of the engine "onnx", measured immediately afterwards; None if it was not timed."""

    def to_json(self) -> dict[str, Any]:
        """JSON values for gate.json."""
        row = asdict(self)
        ground_truth, agreement = row.pop("ground_truth"), row.pop("agreement")
        return {**row, **agreement, "truth": ground_truth, "lowest": self.agreement.lowest}


@dataclass(frozen=True, kw_only=True)
class Examined:
    """Comparison of one image, with the results for its picture."""

    network: NetworkSpec
    trial: ImageTrial
    reference: Result
    candidate: Answer


def open_pair(
    bundle: Bundle, engine: str, *, reference: str | None, patches: int, options: EngineOptions
) -> EnginePair:
    """Open the candidate and the reference of a bundle.

    `reference`: engine name; None means "torch" if it is installed and the bundle has the weights, else "onnx".
    Raises UsageError if the candidate is the reference, and the errors of opening engines.
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
        local=opened.engines.get("local"),
        onnx=other if name == AUTO else None if engine == AUTO else pipeline(open_engines(AUTO, bundle, on_cpu)),
    )


def check_pair(bundle: Bundle, engine: str, *, reference: str | None, options: EngineOptions) -> None:
    """Raises the errors of `open_pair` that are known before engines are opened."""
    name = _other_name(bundle, engine, reference)
    check_asked(engine, bundle, options)
    check_asked(name, bundle, EngineOptions(threads=options.threads))


def _other_name(bundle: Bundle, engine: str, reference: str | None) -> str:
    name = reference or reference_name(bundle)
    if name == engine:
        raise UsageError(f"engine {engine!r} cannot be compared with itself; choose another --reference")
    return name


def reference_name(bundle: Bundle) -> str:
    """Name of the default reference engine."""
    return "torch" if CHECKPOINT_FILE in bundle.files and not OWNERS["torch"].missing else "onnx"


def examine(
    pair: EnginePair, image: Image, truth: GroundTruth | None, limits: Limits, *, timed: bool = False
) -> Examined:
    """Run the candidate, the reference and, if `timed`, the engine "onnx", and compare the results.

    Raises InputError for an image that cannot be used, BackendRunError if the candidate fails, ReferenceFailed if the
    reference fails, which does not count as a failure of the candidate.
    """
    reference, result = _reference(pair, image), pair.candidate(image)
    expected, found = answer(reference), answer(result)
    forced = on_reference_patches(pair.local, reference.network_input.image, found, expected)
    trial = ImageTrial(
        image=reference.input.source.name,
        agreement=compare_answers(found, expected, pair.network, limits, forced=forced),
        flat=(_flat(result), _flat(reference)),
        positive=None if truth is None else {name: truth.positive.get(name) for name in pair.network.classes},
        ground_truth={} if truth is None else _against_ground_truth(result, reference, truth, pair.network),
        latency_ms=_latency_ms(result),
        onnx_ms=_onnx_ms(pair, reference, image) if timed else None,
    )
    return Examined(network=pair.network, trial=trial, reference=reference, candidate=found)


def _reference(pair: EnginePair, image: Image) -> Result:
    try:
        return pair.reference(image)
    except BackendRunError as error:
        raise ReferenceFailed(
            f"the reference engine failed, so there is no comparison and no verdict is stored: {error} Check the "
            f"bundle with `glam-deploy verify`, or choose another --reference."
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
    result: Result, reference: Result, truth: GroundTruth, network: NetworkSpec
) -> dict[str, tuple[tuple[float, float], ...]]:
    candidate, expected = (ground_truth_dice(each, truth, network) for each in (result, reference))
    return {name: tuple(zip(candidate[name], expected[name], strict=True)) for name in expected}
