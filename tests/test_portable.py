"""What a researcher runs on a laptop with Windows or macOS, and the refusal of what needs Linux."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.commands import PLAIN, start_process
from support.evaluation import write_exams
from support.keys import key_pair
from support.material import material
from support.other_systems import started_in

from glam_deploy.cli.main import COMMANDS, LINUX

SYSTEMS = {"win32": "Windows", "darwin": "macOS"}

REAL = (
    "--version",
    "inspect --bundle {bundle}",
    "verify --bundle {bundle}",
    "run {png} --bundle {bundle} --out {out}/png",
    "run {npy} --standardized --bundle {bundle} --out {out}/npy",
    "run {exam} --bundle {bundle} --out {out}/dicom --json",
    "sign --bundle {bundle} --key {key}",
    "verify --bundle {bundle} --trusted-key {trusted}",
    "triton --bundle {bundle} --out {out}/models",
)
"""With ONNX Runtime and the tiny network."""

FAKE = (
    "export --weights weights.pt --out {out}/exported",
    "gate --bundle {out}/exported --engine openvino --reference onnx --images {png}",
    "run {png} --bundle {out}/exported --engine openvino --out {out}/gated",
    "evaluate --labels {labels} --bundle {out}/exported --engine onnx --out {out}/evaluation",
)
"""With engines of plain arithmetic, for which an export is a matter of a second."""

COMMAND_LINES = """
import contextlib, io, json, sys, traceback
import pytest
from glam_deploy.cli.main import exit_code

def run(line):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code = exit_code(line)
        except BaseException:
            code = traceback.format_exc()
    return [code, out.getvalue()]

real, fake = (json.loads(argument) for argument in sys.argv[1:])
answers = [run(line) for line in real]
from support import engines, export, gate
with pytest.MonkeyPatch.context() as patch:
    engines.install()
    gate.Candidate(patch)
    export.replace_parts(patch, export.Wrong())
    answers += [run(line) for line in fake]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("material")
    (folder / "labelled").mkdir()
    keys = key_pair(folder)
    return material(folder) | {"labels": write_exams(folder / "labelled"), "key": keys.private, "trusted": keys.public}


def filled(line: str, words: Mapping[str, Path], out: Path) -> list[str]:
    return [word.format(**words, out=out) for word in line.split()]


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_commands_of_a_laptop(system: str, words: Mapping[str, Path], tmp_path: Path) -> None:
    given = [json.dumps([filled(line, words, tmp_path) for line in lines]) for lines in (REAL, FAKE)]
    process = start_process(*given, code=started_in(system) + COMMAND_LINES, cwd=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 0, err
    answers = dict(zip((*REAL, *FAKE), json.loads(out.splitlines()[-1]), strict=True))
    assert {line: code for line, (code, _) in answers.items()} == dict.fromkeys(answers, 0), out


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_command_has_help_or_needs_linux(system: str, tmp_path: Path) -> None:
    lines = [[name, "--help"] for name in COMMANDS]
    process = start_process(json.dumps(lines), "[]", code=started_in(system) + COMMAND_LINES, cwd=tmp_path)
    answers = dict(zip(COMMANDS, json.loads(process.communicate()[0].splitlines()[-1]), strict=True))
    for name, (code, told) in answers.items():
        if name in LINUX:
            assert code == 2, told
            assert told.startswith(
                f"glam-deploy: glam-deploy {name} needs Linux, and this system is {SYSTEMS[system]}: run it on a "
                f"Linux machine or in a Linux container"
            )
            assert len(told.splitlines()) == 1
        else:
            assert code == 0, told


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("engine", ["fp16", "onnx-cuda"])
def test_engines_of_a_gpu_need_linux(system: str, engine: str, words: Mapping[str, Path], tmp_path: Path) -> None:
    line = filled(f"run {{png}} --bundle {{bundle}} --engine {engine} --ungated --out {{out}}/out", words, tmp_path)
    process = start_process(*line, code=started_in(system) + PLAIN, cwd=tmp_path)
    told = process.communicate()[1]
    assert process.returncode == 2, told
    assert told == (
        f"glam-deploy: engine {engine!r} needs Linux, and this system is {SYSTEMS[system]}: choose an engine of the "
        f"CPU, such as onnx\n"
    )


def test_lock_of_a_bundle_without_flock(tmp_path: Path) -> None:
    """Windows locks a file that stands for the folder: a second process waits until the first has ended."""
    code = started_in("win32") + (
        "import sys; from pathlib import Path; from glam_deploy.bundle import locked\n"
        "with locked(Path(sys.argv[1]), lambda: print('waiting', flush=True)):\n"
        "    print('has it', flush=True); sys.stdin.read()\n"
    )
    temporary = {"TMPDIR": str(tmp_path)}
    (tmp_path / "bundle").mkdir()
    first, second = (start_process(tmp_path / "bundle", code=code, stdin=-1, env=temporary) for _ in range(2))
    said = {process: process.stdout.readline().strip() for process in (first, second) if process.stdout}
    assert sorted(said.values()) == ["has it", "waiting"]
    holder, waiting = sorted((first, second), key=lambda process: said[process])
    holder.communicate()
    assert waiting.communicate()[0].splitlines() == ["has it"]


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_export_of_the_network(system: str, golden_checkpoint: Path, tmp_path: Path) -> None:
    words = ("export", "--weights", golden_checkpoint, "--out", tmp_path / "bundle")
    process = start_process(*words, code=started_in(system) + PLAIN, cwd=tmp_path)
    told = process.communicate()[1]
    assert process.returncode == 0, told
