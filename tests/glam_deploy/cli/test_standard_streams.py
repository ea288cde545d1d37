"""Standard output that cannot be written: the work is done, and the exit code and, but for a pipe, one line say so."""

import csv
import os
import signal
import struct
import subprocess
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path

import pytest
from support.commands import FAKE, Start
from support.until import until

from glam_deploy.cli.main import COMMANDS, exit_code
from glam_deploy.cli.standard_streams import StandardStreams

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")

FULL = "glam-deploy: standard output cannot be written (No space left on device): free disk space\n"


def full() -> int:
    """A file in which nothing can be written."""
    return os.open("/dev/full", os.O_WRONLY)


def broken() -> int:
    """Write end of a pipe whose read end is closed: writing to it raises BrokenPipeError."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize(("opened", "told"), [(full, FULL), (broken, "")])
@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_all_images_are_recorded(
    start: Start, bundle: Path, image: Path, tmp_path: Path, opened: object, told: str, options: list[str],
    unbuffered: str,
) -> None:  # fmt: skip
    for name in ("2_L-CC.png", "3_L-MLO.png"):
        (image.parent / name).write_bytes(image.read_bytes())
    output = opened()  # type: ignore[operator]
    arguments = ("run", *options, "--bundle", bundle, "--out", tmp_path / "out", image.parent)
    process = start(*arguments, code=FAKE, stdout=output, env={"PYTHONUNBUFFERED": unbuffered})
    os.close(output)
    _, err = process.communicate()
    assert (process.returncode, err) == (1, told)
    with (tmp_path / "out/results.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], *([name, "--help"] for name in COMMANDS)])
def test_every_command_that_prints(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with TextIOWrapper(BufferedWriter(FileIO("/dev/full", "w"))) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        streams = StandardStreams()
        code = streams.exit_code(exit_code(arguments))
    assert (code, capsys.readouterr().err) == (1, FULL)


def test_an_error_keeps_its_exit_code(start: Start, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    output = full()
    process = start("run", tmp_path / "in", "--out", tmp_path / "out", stdout=output)
    os.close(output)
    assert (process.wait(), "contains no DICOM" in process.communicate()[1]) == (2, True)


def test_standard_error_that_cannot_be_written(start: Start, bundle: Path, image: Path, tmp_path: Path) -> None:
    (image.parent / "notes.txt").touch()
    output = full()
    process = start("run", "--bundle", bundle, "--out", tmp_path / "out", image.parent, stderr=output)
    os.close(output)
    out, _ = process.communicate()
    assert (process.returncode, "1 done" in out) == (0, True)


def test_names_that_the_encoding_lacks(start: Start, bundle: Path, image: Path, tmp_path: Path) -> None:
    named = image.rename(image.with_name("é_L-CC.png"))
    process = start(
        "run", "--bundle", bundle, "--out", tmp_path / "out", named,
        env={"PYTHONIOENCODING": "ascii"}, stdout=subprocess.PIPE,
    )  # fmt: skip
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert r"\xe9_L-CC.png" in out


COUNTING = """
from glam_deploy.cli.main import run
def count():
    for first, end in ((0, 512), *((n, n + 1024) for n in range(512, 100_000, 1024))):
        print("".join(f"{n:07}\\n" for n in range(first, end)), end="", flush=True)
run(count)
"""
"""Prints a page of 4096 bytes, then two at a time, as many as Python's buffer holds."""


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1, 2]])
def test_closed_streams(tmp_path: Path, closed: list[int]) -> None:
    """Output is an error, and no file that is opened gets the descriptor, to which libraries print."""
    program = """if True:
        import os
        from contextlib import suppress
        from glam_deploy.cli.main import run
        def body():
            print("told")
            own = open("own.txt", "wb")
            with suppress(OSError):
                os.write(1, b"of a library")
        run(body)
    """
    shut = "; ".join(f"exec {number}>&-" for number in closed)
    said = subprocess.run(
        ["bash", "-c", f'{shut}; exec "$0" -c "$1"', sys.executable, program],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert (tmp_path / "own.txt").read_bytes() == b""
    if 1 in closed:
        assert said.returncode == 1
        assert 2 in closed or "standard output cannot be written (Bad file descriptor)" in said.stderr
    else:
        assert said.returncode == 0 and "told" in said.stdout


def test_ctrl_c_in_the_middle_of_a_write_doubles_nothing(start: Start) -> None:
    """A pipe of 16 pages takes half of the last write, which waits for room for the rest until the signal comes."""
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    process = start(code=COUNTING)
    capacity = fcntl.fcntl(process.stdout, fcntl.F_GETPIPE_SZ)
    until(lambda: struct.unpack("i", fcntl.ioctl(process.stdout, termios.FIONREAD, b"0000")) == (capacity,))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, err) == (130, "stopped\n")
    assert len(out) >= capacity
    assert "".join(f"{n:07}\n" for n in range(100_000)).startswith(out)
