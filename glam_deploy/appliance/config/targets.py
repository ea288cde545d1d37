"""Tables of where results go."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from glam_deploy.appliance.config.listeners import Tls
from glam_deploy.appliance.config.processing import ResultKind
from glam_deploy.appliance.config.section import LOOPBACK, AETitle, File, Host, Port, Section

TARGET_NAME = "^[a-z0-9-]{1,32}$"


class Target(Section):
    """A destination of result objects."""

    name: str = Field(pattern=TARGET_NAME)
    objects: Annotated[tuple[ResultKind, ...] | None, Field(min_length=1)] = None
    """Kinds of result objects that it gets; None for all that are made."""
    ae_title: AETitle | None = None
    host: Host | None = None
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
    folder: File | None = None
    """A folder that gets the objects as files, instead of an archive."""
    query: bool = True
    """Verify delivery by a query for the objects (C-FIND, QIDO-RS, reading the files), in addition to the status of the
    store.
    """

    @property
    def place(self) -> str:
        """Where it is, for people."""
        listener = f"{self.ae_title} at {self.host} port {self.port}{' with TLS' * bool(self.tls)}"
        return str(self.folder or self.stow_url or listener)

    @model_validator(mode="after")
    def _one_way(self) -> "Target":
        dimse = [each is not None for each in (self.ae_title, self.host, self.port)]
        ways = (any(dimse), self.stow_url is not None, self.folder is not None)
        if sum(ways) != 1 or any(dimse) != all(dimse):
            raise ValueError("give either ae_title, host and port, or stow_url, or folder")
        if self.folder and (self.commitment or self.tls):
            raise ValueError("commitment and tls are for archives: leave them out for a folder")
        return self

    @model_validator(mode="after")
    def _stow_in_order(self) -> "Target":
        secrets = (self.stow_token_file, self.stow_user, self.stow_password_file)
        if self.stow_url is None:
            if any((*secrets, self.stow_authority)):
                raise ValueError("stow_token_file, stow_user, stow_password_file, stow_authority go with stow_url only")
            return self
        address = urlsplit(self.stow_url)
        if address.scheme not in ("http", "https") or not address.hostname or address.query or "@" in address.netloc:
            raise ValueError("stow_url is not a DICOMweb root: expected https://pacs/dicom-web")
        if any(secrets) and address.scheme == "http" and address.hostname not in LOOPBACK:
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
