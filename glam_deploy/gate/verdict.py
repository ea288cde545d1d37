"""The verdict of a gate in the manifest of the bundle, bound to the engine as it was opened."""

from dataclasses import asdict, dataclass, replace

from glam_deploy.agreement.verdict import Verdict
from glam_deploy.bundle import Bundle, GateEntry, locked, open_bundle, replace_gates, require_changeable
from glam_deploy.engines.admission import this_machine
from glam_deploy.engines.base import EngineIdentity
from glam_deploy.errors import BundleError, UsageError
from glam_deploy.gate.metrics import TrialMetrics
from glam_deploy.json_records import json_sha256, to_json

ID_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """The verdict on a candidate, and what it was made with."""

    engine: str
    identity: EngineIdentity
    """The candidate's, as it was opened."""
    reference: str
    patches: int
    images_sha256: str
    when: str
    """ISO 8601."""
    verdict: Verdict
    metrics: TrialMetrics | None
    """None where no image was compared."""

    def entry(self) -> GateEntry:
        """The entry for the manifest. Its id is made of all its other fields."""
        compared, reported = self.verdict.metrics, self.metrics
        entry = GateEntry(
            id="",
            engine=self.engine,
            digest=self.identity.digest,
            reference=self.reference,
            passed=self.verdict.passed,
            failures=self.verdict.failures,
            limits=asdict(self.verdict.limits),
            figures={**compared.to_json(), **reported.to_json()} if compared and reported else {},
            images=compared.images if compared else 0,
            images_sha256=self.images_sha256,
            patches=self.patches,
            when=self.when,
            machine=this_machine(self.identity.device),
            latency_ms=float(reported.latency_ms) if reported else 0.0,
            times_onnx=float(reported.beside_onnx.times) if reported and reported.beside_onnx else None,
        )
        content = {name: value for name, value in to_json(entry).items() if name != "id"}
        return replace(entry, id=json_sha256(content)[:ID_DIGITS])


def record(bundle: Bundle, gate: GateEntry) -> Bundle:
    """Write a verdict into the manifest and return the bundle as it is then.

    It replaces earlier verdicts on the same engine on the same kind of machine. Raises BundleError where the
    bundle was changed meanwhile in more than its verdicts and engines, UsageError where it cannot be written to.
    """
    try:
        with locked(bundle.folder):
            now = open_bundle(bundle.folder)
            if now.manifest.created != bundle.manifest.created:
                raise BundleError(
                    f"{bundle.folder} was replaced while the gate ran: no verdict is stored. Run it again."
                )
            kept = [old for old in now.gates if (old.digest, old.machine) != (gate.digest, gate.machine)]
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
        f"{bundle.folder}: the verdict cannot be written there ({error.strerror or error}). Free space, or copy the "
        f"bundle to a place that can be written to."
    )
