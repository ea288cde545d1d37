"""`glam-deploy run` in a process of its own: missing packages, signals, pipes, terminals, odd names."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from mammograms import write_mg
from support.commands import FAKE, Start, install_line, names, strict, without


def read_all(terminal: int) -> str:
    """What a terminal is sent until nobody holds its other end any more, which Linux tells by an error."""
    shown = b""
    with open(terminal, "rb", buffering=0) as file, suppress(OSError):
        while chunk := file.read(1 << 16):
            shown += chunk
    return shown.decode()


def left_on_screen(shown: str) -> list[str]:
    """The lines that a terminal of any width ends up with; knows line ends, "erase the line" and "up" (ECMA-48)."""
    lines, row = [""], 0
    for part in re.findall(r"\r|\n|\x1b\[[?\d;]*[a-zA-Z]|[^\r\n\x1b]+", shown):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part == "\x1b[1A":
            row -= 1
        elif part[0] not in "\r\x1b":
            lines[row] += part
    return lines


# what a machine lacks


def test_torch_engine_without_torch(start: Start, bundle: Path, image: Path, tmp_path: Path) -> None:
    process = start(
        "run", "--engine", "torch", "--bundle", bundle, "--out", tmp_path / "out", image, code=without("torch")
    )
    out, err = process.communicate()
    assert (process.returncode, out) == (3, "")
    assert err.startswith(
        "glam-deploy: engine 'torch' needs torch, which this Python lacks. Install with: "
        f"{install_line('export')}, or choose another engine. Engines that can run on this machine"
    )
    assert "torch" not in err.partition("Engines that can run on this machine")[2]


def test_dicom_without_pydicom_is_the_machines_fault(start: Start, bundle: Path, image: Path, tmp_path: Path) -> None:
    path = write_mg(tmp_path / "a.dcm")
    process = start("run", "--bundle", bundle, "--out", tmp_path / "out", path, image, code=without("pydicom"))
    out, err = process.communicate()
    assert (process.returncode, err) == (3, "")
    assert out.startswith(f"failed  {path}  DICOM needs pydicom")
    assert install_line("dicom") in out
    # the picture needs no pydicom
    assert names(tmp_path / "out") == ["1_L-CC.json", "1_L-CC.npz", "1_L-CC.png", "a.json"]


# signals, pipes and terminals


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stop_leaves_nothing_half_done(
    start: Start, bundle: Path, image: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    arguments = ("run", "--bundle", bundle, "--out", tmp_path / "out", image)
    process = start(*arguments, env={"GLAM_TEST_WAIT": "1"})
    assert process.stderr.readline() == "waiting\n"
    process.send_signal(number)
    out, err = process.communicate()
    assert (process.returncode, out, err.strip()) == (status, "", "stopped")
    assert names(tmp_path / "out") == []


HOLD = """
import itertools, os, glam_deploy.cli.job as run
from support import engines as support_engines
def hold(owner, name, number):
    real, calls = getattr(owner, name), itertools.count(1)
    def held(*arguments, **more):
        if next(calls) == number:
            os.write(2, f"holding {name}\\n".encode())  # in one piece, for two threads may hold at once
            os.read(0, 1)
        return real(*arguments, **more)
    setattr(owner, name, held)
"""
"""Python that lets a call of a function say so, and wait until standard input ends."""


@pytest.mark.parametrize(
    ("holds", "finished", "number"),
    [
        ("hold(run, 'read', 1)", 0, signal.SIGINT),
        ("hold(run, 'read', 2)", 1, signal.SIGTERM),
        ("hold(run, 'write_result', 1); hold(support_engines, '_misbehave', 2)", 1, signal.SIGINT),
        ("hold(run, 'write_result', 2); hold(support_engines, '_misbehave', 3)", 2, signal.SIGTERM),
        ("hold(run, 'write_result', 3)", 3, signal.SIGINT),
    ],
    ids=["reading", "reading the second", "second in network", "third in network", "writing the last"],
)
def test_stop_keeps_what_the_network_has_finished_and_no_more(
    start: Start, bundle: Path, image: Path, tmp_path: Path, holds: str, finished: int, number: signal.Signals
) -> None:
    images = [image, *(image.with_name(f"{n}_L-CC.png") for n in (2, 3))]
    for copy in images[1:]:
        copy.write_bytes(image.read_bytes())
    arguments = ("run", "--json", "--bundle", bundle, "--out", tmp_path / "out", *images)
    process = start(*arguments, code=f"{HOLD}{holds}\n{FAKE}", stdin=subprocess.PIPE)
    for _ in holds.split(";"):
        assert process.stderr.readline().startswith("holding ")
    # the line says that it is written: from then on the network waits for the second
    said = process.stdout.readline() if holds == "hold(run, 'read', 2)" else ""
    process.send_signal(number)
    rest, err = process.communicate()
    assert (process.returncode, err.strip()) == (128 + number, "stopped")
    done = [copy.stem for copy in images[:finished]]
    assert names(tmp_path / "out") == sorted(stem + suffix for stem in done for suffix in (".json", ".npz", ".png"))
    for stem, line in zip(done, (said + rest).splitlines(), strict=True):
        assert strict((tmp_path / "out" / f"{stem}.json").read_text()) == strict(line)
        assert strict(line)["status"] == "done"


def test_closed_pipe_ends_the_run_without_a_trace(start: Start, bundle: Path, image: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start("run", "--json", "--bundle", bundle, "--out", tmp_path / "out", image, stdout=writing)
    os.close(writing)
    _, err = process.communicate()
    assert process.returncode == 1
    assert err == ""
    assert json.loads((tmp_path / "out/1_L-CC.json").read_text())["status"] == "done"


def test_json_into_a_file_while_a_terminal_shows_progress(
    start: Start, bundle: Path, image: Path, tmp_path: Path
) -> None:
    terminal, end = os.openpty()
    process = start("run", "--json", "--bundle", bundle, "--out", tmp_path / "out", image, stderr=end)
    os.close(end)
    shown = read_all(terminal)
    out, _ = process.communicate()
    assert strict(out)["status"] == "done"
    assert re.search(r"━━.*0/1.*0:00:\d\d.* 1_L-CC\.png", shown)
    assert "schema" not in shown


@pytest.mark.parametrize("columns", ["25", "40", "200"])
def test_one_terminal_keeps_a_line_a_view_above_the_bar(
    start: Start, bundle: Path, image: Path, tmp_path: Path, columns: str
) -> None:
    image.rename(image.with_name("1\n2_L-CC_of_a_long_name.png"))
    broken = image.with_name("2_L-CC.png")
    broken.touch()
    terminal, end = os.openpty()
    arguments = ("run", "--bundle", bundle, "--out", tmp_path / "out", image.parent)
    process = start(*arguments, stdout=end, stderr=end, env={"COLUMNS": columns, "TERM": "xterm"})
    os.close(end)
    lines = left_on_screen(read_all(terminal))
    assert process.wait() == 1
    assert lines[0].startswith(f"done    {image.parent}/1\\n2_L-CC_of_a_long_name.png  L-CC  y_global: ")
    assert lines[1].startswith("    view-from-name")
    after_notices = [line for line in lines[2:] if not line.startswith("    ")]
    assert after_notices[0].startswith(f"failed  {broken}  ")
    assert after_notices[1:] == [f"1 done, 0 skipped, 1 failed; results in {tmp_path / 'out'}", ""]


@pytest.mark.parametrize("columns", ["40", "200"])
def test_piped_output_has_no_control_characters_and_no_broken_lines(
    start: Start, bundle: Path, image: Path, tmp_path: Path, columns: str
) -> None:
    process = start("run", "--bundle", bundle, "--out", tmp_path / "out", image, env={"COLUMNS": columns})
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert all(c.isprintable() or c == "\n" for c in out)
    assert re.match(
        re.escape(f"done    {image}  L-CC  ") + r"y_global: benign 0\.\d{3}, malignant 0\.\d{3}  ", out.splitlines()[0]
    )


@pytest.mark.parametrize("kind", ["works", "broken"])
def test_a_file_name_forges_no_line(start: Start, bundle: Path, image: Path, tmp_path: Path, kind: str) -> None:
    """Line breaks, a return to the start of the line, and marks that turn the text around (Unicode, UAX #9)."""
    marks = "\n\r\t\x0b\x1b[1A\x85\u2028\u2029\u202e\u2066"
    odd = image.rename(image.with_name(f"x{marks}done    other.dcm  y_fusion: benign 0_L-CC.png"))
    if kind == "broken":
        odd.write_bytes(b"")
    out, err = start("run", "--bundle", bundle, "--out", tmp_path / "out", image.parent).communicate()
    assert not err
    assert all(c.isprintable() or c == "\n" for c in out)
    statuses = [line[:8].strip() for line in out.split("\n") if not line.startswith(" ")]
    assert statuses == ["done" if kind == "works" else "failed", *(["1 done,"] if kind == "works" else ["0 done,"]), ""]
    assert f"{image.parent}/x\\n\\r\\t\\x0b\\x1b[1A\\x85\\u2028\\u2029\\u202e\\u2066done    other.dcm" in out


@pytest.mark.parametrize("name", ["[bold]_L-CC.png", ":skull:_L-CC.png", "\udcff_L-CC.png", "ä 乳_L-CC.png"])
@pytest.mark.parametrize("option", ["--json", "--no-picture"])
def test_odd_file_names(start: Start, bundle: Path, image: Path, tmp_path: Path, name: str, option: str) -> None:
    odd = image.rename(image.with_name(name))
    process = start("run", option, "--bundle", bundle, "--out", tmp_path / "out", odd)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    shown = strict(out.splitlines()[0])["input"]["name"] if option == "--json" else out
    assert (name if option == "--json" else name.replace("\udcff", "\\udcff")) in shown


def test_ascii_terminal(start: Start, bundle: Path, image: Path, tmp_path: Path) -> None:
    odd = image.rename(image.with_name("ä_L-CC.png"))
    arguments = ("run", "--bundle", bundle, "--out", tmp_path / "out", odd)
    process = start(*arguments, env={"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "\\xe4_L-CC.png" in out


# the real network


@pytest.mark.slow
@pytest.mark.network
def test_real_bundle(golden_bundle: Path, image: Path, tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("glam-deploy")
    command = [script, "run", "--json", "--bundle", golden_bundle, "--out", tmp_path / "out", image]
    done = subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True)
    assert strict(done.stdout)["provenance"]["engine"]["name"] == "onnx"
    assert names(tmp_path / "out") == ["1_L-CC.json", "1_L-CC.npz", "1_L-CC.png"]
