"""`glam-deploy run` over different images with one SOPInstanceUID."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from support.commands import Cli, Said
from support.engines import small_view

from glam_deploy.dicom.mammography import Exam, write_view
from glam_deploy.records import View

VIEWS = {"a.dcm": View.L_CC, "b.dcm": View.L_MLO, "c.dcm": View.L_CC}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images with one UID, a copy of the second, and an image with a UID of its own."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, view in VIEWS.items():
        write_view(folder / name, small_view().pixels, view=view, exam=Exam(patient_name="CANARY"))
    second = dcmread(folder / "b.dcm")
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = dcmread(folder / "a.dcm").SOPInstanceUID
    second.save_as(folder / "b.dcm")
    (folder / "d.dcm").write_bytes((folder / "c.dcm").read_bytes())
    return folder


@pytest.fixture
def run(cli: Cli, bundle: Path, tmp_path: Path) -> Callable[..., Said]:
    def run_over(*more: object) -> Said:
        said = cli("run", "--no-picture", "--bundle", bundle, "--engine", "onnx", "--out", tmp_path / "out", *more)
        assert said.code == 0, said.err
        return said

    return run_over


def warned(out: Path) -> dict[str, list[str]]:
    """Stem -> messages of the notice."""
    reports = {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}
    return {
        stem: [each["message"] for each in report["warnings"] if each["code"] == "ambiguous-uid"]
        for stem, report in reports.items()
    }


def test_the_later_one_has_a_notice_with_both_files(run: Callable[..., Said], folder: Path, tmp_path: Path) -> None:
    said = run(folder)
    told = f"{folder / 'b.dcm'} has the SOPInstanceUID of {folder / 'a.dcm'}, and other content"
    found = warned(tmp_path / "out")
    (message,) = found.pop("b")
    assert message.startswith(told) and found == {"a": [], "c": [], "d": []}  # a copy is no other image
    assert told in said.out and "CANARY" not in said.out + said.err
    assert len(list((tmp_path / "out").glob("*.npz"))) == 4
    assert "ambiguous-uid" in (tmp_path / "out/results.csv").read_text()


@pytest.mark.parametrize("first", ["a.dcm", "b.dcm"])
def test_so_has_one_whose_result_is_kept(run: Callable[..., Said], folder: Path, tmp_path: Path, first: str) -> None:
    run(folder / first, "--resume")
    said = run(folder / "a.dcm", folder / "b.dcm", "--resume")
    told = f"{folder / 'b.dcm'} has the SOPInstanceUID of {folder / 'a.dcm'}, and other content"
    assert told in (said.out if first == "a.dcm" else said.err)
    assert bool(warned(tmp_path / "out")["b"]) == (first == "a.dcm")
    assert "1 kept" in said.out
