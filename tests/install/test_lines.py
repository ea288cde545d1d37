"""Each documented install line, in a fresh environment from the wheel: what it promises, and what is refused.

Programs are started in a folder from which nothing may be imported.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from install.conftest import Distributions
from install.venvs import LIMIT_S, Venv, environment, venv
from support.commands import Said
from support.extras import CASES, LINES, Case
from support.hostile import WORDS, hostile

from glam_bench.appliance_processes import free_port

pytestmark = [pytest.mark.install, pytest.mark.timeout(1800)]  # each line, and the whole of the demo

DEMO_LINE = "export,dicom"
"""The line of README's workstation: its environment makes the demo that others work on."""
PATIENCE_S = 300
OTHERS = [line for line in LINES if line != DEMO_LINE]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, made: Distributions, words: Mapping[str, Path]) -> Path:
    """README's first command from a wheel: a folder in which `demo/` lies. Its environment is tried out on the way."""
    room = tmp_path_factory.mktemp("demo")
    with installed(room, made, DEMO_LINE) as env:
        done = env.glam("glam_deploy", "demo", cwd=room)
        assert done.code == 0, done.err
        assert f"Look at {Path('demo/results')}/*.png" in done.out
        pictures = sorted(path.name for path in (room / "demo/results").glob("*.png"))
        assert pictures == ["L-CC.png", "L-MLO.png", "R-CC.png", "R-MLO.png"]
        assert "malignant" in env.run(env.python, "-c", readme_example(env), cwd=room).out
        assert_every_case(env, DEMO_LINE, words, room)
    return room


def test_workstation(demo: Path) -> None:
    assert (demo / "demo/bundle/manifest.json").is_file()


@pytest.mark.parametrize("line", OTHERS)
def test_line(line: str, made: Distributions, words: Mapping[str, Path], demo: Path, tmp_path: Path) -> None:
    with installed(tmp_path, made, line) as env:
        assert_every_case(env, line, words, tmp_path)
        if real := REAL.get(line):
            real(env, demo / "demo", tmp_path)


@contextmanager
def installed(room: Path, made: Distributions, line: str) -> Iterator[Venv]:
    """An environment with this line; in the end nothing else than pip has written into it."""
    with venv(room / "venv") as env:
        env.install(made.wheel, line)
        before = files(env)
        yield env
        assert files(env) == before


def files(env: Venv) -> set[Path]:
    return {path for path in env.folder.rglob("*") if "__pycache__" not in path.parts}


def assert_every_case(env: Venv, line: str, words: Mapping[str, Path], room: Path) -> None:
    """What the line has works, and the rest is refused with the command that adds it; two at a time."""
    here = hostile(room / "here")

    def answer(numbered: tuple[int, Case]) -> str | None:
        number, case = numbered
        given = [word.format(**words, out=room / f"out{number}") for word in case.words.split()]
        return fault(case, line, env.glam(case.program, *given, cwd=here))

    with ThreadPoolExecutor(2) as pool:
        faults = [*filter(None, pool.map(answer, enumerate(CASES)))]
    assert not faults, "\n".join(faults)


def fault(case: Case, line: str, said: Said) -> str | None:
    """What is wrong with an answer; None where it is as promised."""
    text, lacking = said.out + said.err, case.refused_for(line)
    if "Traceback" in text or WORDS in text:
        return f"{case.name}: {text}"
    if lacking is None:
        return None if said.code == case.code else f"{case.name}: exit code {said.code}, not {case.code}: {text}"
    named = re.search(rf"-m pip install '?\S+\.whl\[{re.escape(lacking)}\]'?", text)
    return None if said.code == 3 and named else f"{case.name}: [{lacking}] not named, exit code {said.code}: {text}"


def readme_example(env: Venv) -> str:
    """README's block in Python, as the wheel carries it, and then the result."""
    (info,) = env.site_packages.glob("glam_deploy-*.dist-info")
    readme = PathDistribution(info).metadata.get_payload()
    (example,) = re.findall(r"<!-- tested -->\n```python\n(.+?)```", str(readme), re.DOTALL)
    return f"{example}\nprint(result.predictions)"


# what lines promise beyond the tiny network: the demo's, which has the size and the graphs of the published one


def plain(env: Venv, demo: Path, room: Path) -> None:
    """Any bundle runs without torch; pages lie where the help says."""
    assert env.glam("glam_deploy", "verify", "--bundle", demo / "bundle", cwd=room).code == 0
    (place,) = re.findall(r"docs/ lies in (.+)", env.glam("glam_deploy", "--help", cwd=room).out)
    assert Path(place).is_relative_to(env.folder)
    for page in ("docs/gate.md", "docs/outputs.md", "docs/appliance.md", "packaging/glam.toml", "README.md"):
        assert (Path(place) / page).is_file(), page
    assert env.run(env.python, "-m", "pip", "check", cwd=room).code == 0


def export(env: Venv, demo: Path, room: Path) -> None:
    """A checkpoint to a bundle, which the reference itself runs."""
    weights, bundle = demo / "weights.safetensors", room / "bundle"
    done = env.glam("glam_deploy", "export", "--weights", weights, "--out", bundle, cwd=room)
    assert done.code == 0, done.err
    done = env.glam("glam_deploy", "verify", "--bundle", bundle, "--engine", "torch", cwd=room)
    assert done.code == 0, done.err


def appliance(env: Venv, demo: Path, room: Path) -> None:
    """`serve` comes up, `doctor` finds it in order, SIGTERM ends it."""
    (room / "token").write_text("0" * 32)
    (room / "token").chmod(0o600)
    (room / "glam.toml").write_text(
        f'license_acknowledged = true\ndata = "data"\nworker = {{ bundle = "{demo / "bundle"}" }}\n'
        f'web = {{ port = {free_port()}, token_file = "token" }}\nreceive = {{ port = {free_port()} }}\n'
    )
    command = [env.folder / "bin/glam-deploy", "serve", "--config", "glam.toml"]
    with (
        (room / "serve.log").open("wb") as log,
        subprocess.Popen(command, cwd=room, env=environment(), stderr=log) as process,
    ):
        try:
            wait_for(lambda: env.glam("glam_deploy", "doctor", cwd=room).code == 0, process)
            done = env.glam("glam_deploy", "queue", "list", cwd=room)
            assert done.code == 0, done.err
        finally:
            process.terminate()
        assert process.wait(LIMIT_S) == 0, (room / "serve.log").read_text()


def openvino(env: Venv, demo: Path, room: Path) -> None:
    """One real view by OpenVINO, after the gate that lets it."""
    bundle, view = shutil.copytree(demo / "bundle", room / "bundle"), demo / "exam/R-CC.dcm"
    for words in (
        ("gate", "--engine", "openvino", "--images", view, "--masks", demo / "masks", "--bundle", bundle),
        ("run", view, "--engine", "openvino", "--bundle", bundle, "--out", room / "results"),
    ):
        done = env.glam("glam_deploy", *words, cwd=room)
        assert done.code == 0, done.out + done.err


def archive(env: Venv, demo: Path, room: Path) -> None:
    """The demo's exam into tables, which a program of its own reads; the second run finds all done."""
    words = ("archive", demo / "exam", "--bundle", demo / "bundle", "--out", room / "tables")
    for said in (
        "4 done, 0 skipped, 0 failed",
        "0 done, 0 skipped, 0 failed, 0 duplicate, 0 excluded, 0 unreadable, 4 kept",
    ):
        done = env.glam("glam_deploy", *words, cwd=room)
        assert done.code == 0, done.out + done.err
        assert said in done.out
    done = env.run(env.python, "-c", TABLES, room / "tables/views", cwd=room)
    assert done.out.split() == ["L-CC", "L-MLO", "R-CC", "R-MLO"], done.err


TABLES = """
import sys, pyarrow.dataset
rows = pyarrow.dataset.dataset(sys.argv[1], partitioning="hive").to_table().to_pylist()
print(*sorted(row["view"] for row in rows if 0 < row["y_fusion_malignant"] < 1))
"""


def tensorrt_rtx(env: Venv, demo: Path, room: Path) -> None:
    """Engines for a GPU that is not here."""
    bundle = shutil.copytree(demo / "bundle", room / "bundle")
    words = ("--engine", "fp16", "--compute-capability", "8.9")
    done = env.glam("glam_deploy", "build", "--bundle", bundle, *words, cwd=room)
    assert done.code == 0, done.out + done.err


REAL: Mapping[str, Callable[[Venv, Path, Path], None]] = {
    "": plain,
    "export": export,
    "dicom,appliance": appliance,
    "openvino,dicom": openvino,
    "dicom,ray": archive,
    "tensorrt-rtx": tensorrt_rtx,
}


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < deadline
        time.sleep(0.5)
