"""Every command under each documented install line: it works, or it is refused by the name of the extra it lacks."""

import json
from pathlib import Path

import pytest
from support.commands import install_line, start_process
from support.extras import CASES, LINES, Case, absent_packages
from support.material import material

HERE = [case for case in CASES if not case.apart]

EVERY_CASE = """
import contextlib, io, json, sys, traceback
from importlib import import_module
from support import commands as support_commands
lines, packages, *rest = (json.loads(argument) for argument in sys.argv[1:])
support_commands.block(packages)
from glam_deploy.cli.main import exit_code, status_of
answers = []
for program, words in lines:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            if program == "glam_deploy":
                code = exit_code(words)
            else:
                module = {"glam_bench.report": ".__main__"}.get(program, "")
                started = import_module(program + module)  # before it can turn an error into a sentence
                code = status_of(lambda: started.main(words))
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            code = traceback.format_exc()
    answers.append([code, out.getvalue()])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return material(tmp_path_factory.mktemp("material"))


QUICK_LINES = ("",)
"""The lines that `make test` tries; `make test-slow` tries the others."""


@pytest.mark.parametrize("line", [pytest.param(x, marks=() if x in QUICK_LINES else pytest.mark.slow) for x in LINES])
def test_every_command_works_or_names_the_extra(line: str, words: dict[str, Path], tmp_path: Path) -> None:
    """In one process, in which the packages of absent extras cannot be imported."""
    asked = [(case.program, arguments(case, line, words, tmp_path / str(n))) for n, case in enumerate(HERE)]
    process = start_process(json.dumps(asked), json.dumps(sorted(absent_packages(line))), code=EVERY_CASE, cwd=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 0, err
    answers = dict(zip(HERE, json.loads(out.splitlines()[-1]), strict=True))
    wrong = {case.name: answer for case, answer in answers.items() if not as_promised(case, line, *answer)}
    assert not wrong, "\n".join(f"{name}: {answer}" for name, answer in wrong.items())


def arguments(case: Case, line: str, words: dict[str, Path], out: Path) -> list[str]:
    quick = case.quick if case.quick is not None and case.refused_for(line) is None else case.words
    return [word.format(**words, out=out) for word in quick.split()]


def as_promised(case: Case, line: str, code: object, said: str) -> bool:
    if (lacking := case.refused_for(line)) is not None:
        told = "".join(said.split())  # a terminal's width may have broken it
        return code == 3 and "".join(install_line(lacking).split()) in told
    return code == (case.code if case.quick is None else case.quick_code)
