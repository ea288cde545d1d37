"""An appliance with nothing in it, and one in which one of everything has happened."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.web import Appliance, Busy, appliance, configuration, fill


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Appliance]:
    with appliance(configuration(tmp_path, stow=True)) as made:
        yield made


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    """For tests that only look."""
    with appliance(configuration(tmp_path_factory.mktemp("busy"))) as made:
        yield fill(made)
