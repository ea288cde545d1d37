"""`glam-deploy run` over a folder: results.csv, --resume, outlines among the images, -v and -q, and Ctrl-C."""

import csv
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from support import engines as support_engines
from support.commands import FAKE, Cli, Said, Start, names, strict
from support.deep_folder import make_deep_folder

from glam_deploy.cli.progress import KEPT, Tally, clock

HOLD_SECOND = """
import itertools, os
from support import engines as support_engines
real, calls = support_engines._misbehave, itertools.count(1)
def held():
    if next(calls) == 2:
        os.write(2, b"holding\\n")
        os.read(0, 1)
    real()
support_engines._misbehave = held
"""


@pytest.fixture
def exam(image: Path) -> Path:
    """Three different views in two folders: 1_L-CC, 2_L-CC, deep/1_L-CC."""
    pixels = support_engines.small_view().pixels
    (image.parent / "deep").mkdir()
    for n, name in enumerate(("2_L-CC.png", "deep/1_L-CC.png"), start=1):
        Image.fromarray(np.where(pixels > 0, pixels + 7 * n, 0).astype(np.uint16)).save(image.parent / name)
    return image.parent


@pytest.fixture
def run(cli: Cli, bundle: Path, exam: Path, tmp_path: Path) -> Callable[..., Said]:
    def run_over(*more: object) -> Said:
        return cli("run", exam, "--bundle", bundle, "--out", tmp_path / "out", *more)

    return run_over


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def stamp(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.name != "results.csv"}


def last(said: Said) -> str:
    return said.out.splitlines()[-1].partition(";")[0]


# the table


def test_a_line_for_each_input(run: Callable[..., Said], exam: Path, tmp_path: Path) -> None:
    (exam / "3_R-CC.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    assert run().code == 1
    found = rows(tmp_path / "out")
    assert [(Path(row["file"]).relative_to(exam).as_posix(), row["status"], row["report"]) for row in found] == [
        ("1_L-CC.png", "done", "in_1_L-CC.json"),
        ("2_L-CC.png", "done", "2_L-CC.json"),
        ("3_R-CC.png", "failed", "3_R-CC.json"),
        ("deep/1_L-CC.png", "done", "deep_1_L-CC.json"),
    ]
    for row in found:
        report = strict((tmp_path / "out" / row["report"]).read_text())
        assert row["reason"] == (report["error"] or {"message": ""})["message"]
        if report["status"] == "done":
            assert float(row["y_global_malignant"]) == report["predictions"]["y_global"]["malignant"]
            assert json.loads(row["patches"]) == [patch["source_box"] for patch in report["patches"]]
            assert row["bundle"] == report["provenance"]["bundle"]["id"]


@pytest.mark.parametrize("step", ["x" * 200, "x" * 196 + ".txt"])
def test_only_a_folder_with_too_long_a_path_is_lost(
    run: Callable[..., Said], exam: Path, tmp_path: Path, step: str
) -> None:
    make_deep_folder(exam, step, (exam / "1_L-CC.png").read_bytes())
    said = run()
    (lost,) = [row for row in rows(tmp_path / "out") if row["status"] == "failed"]
    assert said.code == 1 and last(said) == "3 done, 0 skipped, 1 failed"
    assert lost["file"].startswith(f"{exam}/{step}/{step}/")
    assert lost["reason"].endswith("cannot be read (File name too long): shorten the names of its folders")
    assert lost["reason"] in said.out
    assert strict((tmp_path / "out" / lost["report"]).read_text())["error"]["message"] == lost["reason"]


def test_files_alone_make_no_table(cli: Cli, bundle: Path, exam: Path, tmp_path: Path) -> None:
    paths = sorted(exam.glob("*.png"))
    arguments = ("run", "--no-picture", "--bundle", bundle, "--out", tmp_path / "out", *paths)
    cli(*arguments)
    assert "results.csv" not in names(tmp_path / "out")
    said = cli(*arguments, "--resume")
    assert last(said) == "0 done, 0 skipped, 0 failed, 2 kept"
    assert [row["status"] for row in rows(tmp_path / "out")] == ["done", "done"]


def test_a_table_of_the_users_is_in_the_way(run: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/results.csv").write_text("mine")
    said = run()
    assert (said.code, "results.csv exists and was not written" in said.err) == (2, True)
    assert names(tmp_path / "out") == ["results.csv"]


# resuming


def test_resume_leaves_alone_what_is_done(run: Callable[..., Said], exam: Path, tmp_path: Path) -> None:
    assert run().code == 0
    before, table = stamp(tmp_path / "out"), rows(tmp_path / "out")
    said = run("--resume")
    assert (said.code, said.out.count("\n"), last(said)) == (0, 1, "0 done, 0 skipped, 0 failed, 3 kept")
    (exam / "3_L-CC.png").write_bytes((exam / "2_L-CC.png").read_bytes())
    os.utime(exam / "1_L-CC.png", (1, 1))
    assert last(run("--resume")) == "1 done, 0 skipped, 0 failed, 3 kept"
    after = stamp(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    assert rows(tmp_path / "out")[:3] == table
    assert len(rows(tmp_path / "out")) == 4


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def other_score(path: Path) -> None:
    report = json.loads(path.read_bytes())
    report["predictions"]["y_global"]["malignant"] = 0.125
    path.write_text(json.dumps(report))


def killed(path: Path) -> None:
    report = json.loads(path.read_bytes())
    path.write_text(json.dumps(report | {"status": "failed"}))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *[(f"2_L-CC.{suffix}", damage) for suffix in ("json", "npz", "png") for damage in (cut, Path.unlink)],
        *[(f"2_L-CC.{suffix}", flip) for suffix in ("npz", "png")],
        ("2_L-CC.json", other_score),
        ("2_L-CC.json", killed),
        ("../in/2_L-CC.png", lambda path: cv2.imwrite(str(path), support_engines.small_view().pixels)),
    ],
)
def test_damaged_results_and_changed_inputs_are_done_again(
    run: Callable[..., Said], tmp_path: Path, name: str, damage: Any
) -> None:
    run()
    whole = (tmp_path / "out/2_L-CC.npz").read_bytes()
    damage(tmp_path / "out" / name)
    said = run("--resume")
    assert (said.code, last(said)) == (0, "1 done, 0 skipped, 0 failed, 2 kept")
    assert ((tmp_path / "out/2_L-CC.npz").read_bytes() == whole) == (not name.startswith(".."))
    assert sorted(row["report"] for row in rows(tmp_path / "out")) == [
        "2_L-CC.json",
        "deep_1_L-CC.json",
        "in_1_L-CC.json",
    ]
    assert last(run("--resume")) == "0 done, 0 skipped, 0 failed, 3 kept"


@pytest.mark.parametrize("option", [("--patches", 2), ("--full",), ("--no-picture",), ("--view", "L-CC")])
def test_other_settings_are_another_run(run: Callable[..., Said], option: tuple[object, ...]) -> None:
    run()
    assert last(run("--resume", *option)) == "3 done, 0 skipped, 0 failed, 0 kept"
    assert last(run("--resume", *option)) == "0 done, 0 skipped, 0 failed, 3 kept"


def test_failed_inputs_are_tried_again(run: Callable[..., Said], exam: Path, tmp_path: Path) -> None:
    good = (exam / "2_L-CC.png").read_bytes()
    (exam / "2_L-CC.png").write_bytes(good[:100])
    assert last(run()) == "2 done, 0 skipped, 1 failed"
    assert last(run("--resume")) == "0 done, 0 skipped, 1 failed, 2 kept"
    (exam / "2_L-CC.png").write_bytes(good)
    assert last(run("--resume")) == "1 done, 0 skipped, 0 failed, 2 kept"
    assert [row["status"] for row in rows(tmp_path / "out")] == ["done"] * 3


def test_lines_that_were_lost_come_back(run: Callable[..., Said], tmp_path: Path) -> None:
    run()
    table = rows(tmp_path / "out")
    whole = (tmp_path / "out/results.csv").read_bytes()
    (tmp_path / "out/results.csv").write_bytes(whole[: len(whole) // 2])
    assert last(run("--resume")) == "0 done, 0 skipped, 0 failed, 3 kept"
    assert rows(tmp_path / "out") == table


def test_resume_in_json_gives_a_line_an_input(run: Callable[..., Said]) -> None:
    first = [strict(line) for line in run("--json").out.splitlines()]
    assert [strict(line) for line in run("--json", "--resume").out.splitlines()] == first


# what is no mammogram


def test_outlines_are_passed_over(run: Callable[..., Said], exam: Path) -> None:
    for name in ("1_L-CC_mask.png", "deep/1_L-CC_mask.png", "2_L-CC_benign_seg.png"):
        cv2.imwrite(str(exam / name), np.full((500, 400), 255, np.uint8))
    said = run()
    assert (said.code, last(said)) == (0, "3 done, 0 skipped, 0 failed")
    assert said.err == (
        f"passed over: 3 files with the name of an outline or crop, such as {exam / '1_L-CC_mask.png'}\n"
    )


def test_nothing_but_outlines(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    mask = image.rename(image.with_name("1_L-CC_mask.png"))
    arguments = ("run", "--bundle", bundle, "--out", tmp_path / "out")
    said = cli(*arguments, image.parent)
    assert (said.code, "no mammogram found, only 1 file with the name of an outline or crop" in said.err) == (2, True)
    said = cli(*arguments, mask)
    assert said.code == 1
    assert said.out.startswith(f"skipped {mask}  the file name ends in _mask or _seg")


def test_cropped_pixels_that_are_not_yet_standardized(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pixels = np.zeros((2944, 1920), np.uint16)
    pixels[500:1500, :900] = np.random.default_rng(2).integers(900, 3000, (1000, 900))
    for name in ("a.png", "b.tif"):
        cv2.imwrite(str(tmp_path / "in" / name), pixels)
    np.save(tmp_path / "in/c.npy", ((pixels - pixels.mean()) / pixels.std()).astype(np.float32))
    said = cli("run", "--standardized", "--json", "--bundle", bundle, "--out", tmp_path / "out", tmp_path / "in")
    reports = [strict(line) for line in said.out.splitlines()]
    assert said.code == 0
    assert [[w["code"] for w in report["warnings"]] for report in reports] == [["standardized-here"]] * 2 + [[]]
    assert [report["input"]["kind"] for report in reports] == ["png", "tiff", "npy"]
    scores = [report["predictions"]["y_global"]["malignant"] for report in reports]
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-6)


# how much is said


def test_quiet_tells_what_went_wrong(run: Callable[..., Said], exam: Path) -> None:
    (exam / "notes.txt").touch()
    said = run("-q")
    assert (said.code, said.out, said.err) == (0, "", "")
    (exam / "0_L-CC.png").write_bytes(b"")
    said = run("--quiet")
    assert (said.code, said.out.count("\n"), said.err) == (1, 1, "")
    assert said.out.startswith(f"failed  {exam / '0_L-CC.png'}  ")
    assert run("--json", "-q").out.count("\n") == 4
    assert "1 other file" in run().err


def test_verbose_logs_without_names(run: Callable[..., Said], exam: Path) -> None:
    (exam / "1_L-CC.png").rename(exam / "Doe^Jane_L-CC.png")
    said = run("-v")
    assert "INFO glam_deploy.cli.progress: input 3 of 3: done" in said.err
    assert "DEBUG" not in said.err
    more = run("-vv")
    assert "DEBUG glam_deploy.runtime.result: one view of kind png: preprocess" in more.err
    assert "Doe" not in said.err + more.err
    assert run().err == ""


@pytest.mark.parametrize("options", [("-v", "-q"), ("-q", "-v")])
def test_more_and_less_at_once(run: Callable[..., Said], options: tuple[str, str]) -> None:
    said = run(*options)
    assert (said.code, "give one of them" in said.err) == (2, True)


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_every_command_has_both(cli: Cli, bundle: Path, command: str) -> None:
    assert cli(command, "--bundle", bundle, "-v").code == 0
    assert cli(command, "--bundle", bundle, "-q").code == 0


def test_pace_counts_what_this_run_has_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("glam_deploy.cli.progress.monotonic", lambda: now)
    tally = Tally(total=100)
    for _ in range(40):
        tally.add(KEPT)
    now = 200.0
    assert tally.pace == ""
    tally.begin()
    now = 240.0
    for status in ("done", "failed"):
        tally.add(status)
    assert tally.pace == "3.0/min 0:19:20 left"
    assert tally.plain_line() == "42 of 100 inputs, 3.0/min 0:19:20 left"
    assert tally.plain_line() == ""
    assert tally.summary(resumed=True) == "1 done, 0 skipped, 1 failed, 40 kept"
    assert [clock(seconds) for seconds in (0, 59.6, 3661, 360_000)] == ["0:00:00", "0:01:00", "1:01:01", "100:00:00"]


# in a process of its own


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_says_how_to_go_on(
    start: Start, bundle: Path, exam: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    arguments = ("run", exam, "--bundle", bundle, "--out", tmp_path / "my out")
    process = start(*arguments, code=HOLD_SECOND + FAKE, stdin=subprocess.PIPE)
    assert process.stderr.readline() == "holding\n"
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == status
    told, again, stopped = filter(None, err.splitlines())
    assert told == f"1 of 3 inputs: 1 done, 0 skipped, 0 failed; results in {tmp_path / 'my out'}"
    assert again == f"to go on: glam-deploy run --resume {exam} --bundle {bundle} --out '{tmp_path / 'my out'}'"
    assert stopped == "stopped"
    assert [row["status"] for row in rows(tmp_path / "my out")] == ["done"]


def test_a_kill_leaves_a_table_to_go_on_from(start: Start, cli: Cli, bundle: Path, exam: Path, tmp_path: Path) -> None:
    arguments = ("run", exam, "--bundle", bundle, "--out", tmp_path / "out")
    process = start(*arguments, code=HOLD_SECOND + FAKE, stdin=subprocess.PIPE)
    assert process.stderr.readline() == "holding\n"
    assert process.stdout.readline().startswith("done")
    process.kill()
    process.communicate()
    assert [row["status"] for row in rows(tmp_path / "out")] == ["done"]
    assert last(cli(*arguments, "--resume")) == "2 done, 0 skipped, 0 failed, 1 kept"
    assert [row["status"] for row in rows(tmp_path / "out")] == ["done"] * 3


@pytest.mark.parametrize("columns", ["60", "100"])
def test_progress_fits_into_a_line(start: Start, bundle: Path, exam: Path, tmp_path: Path, columns: str) -> None:
    terminal, end = os.openpty()
    arguments = ("run", exam, "--bundle", bundle, "--out", tmp_path / "out")
    process = start(*arguments, stdout=subprocess.DEVNULL, stderr=end, env={"COLUMNS": columns, "TERM": "xterm"})
    os.close(end)
    shown = b""
    with os.fdopen(terminal, "rb", buffering=0) as file, suppress(OSError):  # Linux's end of a terminal
        while chunk := file.read(1 << 16):
            shown += chunk
    assert process.wait() == 0
    frames = [re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", part) for part in re.split(r"[\r\n]+", shown.decode())]
    bars = [frame for frame in frames if "━" in frame]
    assert max(map(len, bars)) <= int(columns)
    assert any(re.search(r" 2/3 0:00:\d\d \d+\.\d/(s|min) 0:\d\d:\d\d left ", bar) for bar in bars)
