"""Base class and common types of the tables of `glam.toml`."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

AE_TITLE = r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$"
AETitle = Annotated[str, Field(pattern=AE_TITLE)]
"""PS3.5 table 6.2-1."""


class Section(BaseModel):
    """A table of the configuration file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
