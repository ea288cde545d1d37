"""Nothing is imported from the current folder, by no program and by no process that one starts. One that is gone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import PATHS, PLAIN, ROOT
from support.hostile import WORDS, hostile
from support.material import material

from glam_deploy.processes import python_command

PROGRAMS = [
    *(ROOT / "glam_deploy").rglob("*.py"),
    *(ROOT / "benchmarks").rglob("*.py"),
    *(ROOT / "export").rglob("*.py"),
]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return material(tmp_path_factory.mktemp("material"))


def run(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PATHS[:3]))}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_folder_is_a_trap(tmp_path: Path) -> None:
    assert WORDS in run(hostile(tmp_path / "here"), "-c", "import json").stderr


@pytest.mark.parametrize(
    "command",
    [
        "-m glam_deploy inspect --bundle {bundle}",
        "-m glam_deploy run {png} --bundle {bundle} --out {out}",
        "-m glam_bench.report {results} --out {out}.html",
        "-m glam_bench.half_parity a {png} --bundle {bundle} --out {out}.json",
        "-m glam_bench.gpu_check --bundle {bundle} --out {out}",  # its steps are processes
        "-P -m glam_deploy --version",
    ],
)
def test_python_dash_m(tmp_path: Path, words: dict[str, Path], command: str) -> None:
    given = [word.format(**words, out=tmp_path / "out") for word in command.split()]
    done = run(hostile(tmp_path / "here"), *given)
    assert WORDS not in done.stdout + done.stderr
    assert done.returncode == (3 if "gpu_check" in command else 0), done.stderr


@pytest.mark.slow
def test_bench_and_the_processes_of_its_rungs(tmp_path: Path, words: dict[str, Path]) -> None:
    here = hostile(tmp_path / "here")
    images = ["--images", words["png"], "--no-ladder", "--quick"]
    done = run(here, "-m", "glam_deploy", "bench", "--bundle", words["bundle"], "--engine", "onnx", *images)
    assert WORDS not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    assert WORDS not in (here / "bench/bench.json").read_text()


def test_a_process_of_ours(tmp_path: Path) -> None:
    command = python_command("-c", "import json, numpy")
    assert subprocess.run(command, cwd=hostile(tmp_path / "here"), check=False).returncode == 0


def test_every_python_process_is_started_in_one_way() -> None:
    """`processes.python_command` has -P; elsewhere sys.executable is named only in the install line of messages."""
    having = {
        path.relative_to(ROOT).as_posix() for path in PROGRAMS if re.search(r"\bsys\.executable\b", path.read_text())
    }
    assert having == {"glam_deploy/processes.py", "glam_deploy/installation.py"}


GONE = "import os, sys; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); " + PLAIN


@pytest.mark.parametrize(
    "command",
    [
        "init new --acknowledge-license --pacs PACS@127.0.0.1:104 --user root",
        "triton --bundle {bundle} --out models",
        "verify --bundle {bundle} --engine torch",
        "demo --out {out}",
        "export --weights {bundle}/checkpoint.safetensors --out {out}",
    ],
)
def test_a_current_folder_that_was_deleted(tmp_path: Path, words: dict[str, Path], command: str) -> None:
    done = run(tmp_path, "-c", GONE, *command.format(**words, out=tmp_path / "out").split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "glam-deploy: the current folder does not exist any more: change to another one with cd\n"
    assert not [*tmp_path.iterdir()]


def test_a_command_that_does_not_need_the_current_folder(tmp_path: Path, words: dict[str, Path]) -> None:
    done = run(tmp_path, "-c", GONE, *"run {png} --bundle {bundle} --out {out}".format(**words, out=tmp_path).split())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["run {png} --bundle {bundle} --out here", "evaluate --predictions none.csv"])
def test_a_result_in_a_folder_that_was_deleted(tmp_path: Path, words: dict[str, Path], command: str) -> None:
    done = run(tmp_path, "-c", GONE, *command.format(**words).split())
    assert done.returncode == 2
    assert "the current folder" in done.stderr and "disk space" not in done.stderr
