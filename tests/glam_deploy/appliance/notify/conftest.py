"""An appliance with two targets."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import Authority
from support.notify import Site
from support.web import appliance, configuration


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with appliance(configuration(tmp_path)) as made:
        yield Site(made)


@pytest.fixture
def certificates(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certificates")
