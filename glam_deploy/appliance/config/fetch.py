"""Tables of what goes first, and of what is fetched from an archive."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from glam_deploy.appliance.config.listeners import Tls
from glam_deploy.appliance.config.section import LOOPBACK, AETitle, File, Host, Port, Section

WINDOW = r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"
Positive = Annotated[float, Field(gt=0)]


class PriorityRules(Section):
    """Which exams are urgent (STAT)."""

    stat_senders: tuple[AETitle, ...] = ()
    """Calling AE titles all of whose exams are urgent."""
    header: bool = True
    """Whether Requested Procedure Priority (0040,1003) STAT or HIGH, or Study Priority ID (0032,000C) HIGH, make an
    exam urgent.
    """


class Fetch(Section):
    """The archive from which studies are fetched, how, and when."""

    ae_title: AETitle | None = None
    host: Host | None = None
    port: Port | None = None
    calling_ae_title: AETitle = "GLAM"
    tls: Tls | None = None
    retrieve: Literal["get", "move"] = "get"
    """C-GET, or C-MOVE to the appliance's own receiver."""
    url: str | None = None
    """DICOMweb root (https://pacs/dicom-web), instead of AE title, host and port."""
    token_file: File | None = None
    """File with a bearer token."""
    user: str | None = None
    password_file: File | None = None
    authority: File | None = None
    """PEM file of the authority of the service's certificate; as `stow_authority` of a target."""
    windows: tuple[Annotated[str, Field(pattern=WINDOW)], ...] = ()
    """Times of the day at which studies are fetched, local time, as in 22:00-06:00; empty for always."""
    at_once: int = Field(default=1, ge=1, le=16)
    """Number of studies that are fetched at the same time."""
    most_waiting: int = Field(default=20, ge=1)
    """No further study is fetched while this many fetched ones wait to be processed."""
    first_retry_s: Positive = 60
    longest_retry_s: Positive = 3600
    attempts: int = Field(default=5, ge=1)
    """A study is given up after the archive, which answers, has failed to send it this often. An archive that cannot be
    reached is tried without end.
    """
    timeout_s: Positive = 30
    targets: tuple[str, ...] | None = None
    """Names of the targets that get the results of fetched studies; None for those of all other studies."""

    @model_validator(mode="after")
    def _one_way(self) -> "Fetch":
        dimse = [self.ae_title, self.host, self.port]
        if (self.url is None) == (None in dimse) or (self.url and any(dimse)):
            raise ValueError("give either ae_title, host and port, or url")
        return self

    @model_validator(mode="after")
    def _web_in_order(self) -> "Fetch":
        secrets = (self.token_file, self.user, self.password_file)
        if self.url is None:
            if any((*secrets, self.authority)):
                raise ValueError("token_file, user, password_file and authority go with url only")
            return self
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.hostname or address.query or "@" in address.netloc:
            raise ValueError("url is not a DICOMweb root: expected https://pacs/dicom-web")
        if any(secrets) and address.scheme == "http" and address.hostname not in LOOPBACK:
            raise ValueError("url is http, which sends the token or password unencrypted: use https")
        if (self.user is None) != (self.password_file is None) or (self.user and self.token_file):
            raise ValueError("give user and password_file, or token_file, or none of them")
        return self

    @model_validator(mode="after")
    def _windows_open(self) -> "Fetch":
        if empty := [window for window in self.windows if window[:5] == window[6:]]:
            raise ValueError(f"the window {empty[0]} ends when it starts: leave `windows` out for the whole day")
        return self

    @property
    def moves(self) -> bool:
        """Whether images arrive at the receiver by C-MOVE."""
        return self.url is None and self.retrieve == "move"

    @property
    def place(self) -> str:
        """The archive, for messages."""
        return self.url or f"{self.ae_title} at {self.host} port {self.port}"
