"""The sample of bench.json, and the page that comes of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.report import Node, written

SAMPLE = Path(__file__).parents[1] / "bench" / "sample.json"


@pytest.fixture
def results() -> dict[str, Any]:
    """To be changed at will."""
    content: dict[str, Any] = json.loads(SAMPLE.read_bytes())
    return content


@pytest.fixture
def page(results: dict[str, Any], tmp_path: Path) -> Node:
    return written(results, tmp_path)
