"""Figures and limits -> passed or not, and why; bound to the engine in the bundle's manifest."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from glam_deploy.amend import locked, replace_gates, require_changeable
from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.errors import BundleError, UsageError
from glam_deploy.gate.figures import Figures
from glam_deploy.gate.limits import Limits
from glam_deploy.runtime.admission import Gate, digest, engine_digest, this_machine

ID_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a verdict is about."""

    engine: str
    provenance: Mapping[str, Any]
    """The candidate's, as `engines.base.OpenedEngines` has it."""
    reference: str
    patches: int
    images_sha256: str
    when: str
    """ISO 8601."""


def judge(found: Figures | None, limits: Limits, *, not_computed: int = 0, unreadable: int = 0) -> list[str]:
    """What is against an engine, in words; empty where it passes.

    `found`: None where no image was compared. `not_computed`: images of which an engine made no finite numbers.
    """
    failures = [f"{not_computed} images gave NaN, infinite numbers or an error"] if not_computed else []
    failures += _broken(found, limits) if found else []
    failures += [f"{unreadable} images could not be read"] if unreadable else []
    return failures if found or failures else ["no image was compared"]


def verdict(found: Figures | None, failures: Sequence[str], limits: Limits, held: Held) -> Gate:
    """An item of manifest["gates"]."""
    entry = {
        "engine": held.engine,
        "digest": engine_digest(held.provenance),
        "reference": held.reference,
        "passed": not failures,
        "failures": list(failures),
        "limits": asdict(limits),
        "figures": found or {},
        "images": found["images"] if found else 0,
        "images_sha256": held.images_sha256,
        "patches": held.patches,
        "when": held.when,
        "machine": this_machine(held.provenance),
        "latency_ms": float(found["latency_ms"]) if found else 0.0,
    }
    if found and found["beside_onnx"]:
        entry["times_onnx"] = float(found["beside_onnx"]["times"])
    return {"id": digest(entry)[:ID_DIGITS], **entry}


def record(bundle: Bundle, gate: Gate) -> Bundle:
    """Write a verdict into the manifest; the bundle as it is then.

    It takes the place of earlier ones of the same engine on the same kind of machine. Raises BundleError where the
    bundle was changed meanwhile in more than its verdicts and engines, UsageError where it cannot be written to.
    """
    try:
        with locked(bundle.folder):
            now = open_bundle(bundle.folder)
            if now.manifest["created"] != bundle.manifest["created"]:
                raise BundleError(f"{bundle.folder} was replaced while an engine was held against it. Run it again.")
            kept = [old for old in now.gates if _key(old) != _key(gate)]
            return replace_gates(now, [*kept, gate])
    except OSError as error:
        raise _not_written(bundle, error) from error


def require_recordable(bundle: Bundle) -> None:
    """Raises UsageError where a verdict could not be written into the bundle: before the minutes of a gate."""
    try:
        require_changeable(bundle.folder)
    except OSError as error:
        raise _not_written(bundle, error) from error


def _not_written(bundle: Bundle, error: OSError) -> UsageError:
    return UsageError(
        f"{bundle.folder}: the verdict cannot be put there ({error.strerror or error}). Free space, or copy the bundle "
        f"to a place that can be written to."
    )


def _key(gate: Gate) -> tuple[str, str]:
    return gate["digest"], digest(gate["machine"])


def _broken(found: Figures, limits: Limits) -> Iterator[str]:
    if not found["judged"] and not found["lost_or_new"]:
        yield "no image has a lesion in any map, so nothing was judged: take images with lesions"
    for name, labels in found["dice"].items():
        for label, curve in labels.items():
            yield from _broken_dice(f"Dice of the {name} {label} map", curve, limits)
    counted = {"lesions lost or new": found["lost_or_new"], "decisions flipped": found["flips"]}
    for (what, count), limit in zip(counted.items(), (limits.lost, limits.flips), strict=True):
        if count > limit:
            yield f"{what}: {count}, limit {limit}"
    if (share := found["patches"]["agreement"]) < limits.patch_agreement:
        yield f"patches where the reference could have chosen them: {share:.1%}, limit {limits.patch_agreement:.1%}"


def _broken_dice(what: str, curve: Sequence[Figures], limits: Limits) -> Iterator[str]:
    """The threshold that is furthest off stands for all."""
    judged = [point for point in curve if point["images"]]
    for key, limit in (("median", limits.dice_median), ("worst", limits.dice_worst)):
        least = min(judged, key=lambda point: float(point[key]), default=None)
        if least and least[key] < limit:
            yield f"{what} at {least['threshold']}: {key} {least[key]:.4f}, limit {limit}"
