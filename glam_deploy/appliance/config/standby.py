"""The table `[standby]`: a copy of the data folder that is kept current for a second node."""

from typing import Annotated

from pydantic import Field

from glam_deploy.appliance.config.section import File, Section


class Standby(Section):
    """Where the copy is kept, and how current. docs/operations.md has the take-over."""

    folder: File | None = None
    """A folder on the disk of the second node; None: no copy."""
    every_s: Annotated[float, Field(ge=1)] = 10
    """Time between the end of a copy and the start of the next one."""
