"""Tables of what happens to a study: assembly, acceptance, the worker, result objects, and how long files are kept."""

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from glam_deploy.appliance.config.section import DIGEST, File, Seconds, Section
from glam_deploy.dicom.results import THRESHOLD
from glam_deploy.networks import MOST_PATCHES

Threshold = Annotated[float, Field(gt=0, lt=1)]
ResultKind = Literal["seg", "cad_sr", "sr", "sc", "seg_fractional", "gsps"]
"""A kind of result object, by the name of its switch in `Results`."""


def _as_indices(value: object) -> object:
    """Reject all that is no selection of GPUs; a list becomes a tuple."""
    indices = value if isinstance(value, list | tuple) else [value]
    whole = bool(indices) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in indices)
    if value not in (None, "all") and (not whole or len(set(indices)) < len(indices)):
        raise ValueError('expected the index of a GPU, a list of indices such as [0, 1], or "all"')
    return tuple(value) if isinstance(value, list) else value


Devices = Annotated[int | tuple[int, ...] | Literal["all"] | None, BeforeValidator(_as_indices)]


class Assemble(Section):
    """Rules that decide when a study is complete."""

    quiet_s: Seconds = 60
    """Complete this long after the study's last instance."""
    cap_s: Seconds = 1800
    """Complete this long after the study's first instance, even if more arrive."""
    four_views: bool = True
    """Complete as soon as L-CC, R-CC, L-MLO and R-MLO have arrived."""

    @model_validator(mode="after")
    def _cap_is_later(self) -> "Assemble":
        if self.quiet_s > self.cap_s:
            raise ValueError(
                f"quiet_s is {self.quiet_s:g} and cap_s {self.cap_s:g}, so that quiet_s never applies: expected "
                "quiet_s up to cap_s"
            )
        return self


class Accept(Section):
    """Which images are processed, beyond the fixed rules of docs/inputs.md."""

    for_processing: bool = False


class BundleTrust(Section):
    """What the worker's bundle must prove before it is opened."""

    trusted_keys: Annotated[tuple[File, ...], Field(min_length=1)] | None = None
    """PEM files of public keys, of which one must have signed the bundle; None: no signature is demanded."""
    digest: Annotated[str, Field(pattern=DIGEST)] | None = None
    """The id that the bundle must have, so that no earlier state of it is used."""


class Worker(Section):
    """The bundle, the engine and the limits of the worker process."""

    bundle: File
    engine: str = "auto"
    patches: Annotated[int, Field(ge=1, le=MOST_PATCHES)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    device: Devices = None
    """Index of a GPU, several of them, or "all"; None for the first."""
    batch: int = Field(default=1, ge=1)
    """Number of views that a GPU computes as one run while as many are waiting: 1 or 4."""
    ungated: bool = False
    lease_s: Annotated[float, Field(gt=0)] = 30
    """A worker that does not renew its lease within this time loses its job to the next worker."""
    attempts: int = Field(default=3, ge=1)
    """A job ends in the dead letter queue after this many failed attempts without a view finished in between."""
    longest_read_s: Annotated[float, Field(gt=0)] = 60
    """A view that takes longer to read and decode fails; the worker goes on."""
    longest_view_s: Annotated[float, Field(gt=0)] = 600
    """A view that keeps the network busy for longer counts as hung: the worker is restarted, and one attempt counts."""

    @field_validator("engine")
    @classmethod
    def _known(cls, engine: str) -> str:
        from glam_deploy.engines.registry import ENGINE_NAMES

        if engine not in ENGINE_NAMES:
            raise ValueError(f"expected one of {', '.join(ENGINE_NAMES)}")
        return engine


class Results(Section):
    """Result objects that are made. The thresholds are written into every object."""

    seg: bool = True
    cad_sr: bool = True
    sr: bool = True
    sc: bool = True
    seg_fractional: bool = False
    gsps: bool = False
    probability: bool = False
    """Write scores as Probability of cancer (DCM 111047) into the CAD SR; the scores are not calibrated."""
    threshold_benign: Threshold = THRESHOLD
    threshold_malignant: Threshold = THRESHOLD
    triage_threshold: Threshold | None = None
    """The site's own threshold: a study is flagged if the malignant score of an image reaches it. None: no flag."""

    @property
    def kinds(self) -> tuple[ResultKind, ...]:
        """The kinds of objects that are made."""
        return tuple(kind for kind in get_args(ResultKind) if getattr(self, kind))


class Retain(Section):
    """How long files are kept after their study is done and delivered."""

    instances_days: Seconds = 7
    results_days: Seconds = 30
