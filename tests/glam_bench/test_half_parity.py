"""What the comparison of half graphs writes and prints; the comparison itself is `agreement`'s."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import fill

from glam_bench import half_parity, images
from glam_deploy.bundle import Bundle
from glam_deploy.cli.main import status_of
from glam_deploy.errors import InputError
from glam_deploy.networks import GLAM
from glam_deploy.records import NetworkInput


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One standardized view and a small bundle; what is found of them is made up."""

    def made_up(bundle: Bundle, views: Sequence[NetworkInput], patches: int) -> dict[str, Any]:
        worst = {"benign": 0.875, "malignant": None}
        return {"fp16": {"same_patches": patches, "worst_dice": worst, "cases": [view.source.name for view in views]}}

    monkeypatch.setattr(half_parity, "parity", made_up)
    (tmp_path / "bundle").mkdir()
    fill(tmp_path / "bundle")
    rng = np.random.default_rng(0)
    np.save(tmp_path / "view.npy", rng.standard_normal(GLAM.input_shape, np.float32))
    where = ["--bundle", str(tmp_path / "bundle"), "--out", str(tmp_path / "rows.json")]
    return [str(tmp_path / "view.npy"), "--standardized", *where]


def test_rows_are_kept_by_name_and_told(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half_parity.main(["first", *arguments])
    half_parity.main(["second", *arguments])
    half_parity.main(["first", *arguments, "--patches", "1", "3"])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows.keys() == {"first", "second"}
    assert [rows["first"][k]["fp16"]["same_patches"] for k in ("k=1", "k=3")] == [1, 3]
    assert rows["second"]["k=1"]["fp16"]["cases"] == ["view.npy"]
    assert rows["second"].keys() == {"machine", "weights", "k=1"}
    assert "k=3 fp16: same patches 3 of 1, worst Dice benign 0.8750, malignant -\n" in capsys.readouterr().out


def test_an_image_that_cannot_be_used_is_named(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.dcm").touch()
    assert status_of(lambda: half_parity.main(["first", str(tmp_path / "empty.dcm"), *arguments[2:]])) == 1
    assert capsys.readouterr().err.startswith(f"glam-deploy: {tmp_path / 'empty.dcm'}: the file is empty")
    with pytest.raises(InputError, match=r"empty\.dcm: the file is empty"):
        images.standardized([tmp_path / "empty.dcm"], tmp_path)
