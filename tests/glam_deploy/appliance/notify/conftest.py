"""An appliance with two targets, whose triage threshold every image reaches."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import Authority
from support.notify import Site, triage_configuration
from support.web import appliance


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with appliance(triage_configuration(tmp_path, 0.001)) as made:
        yield Site(made)


@pytest.fixture
def certificates(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certificates")
