"""Reference and candidate before one image: what each makes of it, and which part of the candidate is to blame."""

from collections.abc import Mapping
from dataclasses import dataclass

from glam_deploy.bundle import CHECKPOINT_FILE, Bundle
from glam_deploy.engines.base import Engine, EngineOptions, OpenedEngines
from glam_deploy.engines.here import check_asked, open_asked
from glam_deploy.engines.registry import AUTO, OWNERS, open_engines
from glam_deploy.errors import BackendError, BackendRunError, UsageError
from glam_deploy.gate.limits import Limits
from glam_deploy.gate.parity import SCORES, MapParity, PatchParity, compare_maps, compare_patches, flips
from glam_deploy.gate.truth import Mask, classes_in, truth_dice
from glam_deploy.records import Mammogram, NetworkInput
from glam_deploy.runtime.agreement import Answer, answer, blamed, on_reference_patches
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Result
from glam_deploy.runtime.session import bundle_provenance

Image = Mammogram | NetworkInput
FLAT = "no-contrast"


class ReferenceFailed(BackendError):
    """The side that others are compared with gives no numbers."""

    exit_code = BackendRunError.exit_code


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Who is compared. The candidate has passed no gate yet: this is where it does."""

    reference: Pipeline
    candidate: Pipeline
    local: Engine
    """The candidate's local stage, to be given the reference's patches."""
    onnx: Pipeline | None = None
    """The engine "onnx" with the candidate's threads, to be timed beside it; None where it is the candidate."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is kept of one image; JSON-ready by `dataclasses.asdict`."""

    image: str
    maps: tuple[MapParity, ...]
    patches: tuple[PatchParity, ...]
    scores: Mapping[str, tuple[tuple[float, float], ...]]
    """Score -> for each class (candidate, reference)."""
    flips: tuple[str, ...]
    reasons: tuple[str, ...]
    """Which parts are to blame; empty where the image keeps the limits."""
    flat: tuple[bool, bool]
    """Whether a class's global map had no contrast: (candidate, reference)."""
    positive: Mapping[str, bool] | None
    """Class -> whether the mask has it; None without mask."""
    truth: Mapping[str, tuple[tuple[float, float], ...]]
    """Class in the mask -> for each threshold (candidate, reference) Dice of the fused map against it."""
    latency_ms: float
    """From the standardized image to scores and maps, the candidate's."""
    onnx_ms: float | None = None
    """The same of the engine "onnx", right after it; None where that was not timed."""

    @property
    def lowest(self) -> float:
        """Lowest Dice of any map, class and threshold; 0 where a lesion is lost or new."""
        return min(parity.lowest for parity in self.maps)

    @property
    def order(self) -> tuple[float, float, int]:
        """Sorts the worst image first."""
        return self.lowest, min(patch.iou for patch in self.patches), -len(self.flips)


@dataclass(frozen=True, kw_only=True)
class Examined:
    """One image, with what a picture of it needs."""

    row: Row
    reference: Result
    candidate: Answer


def open_sides(bundle: Bundle, engine: str, *, reference: str | None, patches: int, options: EngineOptions) -> Sides:
    """Both sides of a bundle.

    `reference`: an engine's name; None takes "torch" where it is installed and the bundle has the weights, else "onnx".
    Raises UsageError where an engine would be held against itself, and what opening engines raises.
    """
    name = _other_name(bundle, engine, reference)
    opened, on_cpu = open_asked(engine, bundle, options), EngineOptions(threads=options.threads)

    def pipeline(engines: OpenedEngines) -> Pipeline:
        return Pipeline(engines, patches=patches, provenance=bundle_provenance(bundle))

    truth = pipeline(open_engines(name, bundle, on_cpu))
    onnx = truth if name == AUTO else None if engine == AUTO else pipeline(open_engines(AUTO, bundle, on_cpu))
    return Sides(reference=truth, candidate=pipeline(opened), local=opened.engines["local"], onnx=onnx)


def check_sides(bundle: Bundle, engine: str, *, reference: str | None, options: EngineOptions) -> None:
    """Raises as `open_sides`, as far as that is known before an engine is opened."""
    name = _other_name(bundle, engine, reference)
    check_asked(engine, bundle, options)
    check_asked(name, bundle, EngineOptions(threads=options.threads))


def _other_name(bundle: Bundle, engine: str, reference: str | None) -> str:
    name = reference or reference_name(bundle)
    if name == engine:
        raise UsageError(f"engine {engine!r} cannot be held against itself; name another --reference")
    return name


def reference_name(bundle: Bundle) -> str:
    """Who is the reference where nobody says so."""
    return "torch" if CHECKPOINT_FILE in bundle.files and not OWNERS["torch"].missing else "onnx"


def examine(sides: Sides, image: Image, mask: Mask | None, limits: Limits, *, timed: bool = False) -> Examined:
    """Run both sides, and the engine "onnx" too where `timed`.

    Raises InputError for an image that cannot be used, BackendRunError where the candidate fails, and ReferenceFailed
    where the reference does: that says nothing of the candidate.
    """
    try:
        truth = sides.reference(image)
    except BackendRunError as error:
        raise ReferenceFailed(
            f"the reference itself failed, so nothing can be compared and no verdict is stored: {error} Check the "
            f"bundle with `glam-deploy verify`, or name another --reference."
        ) from error
    result = sides.candidate(image)
    expected, found = answer(truth), answer(result)
    forced = on_reference_patches(sides.local, truth.network_input.image, found, expected)
    maps = compare_maps(found, expected, forced)
    patches = compare_patches(found, expected)
    flipped = flips(found, expected, limits.operating_point)

    def differ(mixed: Answer, base: Answer) -> bool:
        return not _keeps(compare_maps(mixed, base), limits)

    keeps = _keeps(maps, limits) and all(patch.agrees for patch in patches)
    reasons = [] if keeps else blamed(forced, found, expected, differ)
    row = Row(
        image=truth.input.source.name,
        maps=maps,
        patches=patches,
        scores={name: _pairs(found[name], expected[name]) for name in SCORES if name in expected},
        flips=flipped,
        reasons=tuple(reasons or (["scores differ"] if flipped else [])),
        flat=(_flat(result), _flat(truth)),
        positive=None if mask is None else classes_in(mask),
        truth={} if mask is None else _against_truth(result, truth, mask),
        latency_ms=_latency_ms(result),
        onnx_ms=_onnx_ms(sides, truth, image) if timed else None,
    )
    return Examined(row=row, reference=truth, candidate=found)


def _onnx_ms(sides: Sides, truth: Result, image: Image) -> float | None:
    if sides.onnx is None:
        return None
    return _latency_ms(truth if sides.onnx is sides.reference else sides.onnx(image))


def _latency_ms(result: Result) -> float:
    return sum(ms for step, ms in result.timings_ms.items() if step != "preprocess")


def _keeps(maps: tuple[MapParity, ...], limits: Limits) -> bool:
    return all(parity.lowest >= limits.dice_median for parity in maps)


def _pairs(found: object, expected: object) -> tuple[tuple[float, float], ...]:
    return tuple((float(a), float(b)) for a, b in zip(found, expected, strict=True))  # type: ignore[call-overload]


def _flat(result: Result) -> bool:
    return any(notice.code == FLAT for notice in result.notices)


def _against_truth(result: Result, truth: Result, mask: Mask) -> dict[str, tuple[tuple[float, float], ...]]:
    candidate, reference = truth_dice(result, mask), truth_dice(truth, mask)
    return {name: tuple(zip(candidate[name], reference[name], strict=True)) for name in reference}
