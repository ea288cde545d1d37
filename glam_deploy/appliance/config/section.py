"""Base class and common types of the tables of `glam.toml`."""

import re
from pathlib import Path
from types import NoneType
from typing import Annotated, Literal, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    ValidationInfo,
    field_validator,
)

from glam_deploy.addresses import parsed_address, plain_network

AE_TITLE = r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$"
AETitle = Annotated[str, Field(pattern=AE_TITLE)]
"""PS3.5 table 6.2-1."""
Port = Annotated[int, Field(ge=0, le=65535)]
"""0: a free port chosen by the system and written to the log; for tests."""
HostNetwork = Annotated[IPvAnyNetwork, AfterValidator(plain_network)]
"""An address or a network."""
DIGEST = "^[0-9a-f]{64}$"
"""SHA-256 in hexadecimal."""
Seconds = Annotated[float, Field(ge=0)]
_HOST_NAME = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})*\.?")


def _bare_host(value: str) -> str:
    """Reject what is neither a host name nor an address, such as a URL."""
    try:
        is_host = bool(_HOST_NAME.fullmatch(value) or parsed_address(value))
    except ValueError:
        is_host = False
    if not is_host:
        raise ValueError("expected a host name or an address, as pacs.example or 10.1.2.3, without http:// and port")
    return value


Host = Annotated[str, AfterValidator(_bare_host)]
"""Name or address of another node."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def none_for_false(value: object) -> object:
    """None for False: TOML has no null."""
    return None if value is False else value


def _not_empty(value: object) -> object:
    """Reject an empty path, which would mean the folder of the configuration file."""
    if value == "":
        raise ValueError("expected a path")
    return value


File = Annotated[Path, BeforeValidator(_not_empty)]


class Section(BaseModel):
    """A table of the configuration file. Every number in it is finite, and no text or path has a NUL character."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_type(cls, value: object, info: ValidationInfo) -> object:
        """Reject values that pydantic would convert: a number in quotation marks, a truth value for a number.

        And NUL characters, which the system's calls refuse with an error that names no key.
        """
        field = cls.model_fields[str(info.field_name)]
        kinds = _leaves(field.annotation)
        if isinstance(value, str) and kinds <= {int, float, bool, NoneType}:
            what = "true or false" if bool in kinds else "a number"
            raise ValueError(f"expected {what}, without quotation marks")
        takes_false = any(getattr(each, "func", None) is none_for_false for each in field.metadata)
        if isinstance(value, bool) and kinds <= {int, float, NoneType} and not (takes_false and value is False):
            raise ValueError(f"expected a number{' or false' * takes_false}")
        texts = value if isinstance(value, list | tuple) else [value]
        if any("\0" in str(text) for text in texts if isinstance(text, str | Path)):
            raise ValueError("has a NUL character: remove it")
        return value


def _leaves(annotation: object) -> set[object]:
    """The types of an annotation without containers, unions and metadata."""
    if get_origin(annotation) is Literal:
        return {type(value) for value in get_args(annotation)}
    if get_origin(annotation) is Annotated:
        return _leaves(get_args(annotation)[0])
    parts = [part for part in get_args(annotation) if part is not Ellipsis]
    return set().union(*map(_leaves, parts)) if parts else {annotation}
