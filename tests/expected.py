"""Skips that a machine can forbid: what GLAM_EXPECT names (comma separated) must be there, or its tests fail."""

import os

import pytest

from glam_deploy.engines.registry import OWNERS


def need(name: str, missing: object) -> None:
    """Skip the test where `missing` says what this machine lacks of `name`; fail it where `name` is expected."""
    if not missing:
        return
    expected = name in os.environ.get("GLAM_EXPECT", "").split(",")
    (pytest.fail if expected else pytest.skip)(f"{name}: this machine lacks {missing}")


def need_engine(name: str) -> None:
    """As `need`, for an engine of the registry: only its packages decide, never an error while it opens."""
    need(name, ", ".join(OWNERS[name].missing))
