"""`glam-deploy run-dir` with several files under one SOP Instance UID: which is used, and that none is lost."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gdcm
import pytest
from mammograms import transcode
from pacs.exams import write_exam
from pydicom import dcmread
from pydicom.dataset import Dataset
from support.commands import Cli, strict
from support.tiny_bundle import write_tiny_bundle

from glam_deploy.records import View

ROWS = b"\x28\x00\x10\x00"
"""The tag (0028,0010) in little endian."""
UID = "1.2.826.0.1.3680043.10.1.77"
CONFLICT = "2 files contradict each other under one SOP Instance UID"

Edit = Callable[[Dataset], object]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


class Run:
    """`run-dir` on the folder `source`."""

    def __init__(self, cli: Cli, bundle: Path, folder: Path) -> None:
        self._cli, self._bundle, self._folder = cli, bundle, folder
        self.source = folder / "in"
        self.source.mkdir()

    def add(self, name: str, view: View = View.L_CC, edit: Edit = lambda _: None, *, uid: str = UID) -> Path:
        """An image of one exam under `uid`, after `edit`."""
        (made,) = write_exam(self._folder / "made", "versions", [view])
        dataset = dcmread(made)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        edit(dataset)
        dataset.save_as(self.source / name)
        return self.source / name

    def outcome(self) -> tuple[int, str]:
        """Exit code and counts."""
        done = self._cli("run-dir", "--bundle", self._bundle, self.source, self._folder / "out")
        assert done.err == ""
        return done.code, done.out.splitlines()[-1].partition(";")[0]

    @property
    def studies(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._result["studies"]
        return found

    @property
    def views(self) -> dict[str, tuple[str, str | None]]:
        """File -> status and reason of each view."""
        views = (view for study in self.studies for view in study["views"])
        return {view["file"]: (view["status"], view["reason"]) for view in views}

    @property
    def others(self) -> dict[str, tuple[str, str]]:
        return {each["file"]: (each["status"], each["reason"]) for each in self._result["others"]}

    @property
    def _result(self) -> dict[str, Any]:
        found: dict[str, Any] = strict((self._folder / "out/result.json").read_text("utf-8"))
        return found

    def cad_summaries(self) -> list[tuple[str, str]]:
        """Code and text of the overall result in the CAD SR of each study (PS3.16 TID 4001)."""
        made = (each for study in self.studies for each in study["objects"] if each["kind"] == "cad_sr")
        found = []
        for each in made:
            items = dcmread(self._folder / "out" / each["file"]).ContentSequence
            (overall,) = (item for item in items if item.ConceptNameCodeSequence[0].CodeValue == "111017")
            text = next(item.TextValue for item in overall.ContentSequence if "TextValue" in item)
            found.append((overall.ConceptCodeSequence[0].CodeValue, text))
        return found


@pytest.fixture
def run(cli: Cli, tiny: Path, tmp_path: Path) -> Run:
    return Run(cli, tiny, tmp_path)


def cut(path: Path, length: int) -> None:
    """Leave the first `length` bytes of a file."""
    content = path.read_bytes()
    assert len(content) > length
    path.write_bytes(content[:length])


def zeroed(dataset: Dataset) -> None:
    """All pixels are 0, as in a file whose blocks were never written."""
    dataset.PixelData = bytes(len(dataset.PixelData))


def brighter(dataset: Dataset) -> None:
    pixels = bytearray(dataset.PixelData)
    pixels[2 * (100 * 400 + 100)] ^= 1
    dataset.PixelData = bytes(pixels)


# copies of one image


def test_the_same_bytes_are_a_duplicate(run: Run) -> None:
    shutil.copy(run.add("a.dcm"), run.source / "b.dcm")
    assert run.outcome() == (0, "1 done, 1 skipped, 0 failed")
    assert run.others == {"b.dcm": ("skipped", "a duplicate: it has the same bytes as a.dcm")}


def test_another_encoding_is_the_same_image(run: Run) -> None:
    run.add("a.dcm")
    transcode(run.add("b.dcm"), gdcm.TransferSyntax.JPEGLSLossless)
    assert run.outcome() == (0, "1 done, 1 skipped, 0 failed")
    assert run.others == {"b.dcm": ("skipped", "it holds the same image as a.dcm, in another encoding")}


@pytest.mark.parametrize("names", [("a.dcm", "b.dcm"), ("b.dcm", "a.dcm")], ids=["damaged first", "damaged last"])
@pytest.mark.parametrize("damage", ["pixels", "header", "element of the header", "blank"])
def test_an_intact_copy_is_used_in_place_of_a_damaged_one(run: Run, names: tuple[str, str], damage: str) -> None:
    damaged, intact = names
    path = run.add(damaged, edit=zeroed if damage == "blank" else lambda _: None)
    if damage == "pixels":
        cut(path, 200_000)
    elif damage != "blank":
        cut(path, path.read_bytes().index(ROWS) + (0 if damage == "header" else 9))
    run.add(intact)
    assert run.outcome() == (0, "1 done, 1 skipped, 0 failed")
    assert run.views == {intact: ("done", None)}
    status, reason = run.others[damaged]
    assert (status, reason.partition(":")[0]) == ("skipped", f"a damaged copy of {intact}, which is used instead")
    assert len(reason.partition(": ")[2]) > 20


def test_copies_that_are_all_damaged_fail(run: Run) -> None:
    cut(run.add("a.dcm"), 200_000)
    cut(run.add("b.dcm"), 100_000)
    assert run.outcome() == (1, "0 done, 0 skipped, 2 failed")
    assert (run.views["a.dcm"][0], run.others["b.dcm"][0]) == ("failed", "failed")
    assert "damaged copy" not in run.others["b.dcm"][1]


# different images


def test_two_views_under_one_uid_both_fail(run: Run) -> None:
    run.add("1.dcm")
    run.add("2.dcm", View.R_CC)
    run.add("3.dcm", View.R_MLO, uid=f"{UID}.3")
    assert run.outcome() == (1, "1 done, 0 skipped, 2 failed")
    expected = f"{CONFLICT} (views L-CC, R-CC): other pixels. None is used"
    for status, reason in (run.views["1.dcm"], run.others["2.dcm"]):
        assert status == "failed"
        assert str(reason).startswith(expected)
    (study,) = run.studies
    assert {view["file"]: view["view"] for view in study["views"]} == {"1.dcm": None, "3.dcm": "R-MLO"}
    ((code, text),) = run.cad_summaries()
    assert code in ("111243", "111244")  # CID 6047: not all algorithms succeeded
    assert f"Could not be processed: {expected}" in text
    assert ".dcm" not in text


@pytest.mark.parametrize(
    ("edit", "differs"),
    [
        (brighter, "other pixels"),
        (lambda dataset: setattr(dataset, "PatientID", "other"), "equal pixels, but other PatientID"),
        (lambda dataset: setattr(dataset, "BreastImplantPresent", "YES"), "other BreastImplantPresent"),
    ],
)
def test_what_makes_a_conflict(run: Run, edit: Edit, differs: str) -> None:
    run.add("a.dcm")
    run.add("b.dcm", edit=edit)
    assert run.outcome() == (1, "0 done, 0 skipped, 2 failed")
    for _, reason in (*run.views.values(), *run.others.values()):
        assert f"{CONFLICT} (views L-CC): {differs}. " in str(reason)


def test_a_damaged_file_of_another_view_is_no_copy(run: Run) -> None:
    run.add("a.dcm")
    cut(run.add("b.dcm", View.R_CC), 200_000)
    assert run.outcome() == (1, "0 done, 0 skipped, 2 failed")
    assert f"{CONFLICT} (views L-CC, R-CC): other ImageLaterality" in str(run.views["a.dcm"][1])


def test_a_conflict_between_studies_is_in_the_reports_of_both(run: Run) -> None:
    run.add("a.dcm")
    run.add("b.dcm", edit=lambda dataset: setattr(dataset, "StudyInstanceUID", f"{UID}.9"))
    assert run.outcome() == (1, "0 done, 0 skipped, 2 failed")
    assert {file: status for file, (status, _) in run.views.items()} == {"a.dcm": "failed", "b.dcm": "failed"}
    assert [code for code, _ in run.cad_summaries()] == ["111245", "111245"]  # CID 6047: no algorithms succeeded
