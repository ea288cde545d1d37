"""Configuration of the appliance: `glam.toml`, checked before anything starts.

Sections are frozen, an unknown key is an error, and the defaults are restrictive: loopback only, no sender allowed,
gated engines only. docs/appliance.md explains each key to the administrator.
"""

import tomllib
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    IPvAnyNetwork,
    ValidationError,
    field_validator,
    model_validator,
)

from glam_deploy.appliance.routes import Route, check_routes
from glam_deploy.appliance.section import AE_TITLE, AETitle, Section
from glam_deploy.dicom.results import THRESHOLD
from glam_deploy.errors import UsageError
from glam_deploy.installation import page
from glam_deploy.networks import MOST_PATCHES

SectionT = TypeVar("SectionT", bound="Section")

Port = Annotated[int, Field(ge=0, le=65535)]
"""0: a free port chosen by the system and written to the log; for tests."""
Seconds = Annotated[float, Field(ge=0)]
_TARGET_NAME = "^[a-z0-9-]{1,32}$"
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


_ALL_INTERFACES = ("0.0.0.0", "::")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _none_for_false(value: object) -> object:
    """None for False: TOML has no null."""
    return None if value is False else value


def _not_empty(value: object) -> object:
    """Reject an empty path, which would mean the folder of the configuration file."""
    if value == "":
        raise ValueError("expected a path")
    return value


File = Annotated[Path, BeforeValidator(_not_empty)]


class Tls(Section):
    """Certificates for mutual TLS, version 1.2 or later."""

    certificate: File
    key: File
    authority: File
    """PEM file of the authority that must have signed the peer's certificate."""


class TlsListener(Tls):
    """A TLS listener, in addition to the plain one."""

    port: Port = 2762


class Sender(Section):
    """A sender that is allowed to connect: a calling AE title and its hosts."""

    ae_title: AETitle
    hosts: tuple[IPvAnyNetwork, ...] = Field(min_length=1)
    """Addresses or networks (10.1.2.0/24). Host names are not accepted, because DNS answers can be forged."""


class Receive(Section):
    """The DICOM listeners."""

    ae_title: AETitle = "GLAM"
    host: str = "127.0.0.1"
    port: Annotated[Port | None, BeforeValidator(_none_for_false)] = 11112
    """Port of the plain listener; None (in the file: `false`) for no plain listener."""
    tls: TlsListener | None = None
    senders: tuple[Sender, ...] = ()
    max_associations: int = Field(default=25, ge=1)
    max_object_bytes: int = Field(default=2 << 30, ge=1 << 20)
    idle_s: Annotated[float, Field(gt=0)] = 60
    """An association is aborted if its peer sends nothing for this time."""
    reserve_bytes: int = Field(default=5 << 30, ge=0)
    """Free space on the disk of the data folder below which instances are refused with status 0xA700."""


class Web(Section):
    """The status page, health, metrics and STOW-RS."""

    host: str = "127.0.0.1"
    port: Port = 8042
    token_file: File | None = None
    """File with the bearer token, 32 characters or more. Required unless `tls` requires a client certificate."""
    tls: Tls | None = None
    stow: bool = False
    """Accept instances over STOW-RS (PS3.18 section 10.5) at /dicom-web/studies."""


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

    @property
    def kinds(self) -> tuple[ResultKind, ...]:
        """The kinds of objects that are made."""
        return tuple(kind for kind in get_args(ResultKind) if getattr(self, kind))


class Target(Section):
    """A destination of result objects."""

    name: str = Field(pattern=_TARGET_NAME)
    objects: Annotated[tuple[ResultKind, ...] | None, Field(min_length=1)] = None
    """Kinds of result objects that it gets; None for all that are made."""
    ae_title: AETitle | None = None
    host: str | None = None
    port: Port | None = None
    calling_ae_title: AETitle = "GLAM"
    tls: Tls | None = None
    commitment: bool = False
    """Request storage commitment (PS3.4 annex J)."""
    stow_url: str | None = None
    """DICOMweb root (https://pacs/dicom-web), instead of AE title, host and port."""
    stow_token_file: File | None = None
    """File with a bearer token."""
    stow_user: str | None = None
    stow_password_file: File | None = None
    stow_authority: File | None = None
    """PEM file of the authority of the service's certificate, if the service requires no client certificate (`tls`
    names both). Without either, the certificate is checked against the system's authorities.
    """
    query: bool = True
    """Verify delivery by a query for the objects (C-FIND, QIDO-RS), in addition to the status of the store."""

    @model_validator(mode="after")
    def _one_way(self) -> "Target":
        dimse = [self.ae_title, self.host, self.port]
        if (self.stow_url is None) == (None in dimse) or (self.stow_url and any(dimse)):
            raise ValueError("give either ae_title, host and port, or stow_url")
        return self

    @model_validator(mode="after")
    def _stow_in_order(self) -> "Target":
        secrets = (self.stow_token_file, self.stow_user, self.stow_password_file)
        if self.stow_url is None:
            if any((*secrets, self.stow_authority)):
                raise ValueError("stow_token_file, stow_user, stow_password_file, stow_authority go with stow_url only")
            return self
        address = urlsplit(self.stow_url)
        if address.scheme not in ("http", "https") or not address.hostname or address.query or address.username:
            raise ValueError("stow_url is not a DICOMweb root: expected https://pacs/dicom-web")
        if any(secrets) and address.scheme == "http" and address.hostname not in _LOOPBACK:
            raise ValueError("stow_url is http, which sends the token or password unencrypted: use https")
        if (self.stow_user is None) != (self.stow_password_file is None) or (self.stow_user and self.stow_token_file):
            raise ValueError("give stow_user and stow_password_file, or stow_token_file, or none of them")
        if self.commitment:
            raise ValueError("commitment works over DIMSE only: for a DICOMweb target use `query`")
        return self


class Dispatch(Section):
    """Retries and time limits of deliveries."""

    first_retry_s: Annotated[float, Field(gt=0)] = 5
    longest_retry_s: Annotated[float, Field(gt=0)] = 900
    attempts: int = Field(default=20, ge=1)
    """A delivery ends in the dead letter queue after a reachable target has refused it this often. A target that cannot
    be reached is retried without end.
    """
    timeout_s: Annotated[float, Field(gt=0)] = 30


class Retain(Section):
    """How long files are kept after their study is done and delivered."""

    instances_days: Seconds = 7
    results_days: Seconds = 30


class Config(Section):
    """The whole of `glam.toml`."""

    license_acknowledged: Literal[True]
    """Must be true: the weights are for research only and not part of this software; results are not for diagnosis."""
    data: File
    receive: Receive = Receive()
    web: Web = Web()
    assemble: Assemble = Assemble()
    accept: Accept = Accept()
    worker: Worker
    results: Results = Results()
    targets: tuple[Target, ...] = ()
    routes: tuple[Route, ...] = ()
    """The first rule that applies to a study decides about its results; without any, all targets get them."""
    dispatch: Dispatch = Dispatch()
    retain: Retain = Retain()

    @model_validator(mode="after")
    def _names_differ(self) -> "Config":
        names = [target.name for target in self.targets]
        if len(names) != len(set(names)):
            raise ValueError(f"targets share a name: {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _objects_are_made(self) -> "Config":
        for target in self.targets:
            if unmade := [kind for kind in target.objects or () if kind not in self.results.kinds]:
                raise ValueError(
                    f"target {target.name} gets {', '.join(unmade)}, which [results] does not make: set "
                    f"`{unmade[0]} = true` there, or remove it from `objects`"
                )
        return self

    @model_validator(mode="after")
    def _routes_are_reached(self) -> "Config":
        check_routes(self.routes, [target.name for target in self.targets])
        return self

    def targets_of(self, route: Route | None) -> tuple[str, ...] | None:
        """Names of the targets of a study to which `route` applies (None: no route); None: it is not processed."""
        if route is None:
            return tuple(target.name for target in self.targets)
        return None if route.discard else route.targets

    def kinds_for(self, target: Target) -> tuple[ResultKind, ...]:
        """The kinds of objects that a target gets."""
        return self.results.kinds if target.objects is None else target.objects

    @model_validator(mode="after")
    def _ports_differ(self) -> "Config":
        receive, web = self.receive, self.web
        uses = [("receive.port", receive.host, receive.port), ("web.port", web.host, web.port)]
        if receive.tls:
            uses.append(("receive.tls.port", receive.host, receive.tls.port))
        for (one, host, port), (other, other_host, other_port) in combinations(uses, 2):
            if (
                port
                and port == other_port
                and (host == other_host or host in _ALL_INTERFACES or other_host in _ALL_INTERFACES)
            ):
                raise ValueError(f"{one} and {other} are both {port}: expected different ports")
        return self


def parse_config(text: str, *, folder: Path) -> Config:
    """The configuration in a TOML text; relative paths in it start at `folder`, the folder of the file.

    Raises UsageError that names every wrong key, its value and what was expected.
    """
    try:
        return _absolute(Config.model_validate(tomllib.loads(text)), folder)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the configuration is not valid TOML: {error}") from error
    except ValidationError as error:
        faults = "\n".join(map(_fault_line, _first_causes(error)))
        raise UsageError(
            f"the configuration is wrong:\n{faults}\nEvery key is explained in {page('appliance.md')}"
        ) from error


def _first_causes(error: ValidationError) -> list[Any]:
    """Pydantic's errors without "list too short" where an element of that list is itself wrong."""
    found: list[Any] = error.errors()
    inner = {each["loc"][:n] for each in found for n in range(1, len(each["loc"]))}
    return [each for each in found if each["type"] != "too_short" or each["loc"] not in inner]


def _fault_line(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the file"
    given = "" if error["type"] == "missing" or isinstance(error["input"], dict) else f" (it is {error['input']!r})"
    return f"  {key}: {_explanation(error)}{given}"


def _explanation(error: Any) -> str:
    """The error in terms of the configuration file; pydantic's own messages are worded for programmers."""
    explanations = {
        "missing": "is missing",
        "extra_forbidden": "is not a key of this table: see docs/appliance.md",
        "model_type": "expected a table",
        "tuple_type": "expected a list, [...]",
        AE_TITLE: "expected 1 to 16 ASCII characters, without backslash and without a space at either end",
        _TARGET_NAME: "expected 1 to 32 of a-z, 0-9 and hyphen",
    }
    known = explanations.get(error["type"]) or explanations.get(error.get("ctx", {}).get("pattern", ""))
    return known or str(error["msg"]).removeprefix("Value error, ")


def _absolute(section: SectionT, folder: Path) -> SectionT:
    """The section with every path made absolute, relative to `folder`."""
    changed: dict[str, object] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Path):
            changed[name] = folder / value
        elif isinstance(value, Section):
            changed[name] = _absolute(value, folder)
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            changed[name] = tuple(_absolute(item, folder) for item in value)
    return section.model_copy(update=changed)
