"""A data folder to receive into."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.receive import Box, box, config_of


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Box]:
    with box(config_of(tmp_path)) as made:
        yield made
