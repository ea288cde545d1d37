"""The source distribution is the whole checkout, the wheel is clean, and what is printed to install an extra works."""

import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from install.conftest import Distributions, repository
from install.venvs import Venv, venv
from support.checkout import GENERATED
from support.commands import ROOT

pytestmark = [pytest.mark.install, pytest.mark.timeout(1800)]


@pytest.fixture
def unpacked(made: Distributions, tmp_path: Path) -> Path:
    with tarfile.open(made.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (top,) = tmp_path.iterdir()
    return top


def test_the_source_distribution_is_the_checkout(made: Distributions, unpacked: Path) -> None:
    def names(top: Path) -> set[str]:
        found = {path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()}
        return {name for name in found if name.split("/")[0] not in GENERATED}

    assert names(unpacked) == names(made.tree)


def test_its_tests_can_be_collected_and_run(unpacked: Path) -> None:
    everything = ["-m", "", "--collect-only", "-q"]
    for words in (everything, ["tests/test_readme.py", "tests/test_packaging.py"]):
        command = [sys.executable, "-m", "pytest", *words]
        done = subprocess.run(command, cwd=unpacked, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def test_the_judges_of_packages_are_content(made: Distributions, tmp_path: Path) -> None:
    judges = (
        ["twine", "check", "--strict", str(made.sdist), str(made.wheel)],
        ["check-wheel-contents", str(made.wheel)],
        ["pyroma", "--min", "10", str(made.sdist)],
    )
    with venv(tmp_path / "venv") as env:
        env.pip("install", "--quiet", *(command[0] for command in judges))
        for program, *words in judges:
            done = env.run(env.folder / "bin" / program, *words, cwd=ROOT)  # where pyproject.toml is
            assert done.code == 0, done.out + done.err


# the remedy: a line that works, whatever this copy was installed from


def test_the_line_that_adds_an_extra_works(made: Distributions, words: Mapping[str, Path], tmp_path: Path) -> None:
    """Of each kind of PEP 610, typed into a shell as it is printed; then DICOM is read."""
    tree, wheel, sdist = (tmp_path / "its place" / part.name for part in (made.tree, made.wheel, made.sdist))
    copies(made, tree.parent)
    commit = repository(tree)
    with venv(tmp_path / "venv") as env, served(wheel.parent) as url:
        env.install(made.wheel)
        kinds: dict[str, tuple[list[object], str]] = {
            "wheel": ([wheel], rf"'{wheel}\[dicom\]'"),
            "archive": ([sdist], rf"'{sdist}\[dicom\]'"),
            "folder": ([tree], rf"'{tree}\[dicom\]'"),
            "editable": (["-e", tree], rf"-e '{tree}\[dicom\]'"),
            "repository": (
                [f"git+{tree.as_uri()}"],
                rf"'glam-deploy\[dicom\] @ git\+{tree.as_uri().replace('file://', 'file://localhost')}@{commit}'",
            ),
            "URL": ([f"{url}/{wheel.name}"], rf"'glam-deploy\[dicom\] @ {url}/{wheel.name}#sha256=\w+'"),
        }
        for kind, (source, expected) in kinds.items():
            env.pip("install", "--quiet", "--no-deps", "--force-reinstall", *source)
            line = told(env, words, tmp_path)
            assert re.fullmatch(rf"{re.escape(str(env.python))}\d* -m pip install {expected}", line), (kind, line)
            done = env.shell(f"{line} --quiet", tmp_path)
            assert done.code == 0, (kind, done.err)
            assert run_dicom(env, words, tmp_path)[0] == 0, kind
            env.pip("uninstall", "--quiet", "--yes", "pydicom", "glam-deploy")


def test_only_a_copy_from_an_index_is_sent_to_one(
    made: Distributions, words: Mapping[str, Path], tmp_path: Path
) -> None:
    """Printed and not typed: whoever owns the name on the index of this machine is not known."""
    with venv(tmp_path / "venv") as env:
        env.install(made.wheel)
        env.pip("uninstall", "--quiet", "--yes", "glam-deploy")
        env.pip("install", "--quiet", "--no-deps", "--no-index", "--find-links", made.wheel.parent, "glam-deploy")
        assert told(env, words, tmp_path).endswith("-m pip install 'glam-deploy[dicom]'")


def told(env: Venv, words: Mapping[str, Path], room: Path) -> str:
    """The line that a refusal of DICOM prints."""
    code, said = run_dicom(env, words, room)
    assert code == 3, said
    (line,) = re.findall(r"Install with: (.+)", said)
    return line.strip()


def run_dicom(env: Venv, words: Mapping[str, Path], room: Path) -> tuple[int, str]:
    done = env.glam("glam_deploy", "run", words["exam"], "--bundle", words["bundle"], "--out", room / "out", cwd=room)
    return done.code, done.out + done.err


def copies(made: Distributions, place: Path) -> None:
    """All three, in a new folder."""
    shutil.copytree(made.tree, place / made.tree.name)
    shutil.copy(made.wheel, place)
    shutil.copy(made.sdist, place)


@contextmanager
def served(place: Path) -> Iterator[str]:
    """The folder over HTTP, on loopback; its URL."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(place))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
