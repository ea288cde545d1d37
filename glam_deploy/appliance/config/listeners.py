"""Tables of the DICOM receiver."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from glam_deploy.appliance.config.section import AETitle, File, HostNetwork, Port, Section, none_for_false


class KeyPair(Section):
    """A certificate of the appliance, with its chain, and its key."""

    certificate: File
    key: File


class Tls(KeyPair):
    """Certificates for mutual TLS, version 1.2 or later."""

    authority: File
    """PEM file of the authority that must have signed the peer's certificate."""


class TlsListener(Tls):
    """A TLS listener, in addition to the plain one."""

    port: Port = 2762


class Sender(Section):
    """A sender that is allowed to connect: a calling AE title and its hosts."""

    ae_title: AETitle
    hosts: tuple[HostNetwork, ...] = Field(min_length=1)
    """Addresses or networks (10.1.2.0/24). Host names are not accepted, because DNS answers can be forged."""


class Receive(Section):
    """The DICOM listeners."""

    ae_title: AETitle = "GLAM"
    host: str = "127.0.0.1"
    port: Annotated[Port | None, BeforeValidator(none_for_false)] = 11112
    """Port of the plain listener; None (in the file: `false`) for no plain listener."""
    tls: TlsListener | None = None
    senders: tuple[Sender, ...] = ()
    max_associations: int = Field(default=25, ge=1)
    max_object_bytes: int = Field(default=2 << 30, ge=1 << 20)
    idle_s: Annotated[float, Field(gt=0)] = 60
    """An association is aborted if its peer sends nothing for this time."""
    reserve_bytes: int = Field(default=5 << 30, ge=0)
    """Free space on the disk of the data folder below which instances are refused with status 0xA700."""
