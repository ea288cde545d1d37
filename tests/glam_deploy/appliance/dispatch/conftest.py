from collections.abc import Iterator
from pathlib import Path

import pytest
from support.outbox import Outbox, opened_outbox
from support.pacs import FakePacs


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with opened_outbox(tmp_path / "data") as outbox:
        yield outbox


@pytest.fixture
def pacs() -> Iterator[FakePacs]:
    with FakePacs().running() as pacs:
        yield pacs
