"""An appliance with nothing in it, and one in which one of everything has happened."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import chromium_browser
from support.long_web import Long, fill_long, long_configuration
from support.providers import false_provider
from support.web import Appliance, Busy, appliance, configuration, fill, serving


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Appliance]:
    with appliance(configuration(tmp_path, stow=True)) as made:
        yield made


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    """For tests that only look."""
    with appliance(configuration(tmp_path_factory.mktemp("busy"))) as made:
        yield fill(made)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's, driven by Playwright."""
    with chromium_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def long(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Long, str]]:
    """The appliance with the longest records, and its address."""
    with (
        false_provider() as provider,
        appliance(long_configuration(tmp_path_factory.mktemp("long"), provider)) as made,
    ):
        filled = fill_long(made)
        with serving(made) as address:
            yield filled, address
