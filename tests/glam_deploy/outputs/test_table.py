"""results.csv: what a spreadsheet and a person get of it, whatever stands in a name and whenever a kill comes."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glam_deploy.errors import InputError, NotForThisNetwork, UsageError
from glam_deploy.exams import made_by
from glam_deploy.outputs import report
from glam_deploy.outputs.table import COLUMNS, TABLE, Table, csv_line, is_table
from glam_deploy.outputs.writer import is_result
from glam_deploy.records import View

HEADING = (
    '"file","view","status","y_global_benign","y_global_malignant","y_local_benign","y_local_malignant",'
    '"y_fusion_benign","y_fusion_malignant","patches","notices","error","reason","time_ms","engine","bundle","report","exam",'
    '"made_by","headers"\n'
)


def table(folder: Path, again: Any = None) -> Table:
    return Table(folder, engine="onnx", bundle="ab12", again=again)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / TABLE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def done(make_result: Any, **changes: Any) -> report.Report:
    content = report.done(make_result(**{"provenance": {}} | changes), arrays_name="x.npz", picture_name=None)
    plain: report.Report = json.loads(report.to_text(content))
    return plain


def failed(message: str = "broken") -> report.Report:
    return report.failure("x", None, InputError(message))


def test_a_line_of_a_result(make_result: Any, tmp_path: Path) -> None:
    provenance = {"engine": {"name": "openvino"}, "bundle": {"id": "cd34"}}
    content = done(make_result, y_fusion=np.array([0.25, 0.5], np.float32), provenance=provenance)
    content["patches"][1]["source_box"] = None
    table(tmp_path).add(Path("exam/1.dcm"), "1.json", content, "1.2.840.1")
    assert (tmp_path / TABLE).read_text().startswith(HEADING)
    (row,) = rows(tmp_path)
    y_local = [report.shortest(value) for value in make_result().y_local]
    assert row == {
        "file": "exam/1.dcm",
        "view": "L-CC",
        "status": "done",
        "y_global_benign": "0.3",
        "y_global_malignant": "0.7",
        "y_local_benign": str(y_local[0]),
        "y_local_malignant": str(y_local[1]),
        "y_fusion_benign": "0.25",
        "y_fusion_malignant": "0.5",
        "patches": "[[200, 340, 712, 852], null]",
        "notices": "label",
        "error": "",
        "reason": "",
        "time_ms": "12.346",
        "engine": "openvino",
        "bundle": "cd34",
        "report": "1.json",
        "exam": "1.2.840.1",
        "made_by": made_by(provenance),
        "headers": "",
    }
    assert json.loads(row["patches"]) == [[200, 340, 712, 852], None]


def test_lines_without_a_result(tmp_path: Path) -> None:
    one = table(tmp_path)
    one.add(Path("a.png"), "a.json", failed("what was wrong"))
    one.add(Path("b.dcm"), "b.json", report.failure("b", None, NotForThisNetwork("tomosynthesis")))
    first, second = rows(tmp_path)
    assert (first["status"], first["error"], first["reason"]) == ("failed", "InputError", "what was wrong")
    assert (second["status"], second["error"], second["reason"]) == ("skipped", "NotForThisNetwork", "tomosynthesis")
    for row in (first, second):
        assert (row["engine"], row["bundle"], row["patches"], row["time_ms"]) == ("onnx", "ab12", "", "")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("-1+2|cmd", "'-1+2|cmd"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" =1", "' =1"),
        ("\t=1", "\\t=1"),
        ("\r=1", "\\r=1"),
        ("\uff1d1", "'\uff1d1"),
        ('a";=1,"b', 'a";=1,"b'),
        ("two\nlines", "two\\nlines"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("\u2028", "\\u2028"),
        ("\udcff", "\\udcff"),
        ("乳 é", "乳 é"),
    ],
)
def test_text_is_one_cell_and_no_formula(tmp_path: Path, text: str, cell: str) -> None:
    one = table(tmp_path)
    one.add(Path(text), f"{text}.json", failed(text))
    one.add(Path(text), f"{text}.json", failed(text))
    assert f"{text}.json" in one
    (row,) = rows(tmp_path)
    assert (row["file"], row["reason"], row["report"].removesuffix(".json")) == (cell, cell, cell)
    lines = (tmp_path / TABLE).read_bytes().split(b"\n")
    assert (len(lines), lines[-1]) == (3, b"")
    # a locale with another separator still finds text in quotes
    assert all(part[0] in '"0123456789' for part in lines[1].decode().split(";")[:1])


def test_an_input_has_one_line(make_result: Any, tmp_path: Path) -> None:
    one = table(tmp_path)
    for name in ("a", "b", "c"):
        one.add(Path(name), f"{name}.json", failed())
    one.add(Path("b"), "b.json", done(make_result))
    assert [(row["file"], row["status"]) for row in rows(tmp_path)] == [("a", "failed"), ("c", "failed"), ("b", "done")]


def test_a_file_whose_results_got_another_name_has_one_line(make_result: Any, tmp_path: Path) -> None:
    table(tmp_path).add(Path("a/1.png"), "1.json", done(make_result))
    again = table(tmp_path, {"a_1.json", "b_1.json"})
    for name in ("a", "b"):
        again.add(Path(name) / "1.png", f"{name}_1.json", done(make_result))
    assert [(row["file"], row["report"]) for row in rows(tmp_path)] == [
        ("a/1.png", "a_1.json"),
        ("b/1.png", "b_1.json"),
    ]


@pytest.mark.parametrize("cut", [1, 30, 120])
def test_resuming_drops_what_a_kill_cut_off(make_result: Any, tmp_path: Path, cut: int) -> None:
    one = table(tmp_path)
    for name in ("a", "b"):
        one.add(Path(name), f"{name}.json", done(make_result))
    whole = (tmp_path / TABLE).read_bytes()
    (tmp_path / TABLE).write_bytes(whole[:-cut])
    again = table(tmp_path, {"a.json", "b.json"})
    assert ("a.json" in again, "b.json" in again) == (True, False)
    again.add(Path("b"), "b.json", done(make_result))
    assert (tmp_path / TABLE).read_bytes() == whole


def test_resuming_keeps_done_lines_and_those_of_others(make_result: Any, tmp_path: Path) -> None:
    one = table(tmp_path)
    one.add(Path("a"), "a.json", done(make_result))
    for name in ("b", "other"):
        one.add(Path(name), f"{name}.json", failed())
    table(tmp_path, {"a.json", "b.json"})
    assert [row["file"] for row in rows(tmp_path)] == ["a", "other"]
    table(tmp_path)
    assert (tmp_path / TABLE).read_text() == HEADING


def test_a_table_of_another_release_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / TABLE).write_text(HEADING.replace('"report"', '"report","more"') + '"a","","done"\n')
    assert is_table(tmp_path / TABLE)
    table(tmp_path, set())
    assert (tmp_path / TABLE).read_text() == HEADING


@pytest.mark.parametrize("again", [None, set()])
@pytest.mark.parametrize("content", ["", "file,view,status\n", "name;score\n1;2\n"])
def test_a_table_of_the_users_is_left_alone(tmp_path: Path, content: str, again: Any) -> None:
    (tmp_path / TABLE).write_text(content)
    with pytest.raises(UsageError, match=r"results\.csv exists and was not written"):
        table(tmp_path, again)
    assert (tmp_path / TABLE).read_text() == content
    assert not is_result(tmp_path / TABLE)


def test_a_table_is_a_result(tmp_path: Path) -> None:
    table(tmp_path)
    assert is_result(tmp_path / TABLE)
    (other := tmp_path / "mine.csv").write_text(HEADING)
    assert not is_result(other)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_columns_are_stable() -> None:
    assert ",".join(f'"{name}"' for name in COLUMNS) + "\n" == HEADING


PATIENT = (("PatientID", "aa"), ("StudyDate", "bb"))
OTHER = (("PatientID", "cc"), ("StudyDate", "bb"))


def exams(folder: Path) -> list[dict[str, str]]:
    with (folder / "exams.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def of_two_views(make_result: Any, folder: Path, second: Any = PATIENT) -> None:
    one = table(folder)
    for view, patient in (("L-CC", PATIENT), ("R-CC", second)):
        one.add(Path(f"{view}.dcm"), f"{view}.json", done(make_result, view=View(view)), "1", patient)
    one.write_exams()


def test_a_header_of_another_patient_is_marked_and_no_digest_is_written(make_result: Any, tmp_path: Path) -> None:
    of_two_views(make_result, tmp_path, OTHER)
    assert [row["headers"] for row in rows(tmp_path)] == ["", "PatientID"]
    (exam,) = exams(tmp_path)
    assert (exam["score"], exam["exam_malignant_mean"]) == ("", "")
    assert exam["remarks"].endswith("headers differ in PatientID, so the images are not combined")
    text = (tmp_path / TABLE).read_text() + (tmp_path / "exams.csv").read_text()
    assert '"aa"' not in text
    assert "cc" not in text.replace("-CC", "").lower()
    of_two_views(make_result, tmp_path)
    (exam,) = exams(tmp_path)
    assert exam["exam_malignant_mean"] == rows(tmp_path)[0]["y_global_malignant"]


@pytest.mark.parametrize(
    ("stored", "remark", "combined"),
    [
        (PATIENT, "no result of R-MLO; 2 images of R-CC", True),
        (OTHER, "headers differ in PatientID, so the images are not combined", False),
        (None, "header not compared: 1", True),
        ((), "no result of R-MLO; 2 images of R-CC", True),
    ],
)
def test_an_image_of_another_run_is_compared_by_its_file(
    make_result: Any, tmp_path: Path, stored: Any, remark: str, combined: bool
) -> None:
    of_two_views(make_result, tmp_path)
    asked: list[Path] = []

    def read_patient(path: Path) -> Any:
        asked.append(path)
        return stored

    again = Table(tmp_path, engine="onnx", bundle="ab12", again={"3.json"}, read_patient=read_patient)
    again.add(Path("3.dcm"), "3.json", done(make_result, view=View.R_CC), "1", PATIENT)
    again.write_exams()
    assert asked == [Path("R-CC.dcm")]
    (exam,) = exams(tmp_path)
    assert (exam["remarks"].endswith(remark), bool(exam["exam_malignant_mean"])) == (True, combined)


@pytest.mark.parametrize("text", ["abc", "nan", "inf", "9", "-0.1", ""])
def test_a_wrong_score_makes_its_exam_incomplete_until_its_report_is_used(
    make_result: Any, tmp_path: Path, text: str
) -> None:
    of_two_views(make_result, tmp_path)
    whole = (tmp_path / TABLE).read_text()
    heading, left, right = whole.splitlines(keepends=True)
    (tmp_path / TABLE).write_text(heading + left.replace("0.7", text, 1) + right)
    again = table(tmp_path, {"R-CC.json"})
    again.write_exams()
    (exam,) = exams(tmp_path)
    assert (exam["complete"], exam["views"]) == ("no", "R-CC")
    assert exam["remarks"].endswith("wrong line: 1")
    assert (exam["exam_malignant_maximum"], exam["left_malignant_mean"]) == ("0.7", "")
    again = table(tmp_path, {"L-CC.json"})
    again.keep(Path("elsewhere/L-CC.dcm"), "L-CC.json", done(make_result, view=View.L_CC), "1", PATIENT)
    again.write_exams()
    assert exams(tmp_path)[0]["left_malignant_mean"] == "0.7"


@pytest.mark.parametrize(("column", "text"), [("view", "Q"), ("status", "fine"), ("made_by", ""), ("status", "failed")])
def test_a_line_with_another_wrong_cell(make_result: Any, tmp_path: Path, column: str, text: str) -> None:
    of_two_views(make_result, tmp_path)
    found = rows(tmp_path)
    found[0][column] = text
    (tmp_path / TABLE).write_text(HEADING + "".join(csv_line(row.values()) for row in found))
    table(tmp_path, set()).write_exams()
    assert exams(tmp_path)[0]["remarks"].endswith("wrong line: 1")


def test_a_kept_result_leaves_its_line(make_result: Any, tmp_path: Path) -> None:
    of_two_views(make_result, tmp_path)
    whole = (tmp_path / TABLE).read_bytes()
    again = table(tmp_path, {"L-CC.json", "R-CC.json"})
    for view in ("L-CC", "R-CC"):
        again.keep(Path(f"elsewhere/{view}.dcm"), f"{view}.json", done(make_result, view=View(view)), "1", PATIENT)
    assert (tmp_path / TABLE).read_bytes() == whole


def test_results_of_two_engines_in_one_table_are_not_combined(make_result: Any, tmp_path: Path) -> None:
    one = table(tmp_path)
    for view, engine in (("L-CC", "onnx"), ("R-CC", "openvino")):
        provenance = {"engine": {"name": engine}, "bundle": {"id": "ab12"}}
        one.add(Path(view), f"{view}.json", done(make_result, view=View(view), provenance=provenance), "1")
    one.write_exams()
    (exam,) = exams(tmp_path)
    assert exam["remarks"].endswith("results of different networks, engines or settings, which are not combined")
    assert exam["exam_malignant_mean"] == ""
