"""An appliance, and one in which much has happened."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support_web import Appliance, appliance, configuration


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Appliance]:
    with appliance(configuration(tmp_path, stow=True)) as made:
        yield made
