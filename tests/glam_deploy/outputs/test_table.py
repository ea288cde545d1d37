"""results.csv: what a spreadsheet and a person get of it, whatever stands in a name and whenever a kill comes."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glam_deploy.errors import InputError, NotForThisNetwork, UsageError
from glam_deploy.outputs import report
from glam_deploy.outputs.table import COLUMNS, TABLE, Table, is_table
from glam_deploy.outputs.writer import is_result

HEADING = (
    '"file","view","status","y_global_benign","y_global_malignant","y_local_benign","y_local_malignant",'
    '"y_fusion_benign","y_fusion_malignant","patches","notices","error","reason","time_ms","engine","bundle","report","exam"\n'
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
    made_by = {"engine": {"name": "openvino"}, "bundle": {"id": "cd34"}}
    content = done(make_result, y_fusion=np.array([0.25, 0.5], np.float32), provenance=made_by)
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
