"""`glam-deploy run-dir`, as a host calls it: which folders, what is written, and what a shell sees."""

import gzip
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from mammograms import breast, write_mg
from pacs.exams import write_exam
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import BreastTomosynthesisImageStorage, ExplicitVRLittleEndian, MediaStorageDirectoryStorage
from support.commands import Cli, names, strict
from support.deep_folder import make_deep_folder
from support.tiny_bundle import write_tiny_bundle

from glam_deploy.appliance import folder, folder_files
from glam_deploy.appliance.work import result_objects
from glam_deploy.appliance.work.result_objects import StudyReports
from glam_deploy.cli.run_dir import in_and_out
from glam_deploy.dicom.mammography import write_view
from glam_deploy.errors import UsageError
from glam_deploy.records import View

MERCURE = {"MERCURE_IN_DIR": "/m/in", "MERCURE_OUT_DIR": "/m/out"}
MONAI = {"MONAI_INPUTPATH": "/var/in", "MONAI_OUTPUTPATH": "/var/out"}

# which folders


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (["a", "b"], {}, ("a", "b")),
        (["a", "b"], MERCURE, ("a", "b")),
        ([], MERCURE, ("/m/in", "/m/out")),
        ([], MONAI, ("/var/in", "/var/out")),
        ([], MERCURE | MONAI, ("/m/in", "/m/out")),
        ([], {"MERCURE_IN_DIR": "/m/in"} | MONAI, ("/var/in", "/var/out")),
        ([], {"MERCURE_IN_DIR": "/m/in", "MERCURE_OUT_DIR": ""} | MONAI, ("/var/in", "/var/out")),
    ],
)
def test_folders(given: list[str], environment: dict[str, str], expected: tuple[str, str]) -> None:
    assert in_and_out([Path(name) for name in given], environment) == tuple(map(Path, expected))


@pytest.mark.parametrize(
    "environment", [{}, {"MERCURE_IN_DIR": "/m/in"}, {"MERCURE_IN_DIR": "/a", "MONAI_OUTPUTPATH": "/b"}]
)
def test_no_folders(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"0 folders given.*MERCURE_IN_DIR and MERCURE_OUT_DIR"):
        in_and_out([], environment)


def test_one_folder_is_not_completed_by_the_environment() -> None:
    with pytest.raises(UsageError, match="1 folder given"):
        in_and_out([Path("a")], MERCURE)


def test_what_cannot_serve_as_a_folder(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is not a folder" in cli("run-dir", tmp_path / "none", tmp_path / "out").err
    assert "cannot be made" in cli("run-dir", tmp_path, tmp_path / "file" / "out").err
    said = cli("run-dir", tmp_path, tmp_path)
    assert (said.code, "holds 'file', expected an empty folder" in said.err) == (2, True)


# what is written


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


def result_of(out: Path) -> dict[str, Any]:
    said: dict[str, Any] = strict((out / "result.json").read_text("utf-8"))
    return said


def test_objects_of_each_study(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    for seed in ("one", "two"):
        write_exam(tmp_path / "in" / seed, seed, [View.L_CC, View.R_CC])
    done = cli("run-dir", "--bundle", tiny, tmp_path / "in", tmp_path / "out")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "4 done, 0 skipped, 0 failed; 12 objects"
    said = result_of(tmp_path / "out")
    files = [each["file"] for study in said["studies"] for each in study["objects"]]
    assert names(tmp_path / "out") == sorted([*files, "result.json"])
    for study in said["studies"]:
        kinds = Counter(each["kind"] for each in study["objects"])
        assert kinds == {"seg": 2, "sc": 2, "cad_sr": 1, "sr": 1}
        for each in study["objects"]:
            found = dcmread(tmp_path / "out" / each["file"], stop_before_pixels=True)
            assert each["file"] == f"{found.SeriesInstanceUID}#{found.SOPInstanceUID}.dcm"
            assert (found.StudyInstanceUID, found.SOPClassUID) == (study["study_uid"], each["sop_class"])


def test_exam_level_scores(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    write_exam(tmp_path / "in", "levels", [View.L_CC, View.L_MLO])
    assert cli("run-dir", "--bundle", tiny, tmp_path / "in", tmp_path / "out").code == 0
    (study,) = result_of(tmp_path / "out")["studies"]
    of_views = [view["predictions"]["y_global"]["malignant"] for view in study["views"]]
    exam = study["exam"]
    assert (exam["id"], exam["score"], exam["complete"]) == (study["study_uid"], "y_global", False)
    expected = {"mean": pytest.approx(sum(of_views) / 2, rel=1e-6), "maximum": max(of_views)}
    assert exam["scores"]["malignant"] == exam["breasts"]["L"]["malignant"] == expected
    assert exam["remarks"] == ["no result of R-CC", "no result of R-MLO"]


def test_views_of_two_dates_in_one_study_are_not_combined(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    _, second = write_exam(tmp_path / "in", "dates", [View.L_CC, View.L_MLO])
    dataset = dcmread(second)
    dataset.StudyDate = "20240101"
    dataset.save_as(second)
    assert cli("run-dir", "--bundle", tiny, tmp_path / "in", tmp_path / "out").code == 0
    (study,) = result_of(tmp_path / "out")["studies"]
    assert (study["exam"]["scores"], study["exam"]["breasts"], study["exam"]["complete"]) == ({}, {}, False)
    assert study["exam"]["remarks"][-1] == "headers differ in StudyDate, so the images are not combined"
    assert all(view["predictions"] for view in study["views"])


def test_masks_and_scores_are_those_of_run(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    (file,) = write_exam(tmp_path / "in", "masks", [View.R_MLO])
    assert cli("run-dir", "--bundle", tiny, tmp_path / "in", tmp_path / "out").code == 0
    assert cli("run", "--full", "--bundle", tiny, "--out", tmp_path / "run", file).code == 0
    (study,) = result_of(tmp_path / "out")["studies"]
    (view,) = study["views"]
    report = strict((tmp_path / "run/R-MLO.json").read_text("utf-8"))
    assert {key: view[key] for key in ("predictions", "patches")} == {k: report[k] for k in ("predictions", "patches")}
    (mask,) = (each["file"] for each in study["objects"] if each["kind"] == "seg")
    with np.load(tmp_path / "run/R-MLO.npz") as arrays:
        expected = arrays["saliency_source"] > 0.5
    assert expected.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(dcmread(tmp_path / "out" / mask).pixel_array.astype(bool), expected)


def test_the_same_files_give_the_same_objects(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    write_exam(tmp_path / "in", "same", [View.L_CC])
    for out in ("first", "second"):
        assert cli("run-dir", "--bundle", tiny, tmp_path / "in", tmp_path / out).code == 0
    assert names(tmp_path / "first") == names(tmp_path / "second")


def test_as_a_host_calls_it(cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mercure names the files by two UIDs, and puts task.json beside them."""
    (file,) = write_exam(tmp_path / "in", "host", [View.L_CC])
    file.rename(tmp_path / "in/1.2.3#4.5.6.dcm")
    (tmp_path / "in/task.json").write_text("{}")
    monkeypatch.setenv("MERCURE_IN_DIR", str(tmp_path / "in"))
    monkeypatch.setenv("MERCURE_OUT_DIR", str(tmp_path / "out"))
    assert cli("run-dir", "--bundle", tiny).code == 0
    assert len(names(tmp_path / "out")) == 5


# what is not done


def test_what_is_no_mammogram_is_told(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    (file,) = write_exam(tmp_path / "in", "told", [View.L_CC])
    shutil.copy(file, tmp_path / "in/again.dcm")
    write_mg(tmp_path / "in/tomo.dcm", tomosynthesis)
    (tmp_path / "in/picture.png").write_bytes(b"")
    (tmp_path / "in/broken.dcm").write_bytes(b"no DICOM")
    done = cli("run-dir", "--bundle", tiny, tmp_path / "in", tmp_path / "out")
    assert (done.code, done.out.splitlines()[-1]) == (1, "1 done, 3 skipped, 1 failed; 4 objects")
    others = {each["file"]: (each["status"], each["reason"]) for each in result_of(tmp_path / "out")["others"]}
    assert others["broken.dcm"][0] == "failed"
    assert others["picture.png"] == ("skipped", "the file is not DICOM")
    assert "Tomosynthesis" in others["tomo.dcm"][1]
    assert others.keys() & {"again.dcm", "L-CC.dcm"}


def test_no_file_without_a_suffix_is_lost(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    (file,) = write_exam(tmp_path / "in", "lost", [View.L_CC])
    whole, dataset = file.read_bytes(), dcmread(file)
    bare = Dataset(dataset)
    bare.save_as(tmp_path / "in/bare", implicit_vr=True, little_endian=True)
    contents = {
        "headless": whole[128:],
        "packed": gzip.compress(whole),
        "empty": b"",
        "1.2.840.7": whole[:100],
        "README.txt": b"no image",
        "autorun.inf": b"[autorun]",
    }
    for name, content in contents.items():
        (tmp_path / "in" / name).write_bytes(content)
    os.mkfifo(tmp_path / "in/pipe")
    done = cli("run-dir", "--bundle", tiny, tmp_path / "in", tmp_path / "out")
    assert (done.code, done.out.splitlines()[-1]) == (1, "1 done, 0 skipped, 5 failed; 4 objects")
    told = {each["file"]: (each["status"], each["reason"]) for each in result_of(tmp_path / "out")["others"]}
    expected = {
        "headless": ("failed", "without its preamble.*put 128 bytes before it"),
        "bare": ("failed", "without the header.*dcmconv"),
        "packed": ("failed", "compressed with gzip.*gunzip"),
        "empty": ("failed", "empty.*copy it again"),
        "1.2.840.7": ("failed", "format of the content is unknown"),
    }
    assert told.keys() == expected.keys()
    for name, (status, reason) in expected.items():
        assert told[name][0] == status
        assert re.search(reason, told[name][1])
        assert f"{status:8}{name}  " in done.out


def test_files_passed_over_do_not_change_the_exit_code(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    write_exam(tmp_path / "in", "code", [View.L_CC])
    (tmp_path / "in/VERSION").write_text("3")
    done = cli("run-dir", "--bundle", tiny, tmp_path / "in", tmp_path / "out")
    assert (done.code, done.out.splitlines()[-1]) == (0, "1 done, 0 skipped, 0 failed; 4 objects")


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdir", "DICOMDIR.;1", "dicomdir;1"])
def test_a_dicomdir_is_no_failure(cli: Cli, tiny: Path, tmp_path: Path, name: str) -> None:
    write_dicomdir(tmp_path / "in", name)
    done = cli("run-dir", "--bundle", tiny, tmp_path / "in", tmp_path / "out")
    assert (done.code, done.out) == (0, "1 done, 0 skipped, 0 failed; 4 objects\n")
    ran = cli("run", "--bundle", tiny, "--out", tmp_path / "run", tmp_path / "in")
    assert (ran.code, ran.err) == (0, "")
    assert "1 done, 0 skipped, 0 failed" in ran.out


def test_a_dicomdir_with_another_name_is_skipped(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    write_dicomdir(tmp_path / "in", "index")
    done = cli("run-dir", "--bundle", tiny, tmp_path / "in", tmp_path / "out")
    assert done.code == 0
    (other,) = result_of(tmp_path / "out")["others"]
    ran = cli("run", "--bundle", tiny, "--out", tmp_path / "run", tmp_path / "in")
    assert (other["file"], other["status"], ran.code) == ("index", "skipped", 0)
    assert other["reason"].startswith("the object is a DICOMDIR")
    assert f"{other['reason']}\n" in ran.out


def test_results_of_an_earlier_run_are_no_inputs(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    (file,) = write_exam(tmp_path / "in", "earlier", [View.L_CC])
    assert cli("run", "--bundle", tiny, "--out", tmp_path / "in", file).code == 0
    assert (tmp_path / "in/L-CC.png").exists()
    done = cli("run-dir", "--bundle", tiny, tmp_path / "in", tmp_path / "out")
    assert (done.code, done.out) == (0, "1 done, 0 skipped, 0 failed; 4 objects\n")


@pytest.mark.parametrize("step", ["x" * 200, "x" * 196 + ".png"])
def test_only_a_folder_with_too_long_a_path_is_lost(cli: Cli, tiny: Path, tmp_path: Path, step: str) -> None:
    (file,) = write_exam(tmp_path / "in", "told", [View.L_CC])
    make_deep_folder(tmp_path / "in", step, file.read_bytes())
    done = cli("run-dir", "--bundle", tiny, tmp_path / "in", tmp_path / "out")
    assert (done.code, done.out.splitlines()[-1]) == (1, "1 done, 0 skipped, 1 failed; 4 objects")
    (lost,) = result_of(tmp_path / "out")["others"]
    assert lost["file"].startswith(f"{step}/{step}/") and lost["status"] == "failed"
    assert lost["reason"].endswith("(File name too long): shorten the names of its folders")


def test_a_view_that_is_refused_is_in_the_reports(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    write_mg(tmp_path / "in.dcm", lambda dataset: setattr(dataset, "BreastImplantPresent", "YES"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in.dcm").rename(tmp_path / "in/1.dcm")
    done = cli("run-dir", "--bundle", tiny, tmp_path / "in", tmp_path / "out")
    assert (done.code, done.out.splitlines()[-1]) == (1, "0 done, 1 skipped, 0 failed; 2 objects")
    (study,) = result_of(tmp_path / "out")["studies"]
    assert [each["kind"] for each in study["objects"]] == ["cad_sr", "sr"]
    assert "implant" in study["views"][0]["reason"]


def test_nothing_is_left_where_the_engine_fails(
    cli: Cli, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the fake engine of `bundle`."""
    monkeypatch.setenv("GLAM_TEST_NAN", "1")
    write_exam(tmp_path / "exam", "engine", [View.L_CC])
    assert cli("run-dir", "--bundle", bundle, tmp_path / "exam", tmp_path / "out").code == 4
    assert names(tmp_path / "out") == []


def test_an_empty_folder(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    said = cli("run-dir", "--bundle", tiny, tmp_path / "in", tmp_path / "out")
    assert (said.code, "contains no DICOM" in said.err) == (2, True)


def write_dicomdir(folder: Path, name: str) -> None:
    """A view, and an index as of PS3.3 annex F, whose data set has no UIDs."""
    write_exam(folder, "media", [View.L_CC])
    index = Dataset()
    index.file_meta = FileMetaDataset()
    index.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    index.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    index.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    index.FileSetID = "EXAM"
    index.FileSetConsistencyFlag = 0
    index.DirectoryRecordSequence = []
    index.save_as(folder / name, enforce_file_format=True)


def tomosynthesis(dataset: Dataset) -> None:
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = BreastTomosynthesisImageStorage


Harm = Callable[[Path, Path], Iterator[None]]


def exchanged(one: Path, other: Path) -> Iterator[None]:
    """The files change their names."""
    kept = one.with_name(".kept")
    one.rename(kept)
    other.rename(one)
    try:
        yield
    finally:
        one.rename(other)
        kept.rename(one)


def linked(one: Path, other: Path) -> Iterator[None]:
    """The folder of the first becomes a link to that of the other."""
    kept = one.parent.with_name("kept")
    one.parent.rename(kept)
    one.parent.symlink_to(other.parent)
    try:
        yield
    finally:
        one.parent.unlink()
        kept.rename(one.parent)


@pytest.mark.parametrize("harm", [exchanged, linked])
@pytest.mark.parametrize("where", ["read_view", "segmentation"])
def test_a_file_exchanged_and_put_back_has_no_result(
    cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Harm, where: str
) -> None:
    """Pixels or objects were those of another image, though each hash is that of the first; other studies go on."""
    (one,) = write_exam(tmp_path / "in", "exchanged", [View.L_CC])
    (elsewhere,) = write_exam(tmp_path / "elsewhere", "untouched", [View.R_CC])
    elsewhere.rename(tmp_path / "in/untouched.dcm")
    (other,) = write_exam(tmp_path / "other", "exchanged", [View.L_CC])
    module = folder if where == "read_view" else result_objects
    real = getattr(module, where)

    def read(given: Any, *more: Any, **options: Any) -> Any:
        path = given if isinstance(given, Path) else given.source
        if path.name != one.name:
            return real(given, *more, **options)
        with contextmanager(harm)(one, other):
            return real(given, *more, **options)

    monkeypatch.setattr(module, where, read)
    assert cli("run-dir", "--bundle", tiny, tmp_path / "in", tmp_path / "out").code == 1
    studies = {study["views"][0]["file"]: study for study in result_of(tmp_path / "out")["studies"]}
    (view,) = studies[one.name]["views"]
    assert view["status"] == "failed" and "exchanged while it was read" in view["reason"]
    assert studies["untouched.dcm"]["views"][0]["status"] == "done" and studies["untouched.dcm"]["objects"]
    assert not any(entry["kind"] == "seg" for entry in studies[one.name]["objects"])


def test_a_file_that_is_changed_after_its_results_were_made_has_none(
    cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = write_exam(tmp_path / "in", "changed", [View.L_CC])
    (elsewhere,) = write_exam(tmp_path / "elsewhere", "untouched", [View.R_CC])
    elsewhere.rename(tmp_path / "in/untouched.dcm")
    real = StudyReports.publish

    def publish(*given: Any) -> Any:
        made = real(*given)
        one.write_bytes(elsewhere.with_name("other.dcm").read_bytes())
        return made

    write_view(elsewhere.with_name("other.dcm"), breast(View.L_CC), view=View.L_CC)
    monkeypatch.setattr(StudyReports, "publish", publish)
    assert cli("run-dir", "--bundle", tiny, tmp_path / "in", tmp_path / "out").code == 1
    studies = {study["views"][0]["file"]: study for study in result_of(tmp_path / "out")["studies"]}
    (view,) = studies[one.name]["views"]
    assert view["status"] == "failed" and "a file of this study was not the same throughout" in view["reason"]
    assert (studies[one.name]["objects"], bool(studies["untouched.dcm"]["objects"])) == ([], True)


@pytest.mark.parametrize("module", [folder, folder_files])
def test_a_file_replaced_after_its_header_was_read_has_no_result(
    cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    """Its results would be of one woman, and refer to the image of another."""
    one, two = write_exam(tmp_path / "in", "replaced", [View.L_CC, View.R_CC])
    (other,) = write_exam(tmp_path / "other", "other", [View.L_CC])
    name = "read_view" if module is folder else "examine"
    real = getattr(module, name)

    def read(path: Path, **options: Any) -> Any:
        if path.name == one.name and other.exists():
            other.replace(path)
        return real(path, **options)

    monkeypatch.setattr(module, name, read)
    assert cli("run-dir", "--bundle", tiny, tmp_path / "in", tmp_path / "out").code == 1
    found = result_of(tmp_path / "out")
    (study,) = found["studies"]
    status = {view["file"]: (view["status"], view["reason"]) for view in [*study["views"], *found["others"]]}
    assert status.pop(two.name) == ("done", None)
    (failure,) = status.values()
    assert failure[0] == "failed" and "while it was read" in failure[1]
