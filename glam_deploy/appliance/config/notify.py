"""Tables of [[notify]]: who is told of which events of studies, and how."""

from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from glam_deploy.appliance.config.listeners import Tls
from glam_deploy.appliance.config.section import LOOPBACK, File, Host, Port, Section
from glam_deploy.appliance.config.targets import TARGET_NAME
from glam_deploy.appliance.state.notify_events import Event

EVENTS: tuple[Event, ...] = get_args(Event)
ADDRESS = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"
Address = Annotated[str, Field(pattern=ADDRESS)]
"""RFC 5321, without quoted local parts and address literals."""
NAMESPACE = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,19}$"
Namespace = Annotated[str, Field(pattern=NAMESPACE)]
"""Namespace of an HD data type (HL7 v2.5.1, 2.A.33), without characters that would need an escape."""


class Entry(Section):
    """What every entry has. An entry gets messages with identifiers only if it says so, or its standard needs them."""

    name: str = Field(pattern=TARGET_NAME)
    events: Annotated[tuple[Event, ...], Field(min_length=1)] = EVENTS

    @field_validator("events")
    @classmethod
    def _each_once(cls, events: tuple[Event, ...]) -> tuple[Event, ...]:
        if len(set(events)) < len(events):
            raise ValueError("names an event twice: expected each once")
        return events

    @property
    def place(self) -> str:
        """Where its messages go, for pages and logs."""
        raise NotImplementedError


class Webhook(Entry):
    """HTTP POST of JSON, signed as by Standard Webhooks 1.0."""

    kind: Literal["webhook"]
    url: str
    secret_file: File
    """File with the secret: "whsec_" and the base64 of 24 to 64 random bytes, in one line."""
    authority: File | None = None
    tls: Tls | None = None
    identifiers: bool = False
    """Add Study Instance UID, accession number and Patient ID."""

    @field_validator("url")
    @classmethod
    def _is_https(cls, url: str) -> str:
        return https_url(url)

    @property
    def place(self) -> str:
        return self.url


class Fhir(Entry):
    """FHIR R4: PUT of DiagnosticReport and ImagingStudy. Holds identifiers of patient and study."""

    kind: Literal["fhir"]
    url: str
    """Base URL of the server, such as https://fhir.hospital/r4."""
    token_file: File | None = None
    """File with a bearer token."""
    user: str | None = None
    password_file: File | None = None
    authority: File | None = None
    tls: Tls | None = None
    conditional: bool = False
    """Conditional update by identifier, for servers that assign all ids themselves."""
    patient_system: str | None = None
    """URI of the namespace of Patient IDs."""
    accession_system: str | None = None
    """URI of the namespace of accession numbers."""

    @field_validator("url")
    @classmethod
    def _is_https(cls, url: str) -> str:
        return https_url(url)

    @model_validator(mode="after")
    def _one_login(self) -> "Fhir":
        if (self.user is None) != (self.password_file is None) or (self.user and self.token_file):
            raise ValueError("give user and password_file, or token_file, or none of them")
        return self

    @property
    def place(self) -> str:
        return self.url


class Hl7(Entry):
    """HL7 v2.5.1 ORU^R01 over MLLP. Holds identifiers of patient and study."""

    kind: Literal["hl7"]
    host: Host
    port: Port
    tls: Tls | None = None
    authority: File | None = None
    """For TLS without a client certificate (`tls` names both)."""
    plain: bool = False
    """Allow a connection without TLS to another machine, which sends identifiers unencrypted."""
    sending_application: Namespace = "GLAM"
    sending_facility: Namespace | None = None
    receiving_application: Namespace | None = None
    receiving_facility: Namespace | None = None
    patient_authority: Namespace | None = None
    """Assigning authority of Patient IDs (PID-3.4), if the image does not state one."""

    @model_validator(mode="after")
    def _encrypted(self) -> "Hl7":
        if self.uses_tls and self.plain:
            raise ValueError("plain = true and TLS exclude each other: remove one of them")
        if not (self.uses_tls or self.plain or self.host in LOOPBACK):
            raise ValueError(
                "messages hold patients' names, and the connection has no TLS: give `tls` or `authority`, or set "
                "`plain = true` where the network is trusted"
            )
        return self

    @property
    def uses_tls(self) -> bool:
        return bool(self.tls or self.authority)

    @property
    def place(self) -> str:
        return f"{self.host} port {self.port}"


class Email(Entry):
    """A plain-text e-mail by SMTP."""

    kind: Literal["email"]
    host: Host
    port: Port | None = None
    """587 with STARTTLS, 465 with TLS, 25 without either."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password_file: File | None = None
    authority: File | None = None
    sender: Address
    recipients: Annotated[tuple[Address, ...], Field(min_length=1)]
    identifiers: bool = False
    """Add Study Instance UID, accession number and Patient ID."""

    @model_validator(mode="after")
    def _in_order(self) -> "Email":
        if (self.user is None) != (self.password_file is None):
            raise ValueError("give both user and password_file, or neither")
        if self.security == "none" and self.host not in LOOPBACK and (self.user or self.identifiers):
            raise ValueError('security = "none" would send the password or identifiers unencrypted: use "starttls"')
        return self

    @property
    def place(self) -> str:
        return f"{self.host} port {self.smtp_port}"

    @property
    def smtp_port(self) -> int:
        return self.port or {"starttls": 587, "tls": 465, "none": 25}[self.security]


def _kind(value: object) -> object:
    """The kind of an entry, by which pydantic chooses the class."""
    return value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)


Notify = Annotated[
    Annotated[Webhook, Tag("webhook")]
    | Annotated[Email, Tag("email")]
    | Annotated[Hl7, Tag("hl7")]
    | Annotated[Fhir, Tag("fhir")],
    Discriminator(_kind),
]


def https_url(url: str) -> str:
    """The URL itself. Raises ValueError unless it is https without credentials, or http to this machine."""
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname or "@" in address.netloc or address.fragment:
        raise ValueError("is not a URL of a service: expected https://host/path, without user and password")
    if address.scheme == "http" and address.hostname not in LOOPBACK:
        raise ValueError("is http, which sends results unencrypted: use https")
    return url


def secret_files(entry: Notify) -> list[Path]:
    """Files with secrets of an entry."""
    names = ("secret_file", "token_file", "password_file")
    return [path for name in names if (path := getattr(entry, name, None))]
