"""The case inside a bundle, judged as the engine's precision asks."""

from pathlib import Path

import pytest
from support_bundles import fill
from support_engines import fake_engines, fill_with_golden, small_view

from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.engines.base import OpenedEngines
from glam_deploy.runtime.golden import check_golden
from glam_deploy.runtime.pipeline import Pipeline

HALF = 2e-3
"""Four roundings of fp16 at 1."""


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    fill(tmp_path)
    fill_with_golden(open_bundle(tmp_path), small_view())
    return open_bundle(tmp_path)


def missed(bundle: Bundle, precision: str, **wrong: float) -> list[str]:
    opened = OpenedEngines(engines=fake_engines(wrong=wrong), provenance={"name": "x", "precision": precision})
    rows = check_golden(bundle, Pipeline(opened, patches=1, provenance={}))
    return [row.name for row in rows if not row.passed]


def test_a_half_precision_has_limits_of_its_own(bundle: Bundle) -> None:
    assert missed(bundle, "fp32", saliency_patches=HALF) == ["y_local", "saliency_patches"]
    assert missed(bundle, "fp16", saliency_patches=HALF) == []
    assert missed(bundle, "fp16", saliency_patches=0.1) == ["y_local", "saliency_patches"]
