"""Storing the verdict of a gate in the manifest of the bundle, with the identity of the engine."""

from dataclasses import asdict, dataclass, replace

from glam_deploy.agreement.verdict import Verdict
from glam_deploy.bundle import Bundle, GateEntry, locked, open_bundle, replace_gates, require_changeable
from glam_deploy.engines.admission import this_machine
from glam_deploy.engines.base import EngineIdentity
from glam_deploy.errors import BundleError, UsageError, unwritable
from glam_deploy.gate.metrics import TrialMetrics


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """The verdict on a candidate, with engine, reference, images and metrics."""

    engine: str
    identity: EngineIdentity
    """Identity of the opened candidate."""
    reference: str
    patches: int
    images_sha256: str
    when: str
    """ISO 8601."""
    verdict: Verdict
    metrics: TrialMetrics | None
    """None if no image was compared."""

    def entry(self) -> GateEntry:
        """The entry for the manifest; its id is a hash of all other fields."""
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
        return replace(entry, id=entry.computed_id)


def record(bundle: Bundle, gate: GateEntry) -> Bundle:
    """Write a verdict to the manifest; returns the changed bundle.

    Replaces earlier verdicts on the same engine on a machine of the same kind. Raises BundleError if the bundle was
    replaced while the gate ran, UsageError if it cannot be written.
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
    """Raises UsageError if a verdict cannot be written to the bundle; called before the gate, which takes minutes."""
    try:
        require_changeable(bundle.folder)
    except OSError as error:
        raise _not_written(bundle, error) from error


def _not_written(bundle: Bundle, error: OSError) -> UsageError:
    return UsageError(
        f"{bundle.folder}: the verdict cannot be written {unwritable(error)}, or copy the bundle to a writable folder."
    )
