"""The configuration of the appliance: `glam.toml`, checked before anything starts.

Every section is frozen, an unknown key is an error, and every default is the cautious one: loopback, nobody is let in,
gated engines only. docs/appliance.md explains each key to the person who fills it in.
"""

import tomllib
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    ValidationError,
    field_validator,
    model_validator,
)

from glam_deploy.errors import UsageError
from glam_deploy.installation import page
from glam_deploy.networks import MOST_PATCHES

S = TypeVar("S", bound="Section")

Port = Annotated[int, Field(ge=0, le=65535)]
"""0 takes a free one, which the log tells: for tests."""
Seconds = Annotated[float, Field(ge=0)]
_AE_TITLE = r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$"
AETitle = Annotated[str, Field(pattern=_AE_TITLE)]
"""PS3.5 table 6.2-1."""
_TARGET_NAME = "^[a-z0-9-]{1,32}$"
Threshold = Annotated[float, Field(gt=0, lt=1)]


_EVERYWHERE = ("0.0.0.0", "::")
_HERE = ("127.0.0.1", "::1", "localhost")


def _none_for_false(value: object) -> object:
    """TOML has no word for nothing."""
    return None if value is False else value


def _named(value: object) -> object:
    """An empty path would be the folder of the configuration itself."""
    if value == "":
        raise ValueError("expected a path")
    return value


File = Annotated[Path, BeforeValidator(_named)]


class Section(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Tls(Section):
    """Certificates of one side; both sides show theirs (mutual TLS), 1.2 or later."""

    certificate: File
    key: File
    authority: File
    """What the other side's certificate must be signed by."""


class TlsListener(Tls):
    """A second listener, beside the plain one."""

    port: Port = 2762


class Sender(Section):
    """Who may send: a calling AE title, from these hosts."""

    ae_title: AETitle
    hosts: tuple[IPvAnyNetwork, ...] = Field(min_length=1)
    """Addresses or networks (10.1.2.0/24); no names, which somebody else could answer for."""


class Receive(Section):
    """The DICOM listeners."""

    ae_title: AETitle = "GLAM"
    host: str = "127.0.0.1"
    port: Annotated[Port | None, BeforeValidator(_none_for_false)] = 11112
    """None, in the file `false`: no plain listener."""
    tls: TlsListener | None = None
    senders: tuple[Sender, ...] = ()
    max_associations: int = Field(default=25, ge=1)
    max_object_bytes: int = Field(default=2 << 30, ge=1 << 20)
    idle_s: Annotated[float, Field(gt=0)] = 60
    """A peer that says nothing for so long is cut off."""
    reserve_bytes: int = Field(default=5 << 30, ge=0)
    """Free space on the data folder's disk below which instances are refused with 0xA700."""


class Web(Section):
    """The status page, health, metrics and STOW-RS."""

    host: str = "127.0.0.1"
    port: Port = 8042
    token_file: File | None = None
    """Holds the bearer token, 32 characters or more. Needed unless `tls` asks for a client certificate."""
    tls: Tls | None = None
    stow: bool = False
    """Take instances over STOW-RS (PS3.18 section 10.5) at /dicom-web/studies."""


class Assemble(Section):
    """When a study is complete."""

    quiet_s: Seconds = 60
    """So long after its last instance."""
    cap_s: Seconds = 1800
    """So long after its first one, whatever still comes."""
    four_views: bool = True
    """At once when L-CC, R-CC, L-MLO and R-MLO are there."""


class Accept(Section):
    """Policy on what is worked on; docs/inputs.md has the rules that no policy can change."""

    for_processing: bool = False


class Worker(Section):
    """The network."""

    bundle: File
    engine: str = "auto"
    patches: Annotated[int, Field(ge=1, le=MOST_PATCHES)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    device: Annotated[int, Field(ge=0)] | None = None
    ungated: bool = False
    lease_s: Annotated[float, Field(gt=0)] = 30
    """A worker that shows no life for so long has lost its job to the next one."""
    attempts: int = Field(default=3, ge=1)
    """A job that has cost so many workers, or failed so often, without a view finished in between, ends in the dead
    letter."""
    longest_read_s: Annotated[float, Field(gt=0)] = 60
    """A view that takes longer to read and decode fails; it costs no worker."""
    longest_view_s: Annotated[float, Field(gt=0)] = 600
    """A view that keeps the network busy for longer hangs: the worker is restarted, which counts as an attempt."""

    @field_validator("engine")
    @classmethod
    def _known(cls, engine: str) -> str:
        from glam_deploy.engines.registry import ENGINE_NAMES

        if engine not in ENGINE_NAMES:
            raise ValueError(f"expected one of {', '.join(ENGINE_NAMES)}")
        return engine


class Results(Section):
    """What is sent back. Thresholds are written into every object."""

    seg: bool = True
    cad_sr: bool = True
    sr: bool = True
    sc: bool = True
    seg_fractional: bool = False
    gsps: bool = False
    probability: bool = False
    """Write scores as Probability of cancer (DCM 111047) in the CAD SR: they are not calibrated."""
    threshold_benign: Threshold = 0.5
    threshold_malignant: Threshold = 0.5


class Target(Section):
    """Where results go."""

    name: str = Field(pattern=_TARGET_NAME)
    ae_title: AETitle | None = None
    host: str | None = None
    port: Port | None = None
    calling_ae_title: AETitle = "GLAM"
    tls: Tls | None = None
    commitment: bool = False
    """Ask for storage commitment (PS3.4 annex J)."""
    stow_url: str | None = None
    """In place of AE title, host and port: the DICOMweb root, https://pacs/dicom-web."""
    stow_token_file: File | None = None
    """Holds a bearer token."""
    stow_user: str | None = None
    stow_password_file: File | None = None
    stow_authority: File | None = None
    """What the service's certificate must be signed by, where it asks for none of ours (`tls` names both); without
    either, an authority that this machine trusts."""
    query: bool = True
    """Prove delivery by asking the target for what it holds (C-FIND, QIDO-RS) as well as by its status."""

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
            raise ValueError("stow_url is no DICOMweb root: expected https://pacs/dicom-web")
        if any(secrets) and address.scheme == "http" and address.hostname not in _HERE:
            raise ValueError("stow_url is http, over which a token or password can be read by anybody: use https")
        if (self.stow_user is None) != (self.stow_password_file is None) or (self.stow_user and self.stow_token_file):
            raise ValueError("give stow_user and stow_password_file, or stow_token_file, or none of them")
        if self.commitment:
            raise ValueError("commitment is asked for over DIMSE only: a DICOMweb target is proven by `query`")
        return self


class Dispatch(Section):
    """How hard to try."""

    first_retry_s: Annotated[float, Field(gt=0)] = 5
    longest_retry_s: Annotated[float, Field(gt=0)] = 900
    attempts: int = Field(default=20, ge=1)
    """A result that the target, while reachable, has refused so often ends in the dead letter. A target that cannot be
    reached is tried for ever."""
    timeout_s: Annotated[float, Field(gt=0)] = 30


class Retain(Section):
    """How long files stay after their study is done and delivered."""

    instances_days: Seconds = 7
    results_days: Seconds = 30


class Config(Section):
    """All of `glam.toml`."""

    license_acknowledged: Literal[True]
    """The weights are for research only and no part of this software; results are not for diagnosis."""
    data: File
    receive: Receive = Receive()
    web: Web = Web()
    assemble: Assemble = Assemble()
    accept: Accept = Accept()
    worker: Worker
    results: Results = Results()
    targets: tuple[Target, ...] = ()
    dispatch: Dispatch = Dispatch()
    retain: Retain = Retain()

    @model_validator(mode="after")
    def _names_differ(self) -> "Config":
        names = [target.name for target in self.targets]
        if len(names) != len(set(names)):
            raise ValueError(f"targets share a name: {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> "Config":
        receive, web = self.receive, self.web
        uses = [("receive.port", receive.host, receive.port), ("web.port", web.host, web.port)]
        if receive.tls:
            uses.append(("receive.tls.port", receive.host, receive.tls.port))
        for (one, here, port), (other, there, same) in combinations(uses, 2):
            if port and port == same and (here == there or here in _EVERYWHERE or there in _EVERYWHERE):
                raise ValueError(f"{one} and {other} are both {port}: expected a port for each")
        return self


def parse_config(text: str, *, folder: Path) -> Config:
    """The configuration in a TOML text; relative paths in it start at `folder`, where the file lies.

    Raises UsageError that names every key that is wrong, what it is and what was expected.
    """
    try:
        return _absolute(Config.model_validate(tomllib.loads(text)), folder)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the configuration is no TOML: {error}") from error
    except ValidationError as error:
        faults = "\n".join(map(_line, _first_causes(error)))
        raise UsageError(
            f"the configuration is wrong:\n{faults}\nEvery key is explained in {page('appliance.md')}"
        ) from error


def _first_causes(error: ValidationError) -> list[Any]:
    """Not that a list is too short because what it holds is wrong."""
    found: list[Any] = error.errors()
    inner = {each["loc"][:n] for each in found for n in range(1, len(each["loc"]))}
    return [each for each in found if each["type"] != "too_short" or each["loc"] not in inner]


def _line(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the file"
    given = "" if error["type"] == "missing" or isinstance(error["input"], dict) else f" (it is {error['input']!r})"
    return f"  {key}: {_told(error)}{given}"


def _told(error: Any) -> str:
    """In words for who fills the file in, where pydantic's are for who writes programs."""
    words = {
        "missing": "is missing",
        "extra_forbidden": "is no key of this table: see docs/appliance.md",
        "model_type": "expected a table",
        "tuple_type": "expected a list, [...]",
        _AE_TITLE: "expected 1 to 16 ASCII characters, without backslash and without a space at either end",
        _TARGET_NAME: "expected 1 to 32 of a-z, 0-9 and hyphen",
    }
    known = words.get(error["type"]) or words.get(error.get("ctx", {}).get("pattern", ""))
    return known or str(error["msg"]).removeprefix("Value error, ")


def _absolute(section: S, folder: Path) -> S:
    """The section with every path made absolute."""
    changed: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Path):
            changed[name] = folder / value
        elif isinstance(value, Section):
            changed[name] = _absolute(value, folder)
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            changed[name] = tuple(_absolute(item, folder) for item in value)
    return section.model_copy(update=changed)
