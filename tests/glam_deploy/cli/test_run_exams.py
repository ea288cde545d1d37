"""`glam-deploy run`: exam-level scores in exams.csv, in the text and in --json, and after --resume."""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from mammograms import write_mg
from PIL import Image
from pydicom import dcmread
from support.commands import Cli, Said, names, strict
from support.engines import small_view

from glam_deploy.dicom.mammography import Exam, build_view, save, write_view
from glam_deploy.records import View


def write_png(path: Path, brightness: int) -> Path:
    pixels = small_view().pixels
    path.parent.mkdir(exist_ok=True)
    shown = np.where(pixels > 0, pixels + 40 * brightness, 0).astype(np.uint16)
    Image.fromarray(shown[:, ::-1] if "_R-" in path.name else shown).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two exams in one folder, told apart by their names: 0 with three views and 1 with one."""
    for n, name in enumerate(("0_L-CC", "0_L-MLO", "0_R-CC", "1_L-CC")):
        write_png(tmp_path / f"in/{name}.png", n)
    return tmp_path / "in"


@pytest.fixture
def run(cli: Cli, bundle: Path, tmp_path: Path) -> Callable[..., Said]:
    def run_over(*inputs: object) -> Said:
        return cli("run", "--no-picture", "--bundle", bundle, "--out", tmp_path / "out", *inputs)

    return run_over


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def malignant(out: Path, stem: str) -> float:
    value: float = json.loads((out / f"{stem}.json").read_text())["predictions"]["y_global"]["malignant"]
    return value


def exams_of(said: Said) -> list[dict[str, Any]]:
    lines = [strict(line) for line in said.out.splitlines()]
    return [line["exam"] for line in lines if line["schema"] == "glam-deploy.exam"]


def test_a_folder_of_two_exams(run: Callable[..., Said], folder: Path, tmp_path: Path) -> None:
    said, out = run(folder, "--json"), tmp_path / "out"
    assert said.code == 0
    first, second = exams_of(said)
    of_view = {stem: malignant(out, stem) for stem in ("0_L-CC", "0_L-MLO", "0_R-CC", "1_L-CC")}
    left, exam = [of_view["0_L-CC"], of_view["0_L-MLO"]], [of_view[stem] for stem in ("0_L-CC", "0_L-MLO", "0_R-CC")]
    assert first["id"] == str(folder / "0")
    assert first["score"] == "y_global"
    assert first["scores"]["malignant"]["mean"] == pytest.approx(fmean(exam), rel=1e-6)
    assert first["scores"]["malignant"]["maximum"] == max(exam)
    assert first["breasts"]["L"]["malignant"] == {
        "mean": pytest.approx(fmean(left), rel=1e-6),
        "maximum": max(left),
    }
    assert first["breasts"]["R"]["malignant"]["maximum"] == of_view["0_R-CC"]
    assert (first["complete"], first["remarks"]) == (False, ["no result of R-MLO"])
    assert (second["images"], second["views"]) == (1, ["L-CC"])
    rows = table(out / "exams.csv")
    assert [(row["exam"], row["complete"], row["calibrated"]) for row in rows] == [
        (str(folder / "0"), "no", "no"),
        (str(folder / "1"), "no", "no"),
    ]
    assert float(rows[0]["exam_malignant_mean"]) == first["scores"]["malignant"]["mean"]
    assert float(rows[0]["left_malignant_maximum"]) == max(left)
    assert (rows[1]["right_malignant_mean"], rows[0]["views"]) == ("", "L-CC R-CC L-MLO")
    assert [row["exam"] for row in table(out / "results.csv")] == [str(folder / "0")] * 3 + [str(folder / "1")]


def test_text(run: Callable[..., Said], folder: Path, tmp_path: Path) -> None:
    lines = run(folder).out.splitlines()
    start = lines.index("Exam-level scores: mean / maximum over the images, not calibrated")
    assert lines[start + 1] == str(folder / "0")
    assert lines[start + 2].startswith("  exam: y_global benign ")
    assert lines[start + 5] == "  incomplete: no result of R-MLO"
    assert lines[-1].startswith("4 done, 0 skipped, 0 failed")
    assert "Exam-level" not in run(folder, "-q").out


def test_a_failed_view_and_a_second_file_of_a_view_are_marked(
    run: Callable[..., Said], folder: Path, tmp_path: Path
) -> None:
    (folder / "0_R-MLO.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    write_png(folder / "0_LCC.png", 7)
    (first, _) = exams_of(run(folder, "--json"))
    assert first["remarks"] == ["no result of R-MLO", "2 images of L-CC", "failed: 1"]
    assert first["images"] == 5


def test_resuming_gives_the_same_table(run: Callable[..., Said], folder: Path, tmp_path: Path) -> None:
    run(folder)
    whole = (tmp_path / "out/exams.csv").read_bytes()
    (tmp_path / "out/exams.csv").unlink()
    (tmp_path / "out/0_L-MLO.json").unlink()
    assert "1 done, 0 skipped, 0 failed, 3 kept" in run(folder, "--resume").out
    found, before = table(tmp_path / "out/exams.csv"), list(csv.DictReader(whole.decode().splitlines()))
    assert sorted(found, key=lambda row: row["exam"]) == before
    # inputs of an earlier run stay in the table
    run(folder / "1_L-CC.png", "--resume")
    assert len(table(tmp_path / "out/exams.csv")) == 2


def test_the_table_of_views_groups(run: Callable[..., Said], folder: Path, tmp_path: Path) -> None:
    views = tmp_path / "views.csv"
    views.write_text("file,view,exam\n0_L-CC.png,L-CC,A\n0_L-MLO.png,L-MLO,A\n0_R-CC.png,R-CC,B\n1_L-CC.png,L-CC,B\n")
    assert run(folder).code == 0
    said = run(folder, "--resume", "--views", views)
    assert said.code == 0
    assert [(row["exam"], row["views"]) for row in table(tmp_path / "out/exams.csv")] == [
        ("A", "L-CC L-MLO"),
        ("B", "L-CC R-CC"),
    ]
    views.write_text("file,view,exam\n0_L-CC.png,L-CC,A\n0_L-CC.png,L-CC,B\n")
    assert "line 3: '0_L-CC.png' is of exam 'B', and of 'A' in line 2" in run(folder, "--views", views).err


def test_dicom_is_grouped_by_study(run: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pixels = small_view().pixels
    for study in ("first", "second"):
        for view in (View.L_CC, View.L_MLO):
            path = tmp_path / f"in/{study}_{view}.dcm"
            write_view(path, (pixels >> 4).astype(np.uint16), view=view, exam=Exam(seed=study))
    write_mg(tmp_path / "in/first_R-CC.dcm", lambda dataset: delattr(dataset, "StudyInstanceUID"), view=View.R_CC)
    rows = {row["file"]: row["exam"] for row in (run(tmp_path / "in"), table(tmp_path / "out/results.csv"))[1]}
    uids = {Path(name).name: exam for name, exam in rows.items()}
    assert uids["first_L-CC.dcm"] == uids["first_L-MLO.dcm"] == Exam(seed="first").uid("study")
    assert uids["second_L-CC.dcm"] == Exam(seed="second").uid("study")
    assert uids["first_R-CC.dcm"] == ""  # an object without a study is never grouped by its name
    assert [row["images"] for row in table(tmp_path / "out/exams.csv")] == ["2", "2"]


def test_skipped_and_failed_objects_are_counted_in_their_exam(run: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pixels = (small_view().pixels >> 4).astype(np.uint16)
    for view in View:
        stored = pixels[:, ::-1] if view.is_right else pixels
        write_view(tmp_path / f"in/{view}.dcm", stored, view=view, exam=Exam(seed="one"))
    magnified, cut = dcmread(tmp_path / "in/R-MLO.dcm"), (tmp_path / "in/L-CC.dcm").read_bytes()
    magnified.EstimatedRadiographicMagnificationFactor = "1.8"  # of contact views: about 1
    magnified.save_as(tmp_path / "in/magnified.dcm")
    (tmp_path / "in/cut.dcm").write_bytes(cut[:-1000])
    run(tmp_path / "in")
    (exam,) = table(tmp_path / "out/exams.csv")
    assert (exam["complete"], exam["images"], exam["remarks"]) == ("no", "6", "skipped: 1; failed: 1")
    assert exam["exam"] == Exam(seed="one").uid("study")


def test_two_women_under_one_study_are_not_combined(run: Callable[..., Said], tmp_path: Path) -> None:
    """Also after --resume, and in a run that adds the second woman; nothing that is written has her identifiers."""
    (tmp_path / "in").mkdir()
    for view, changes in (
        (View.L_CC, {"PatientID": "WOMAN-A", "PatientBirthDate": "19400102", "StudyDate": "20200304"}),
        (View.L_MLO, {"PatientID": "WOMAN-B", "PatientBirthDate": "19800102", "StudyDate": "20200304"}),
    ):
        dataset = build_view((small_view().pixels >> 4).astype(np.uint16), view=view)
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        save(dataset, tmp_path / f"in/{view}.dcm")
    remark = "headers differ in PatientBirthDate, PatientID, so the images are not combined"

    def remarks(*inputs: object) -> list[str]:
        said = run(*inputs, "--resume", "--json")
        assert said.code == 0
        written = [path.read_text() for path in (tmp_path / "out").iterdir() if path.suffix != ".npz"]
        plain = ("WOMAN-A", "WOMAN-B", "19400102", "19800102")
        digests = [hashlib.sha256(text.encode()).hexdigest() for text in plain]
        assert not [text for text in (*plain, *digests) if text in "".join(written) + said.out + said.err]
        (row,) = table(tmp_path / "out/exams.csv") if (tmp_path / "out/exams.csv").exists() else [{}]
        return [exam["remarks"][-1] for exam in exams_of(said)] + [row.get("remarks", "").split("; ")[-1]]

    assert remarks(tmp_path / "in/L-CC.dcm") == [""]
    assert remarks(tmp_path / "in/L-MLO.dcm") == [remark]
    assert remarks(tmp_path / "in") == [remark, remark]
    assert remarks(tmp_path / "in") == [remark, remark]


def test_two_engines_in_one_folder_are_not_combined(run: Callable[..., Said], folder: Path, tmp_path: Path) -> None:
    assert run(folder / "0_L-CC.png", "--resume", "--patches", "5").code == 0
    assert run(folder / "0_R-CC.png", "--resume", "--patches", "6").code == 0
    (row,) = table(tmp_path / "out/exams.csv")
    assert row["remarks"].endswith("results of different networks, engines or settings, which are not combined")
    assert (row["score"], row["exam_malignant_mean"]) == ("", "")
    assert run(folder / "0_L-CC.png", "--resume", "--patches", "6").code == 0
    assert table(tmp_path / "out/exams.csv")[0]["exam_malignant_mean"] != ""


def test_single_images_have_no_exam_level_results(run: Callable[..., Said], folder: Path, tmp_path: Path) -> None:
    assert run(folder / "0_L-CC.png", folder / "1_L-CC.png", "--json").out.count("\n") == 2
    assert "exams.csv" not in names(tmp_path / "out")


def test_a_table_of_the_users_is_in_the_way(run: Callable[..., Said], folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/exams.csv").write_text("mine")
    said = run(folder)
    assert (said.code, "exams.csv exists and was not written" in said.err) == (2, True)
    assert (tmp_path / "out/exams.csv").read_text() == "mine"
