"""Ray on this machine for all tests of this folder that need it."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from support.commands import PATHS


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """The module `ray`, connected; its processes find the packages of the tests."""
    from glam_deploy.archive.cluster import local_cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, PATHS)))
        with local_cluster() as module:
            yield module
