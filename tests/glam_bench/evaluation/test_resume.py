"""`glam-deploy evaluate` into a folder that holds an evaluation: what is kept, computed again, replaced or refused."""

import json
import os
from pathlib import Path

import cv2
import pytest
from support.evaluation import FOUR, result, run_evaluate, write_exams

from glam_bench.evaluation import run
from glam_bench.evaluation.labelled import LabelledImage
from glam_bench.evaluation.store import STORE
from glam_deploy.records import Mammogram


def test_resuming_computes_only_what_is_missing(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, out = write_exams(tmp_path), tmp_path / "out"
    arguments = ("--labels", labels, "--masks", tmp_path / "masks", "--bundle", bundle, "--out", out)
    assert run_evaluate(capsys, *arguments, "--limit", 1).code == 0
    assert result(out).remarks == ("Limited to the first 1 of 4 images (--limit).",)
    said = run_evaluate(capsys, *arguments)
    assert (said.code, "add --resume to go on" in said.err) == (2, True)
    store = out / STORE
    with store.open("a") as file:
        file.write('{"run": "cut off by a kill')
    assert run_evaluate(capsys, *arguments, "--resume").code == 0
    assert len(store.read_text().splitlines()) == 1 + 4
    before = result(out).models
    assert run_evaluate(capsys, *arguments, "--resume").code == 0
    assert len(store.read_text().splitlines()) == 1 + 4
    assert result(out).models == before
    pixels = cv2.imread(str(tmp_path / "images/1_L-CC.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(tmp_path / "images/1_L-CC.png"), pixels // 2)
    mask = cv2.imread(str(tmp_path / "masks/0_L-CC_mask.png"), cv2.IMREAD_UNCHANGED)
    mask[:220] = 0
    cv2.imwrite(str(tmp_path / "masks/0_L-CC_mask.png"), mask)
    assert run_evaluate(capsys, *arguments, "--resume").code == 0
    again = [json.loads(line)["image"] for line in store.read_text().splitlines()[5:]]
    assert again == ["images/0_L-CC.png", "images/1_L-CC.png"]
    assert run_evaluate(capsys, *arguments, "--resume", "--patches", 2).code == 0
    assert len(store.read_text().splitlines()) == 1 + 4 + 2 + 4
    assert result(out).models[0].facts.patches == 2


def test_damaged_lines_are_computed_again(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line of another form, one that is nested too deeply, and a score out of range; the others are kept."""
    labels, out = write_exams(tmp_path), tmp_path / "out"
    arguments = ("--labels", labels, "--masks", tmp_path / "masks", "--bundle", bundle, "--out", out, "--resume")
    assert run_evaluate(capsys, *arguments).code == 0
    before, store = result(out), out / STORE
    heading, first, second, *others = store.read_text().splitlines()
    high = json.loads(second)
    high["scores"]["y_global"]["malignant"] = 7.0
    damaged = [heading, first.replace('"done"', '"finished"'), json.dumps(high), *others, "[" * 200_000]
    store.write_text("\n".join([*damaged, ""]))
    assert run_evaluate(capsys, *arguments).code == 0
    found = result(out)
    assert found.remarks == (*before.remarks, "3 lines of evaluation.jsonl not valid and therefore ignored.")
    assert [one.areas for one in found.models] == [one.areas for one in before.models]
    lines = store.read_text().splitlines()
    assert lines[: len(damaged)] == damaged
    assert [json.loads(line)["image"] for line in lines[len(damaged) :]] == ["images/0_L-CC.png", "images/0_L-MLO.png"]


@pytest.mark.parametrize("kind", ["text", "pipe", "link"])
def test_a_foreign_store_is_named(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """Opening a pipe would block, and a dangling link would be written through."""
    labels, store = write_exams(tmp_path, 1), tmp_path / "out" / STORE
    store.parent.mkdir()
    if kind == "text":
        store.write_text("something else\n")
    elif kind == "pipe":
        os.mkfifo(store)
    else:
        store.symlink_to(tmp_path / "elsewhere")
    said = run_evaluate(capsys, "--labels", labels, "--bundle", bundle, "--out", store.parent, "--resume")
    told = "was not written by this release" if kind == "text" else "is not a regular file"
    assert (said.code, told in said.err) == (2, True)
    assert list(store.parent.iterdir()) == [store]
    assert not (tmp_path / "elsewhere").exists()


def test_an_evaluation_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither results nor what is read, whatever the source; with --resume the results are replaced."""
    (tmp_path / "four.csv").write_text(FOUR)
    (tmp_path / "other.csv").write_text(FOUR)
    out = tmp_path / "out"
    assert run_evaluate(capsys, "--predictions", tmp_path / "four.csv", "--out", out).code == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    said = run_evaluate(capsys, "--predictions", tmp_path / "other.csv", "--out", out)
    assert (said.code, "is of an earlier evaluation: add --resume to go on" in said.err) == (2, True)
    said = run_evaluate(capsys, "--predictions", out / "predictions-four.csv", "--out", out, "--resume")
    assert (said.code, "would be overwritten with results" in said.err) == (2, True)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert run_evaluate(capsys, "--predictions", tmp_path / "other.csv", "--out", out, "--resume").code == 0
    assert result(out).models[0].facts.name == "other"


def test_pictures_of_an_earlier_evaluation_are_removed(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, out = write_exams(tmp_path), tmp_path / "out"
    arguments = ("--labels", labels, "--bundle", bundle, "--out", out)
    assert run_evaluate(capsys, *arguments).code == 0
    mine = out / "pictures/my.png"
    mine.write_bytes(b"mine")
    drawn = set((out / "pictures").iterdir()) - {mine}
    assert len(drawn) == 2 * 3  # images with a positive label
    assert run_evaluate(capsys, *arguments, "--resume", "--limit", 1).code == 0
    assert len(set((out / "pictures").iterdir()) & drawn) == 2
    assert run_evaluate(capsys, *arguments, "--resume", "--pixels", "none").code == 0
    assert list((out / "pictures").iterdir()) == [mine]
    mine.unlink()
    assert run_evaluate(capsys, *arguments, "--resume", "--pixels", "none").code == 0
    assert not (out / "pictures").exists()


@pytest.mark.parametrize("name", ["images/0_L-CC.png", "masks/0_L-CC_mask.png"])
def test_a_file_replaced_while_it_is_read_has_no_result(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It had the scores of one image under the digest of the other, which `--resume` kept."""
    labels, out = write_exams(tmp_path), tmp_path / "out"
    arguments = ("--labels", labels, "--masks", tmp_path / "masks", "--bundle", bundle, "--out", out, "--limit", 1)
    real = run.read_labelled

    def read_replaced(image: LabelledImage) -> Mammogram:
        found = cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED)
        found[:220] = 0
        cv2.imwrite(str(tmp_path / name), found)
        return real(image)

    monkeypatch.setattr(run, "read_labelled", read_replaced)
    run_evaluate(capsys, *arguments)
    (line,) = map(json.loads, (out / STORE).read_text().splitlines()[1:])
    assert line["status"] == "failed" and "changed or replaced while it was read" in line["reason"]
    monkeypatch.setattr(run, "read_labelled", real)
    assert run_evaluate(capsys, *arguments, "--resume").code == 0
    assert json.loads((out / STORE).read_text().splitlines()[-1])["status"] == "done"
