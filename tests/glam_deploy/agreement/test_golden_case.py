"""The case inside a bundle, judged as the engine's precision asks."""

import io
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import facts, fill, write_manifest
from support.engines import FakeEngine, fake_engines, fake_identity, fill_with_golden, small_view

from glam_deploy.agreement import golden
from glam_deploy.agreement.golden import GOLDEN_FILE, check_golden, read_golden, write_golden
from glam_deploy.agreement.metrics import Comparison
from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.engines.base import Arrays, OpenedEngines
from glam_deploy.errors import BundleError
from glam_deploy.networks import GLAM
from glam_deploy.runtime.pipeline import Pipeline

HALF = 2e-3
"""Four roundings of fp16 at 1."""


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    fill(tmp_path)
    fill_with_golden(open_bundle(tmp_path), small_view())
    return open_bundle(tmp_path)


def missed(bundle: Bundle, precision: str, **wrong: float) -> list[str]:
    opened = OpenedEngines(engines=fake_engines(wrong=wrong), identity=fake_identity("x", precision))
    rows = check_golden(bundle, Pipeline(opened, patches=1, provenance={}))
    return [row.name for row in rows if not row.passed]


def test_a_half_precision_has_limits_of_its_own(bundle: Bundle) -> None:
    assert missed(bundle, "fp32", saliency_patches=HALF) == ["y_local", "saliency_patches"]
    assert missed(bundle, "fp16", saliency_patches=HALF) == []
    assert missed(bundle, "fp16", saliency_patches=0.1) == ["y_local", "saliency_patches"]


# a file that is no case


def arrays(**given: Any) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **given)
    return out.getvalue()


def with_member(name: str, content: bytes) -> bytes:
    """A case in which a member of a zip file has this content; a header may state more than it has."""
    out = io.BytesIO(arrays(view=np.array("L-CC")))
    with warnings.catch_warnings(), zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # a name that is there already
        archive.writestr(name, content)
    return out.getvalue()


VAST = b"\x93NUMPY\1\0\x46\0{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000,), }     \n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        arrays(view=np.array("L-CC")),
        arrays(pixels=np.ones((9, 9), np.uint16), view=np.array("up")),
        arrays(pixels=np.array([{}], object), view=np.array("L-CC")),
        arrays(pixels=np.array([b"x"]), view=np.array("L-CC")),
        arrays(pixels=np.ones((9, 9), np.uint16), view=np.array("L-CC"), more=np.ones(1)),
        with_member("pixels.npy", VAST),
        with_member("pixels.npy", bytes(2 << 20)),
        with_member("view.npy", b"x"),
    ],
    ids=["empty", "foreign", "no pixels", "no view", "objects", "text", "more", "short", "bomb", "twice"],
)
def test_a_case_that_cannot_be_read_is_an_error_of_the_bundle(
    bundle: Bundle, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "MAX_BYTES", 1 << 20)
    (bundle.folder / GOLDEN_FILE).write_bytes(content)
    write_manifest(bundle.folder, facts())
    with pytest.raises(BundleError, match=r"golden/case\.npz cannot be read \(.*\)\. Export the checkpoint again"):
        read_golden(open_bundle(bundle.folder))


# patches that lie elsewhere


class Spots(FakeEngine):
    """A global stage whose benign map has these values in these cells, and nothing else."""

    def __init__(self, spots: Mapping[tuple[int, int], float]) -> None:
        super().__init__("global", network=GLAM)
        self.spots = spots

    def _global(self, inputs: Arrays) -> Arrays:
        saliency = np.zeros((1, 2, *GLAM.map_shape), np.float32)
        for (row, column), value in self.spots.items():
            saliency[0, 0, row, column] = value
        return super()._global(inputs) | {"saliency_global": saliency}


def spotted(spots: Mapping[tuple[int, int], float], precision: str = "fp32", **wrong: float) -> Pipeline:
    engines = fake_engines(network=GLAM, wrong=wrong) | {"global": Spots(spots)}
    opened = OpenedEngines(engines=engines, identity=fake_identity("x", precision))
    return Pipeline(opened, patches=1, provenance={})


LESION, BESIDE, FAR = (90, 30), (95, 50), (20, 30)
CHOSEN = {LESION: 1.0}
"""Every window that holds the cell has the same sum: the reference takes the first, from row 59 and column 0 on."""


@pytest.fixture
def tie_bundle(bundle: Bundle) -> Bundle:
    write_golden(bundle.folder / GOLDEN_FILE, small_view(), spotted(CHOSEN)(small_view()))
    write_manifest(bundle.folder, facts())
    return open_bundle(bundle.folder)


def judged(bundle: Bundle, pipeline: Pipeline) -> dict[str, Comparison]:
    return {row.name: row for row in check_golden(bundle, pipeline)}


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8+bf16", "global bf16, local fp32, fusion fp32"])
def test_a_tied_patch_of_a_reduced_precision_counts_as_the_references(tie_bundle: Bundle, precision: str) -> None:
    pipeline = spotted({**CHOSEN, BESIDE: 1e-6}, precision)
    assert pipeline(small_view()).patch_locations.tolist() == [[64 * 16, 19 * 16]]
    rows = judged(tie_bundle, pipeline)
    assert [name for name, row in rows.items() if not row.passed] == []
    assert rows["patch_locations"].tied == 1
    assert rows["saliency_patches"].max_abs == 0, "of the reference's patch"


@pytest.mark.parametrize("precision", ["fp32", "winograd", "global fp32, local bf16, fusion fp32"])
def test_a_patch_of_fp32_lies_where_the_references_does(tie_bundle: Bundle, precision: str) -> None:
    rows = judged(tie_bundle, spotted({**CHOSEN, BESIDE: 1e-6}, precision))
    assert not rows["patch_locations"].passed


def test_a_patch_that_the_reference_rates_lower_is_missed(tie_bundle: Bundle) -> None:
    rows = judged(tie_bundle, spotted({FAR: 1.0}, "bf16"))
    assert not rows["patch_locations"].passed
    assert rows["patch_locations"].tied == 0


def test_a_wrong_local_stage_is_found_behind_a_tied_patch(tie_bundle: Bundle) -> None:
    rows = judged(tie_bundle, spotted({**CHOSEN, BESIDE: 1e-6}, "fp16", saliency_patches=0.1))
    assert {name for name, row in rows.items() if not row.passed} == {"saliency_patches", "y_local", "y_fusion"}
