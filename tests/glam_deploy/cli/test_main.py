"""What every command shares: help, exit codes, the sentence for an error, and the trace for a fault of our own."""

import importlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from support.commands import PATHS, PLAIN, Cli, Start, blocking

from glam_deploy import __version__, errors
from glam_deploy.cli import main
from glam_deploy.cli.main import COMMANDS

BASES = ("GlamError", "BackendError")
EXIT_CODES = {
    "InputError": 1,
    "DicomError": 1,
    "IncompleteObject": 1,
    "NotForThisNetwork": 1,
    "UsageError": 2,
    "CheckpointError": 1,
    "BundleError": 4,
    "BackendUnavailable": 3,
    "BackendBuildError": 4,
    "BackendRunError": 4,
    "GpuLost": 4,
    "PeerError": 3,
    "PeerBroke": 3,
    "PeerDeclined": 3,
    "ParityError": 4,
    "InternalError": 1,
}
"""As README and docs say; a new class of errors must be decided on here too."""


@pytest.fixture
def inspect_raises(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Makes `glam-deploy inspect` end with an error."""

    def arrange(error: BaseException) -> None:
        def fail(folder: object) -> None:
            raise error

        monkeypatch.setattr(importlib.import_module("glam_deploy.cli.inspect"), "open_members", fail)

    return arrange


# help


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_names_every_command(cli: Cli, arguments: list[str]) -> None:
    said = cli(*arguments)
    shown = said.out if arguments else said.err
    assert said.code == (0 if arguments else 2)
    assert all(f"  {name} " in shown for name in ("export", "run", "inspect", "verify", "demo"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(cli: Cli, name: str) -> None:
    long, short = cli(name, "--help"), cli(name, "-h")
    assert (long.code, long.err, long.out) == (0, "", short.out)
    assert f"Usage: glam-deploy {name} [OPTIONS]" in long.out


@pytest.mark.parametrize("name", COMMANDS)
def test_summary_in_the_list_is_how_the_commands_own_help_begins(cli: Cli, name: str) -> None:
    beginning = " ".join(cli(name, "--help").out.split("\n\n", 1)[1].split())
    agrees = beginning.startswith(COMMANDS[name].split(".")[0].split(",")[0])
    assert agrees, f"{name}: {beginning[:80]}"


def test_help_fits_a_narrow_terminal(start: Start) -> None:
    out, err = start("run", "--help", code=PLAIN, env={"COLUMNS": "40"}).communicate()
    assert err == ""
    assert "--patches" in out
    assert max(map(len, out.splitlines())) <= 50  # click writes no narrower


def test_version(cli: Cli) -> None:
    said = cli("--version")
    assert (said.code, said.out, said.err) == (0, f"glam-deploy, version {__version__}\n", "")


def test_module_is_the_script(start: Start) -> None:
    process = start("--version", code="import runpy; runpy.run_module('glam_deploy', run_name='__main__')")
    assert process.communicate() == (f"glam-deploy, version {__version__}\n", "")
    assert process.returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_the_plain_install(start: Start, name: str) -> None:
    code = blocking("torch", "onnx", "onnxscript", "safetensors", "openvino", "pydicom") + PLAIN
    process = start(name, "--help", code=code)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "Options:" in out


# wrong usage


def commands_with(context: click.Context, group: click.Group) -> Iterator[tuple[list[str], click.Command]]:
    """Every command with the words that call it, those of groups too."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield [name], command
        if isinstance(command, click.Group):
            yield from (([name, *words], each) for words, each in commands_with(context, command))


def empty_paths() -> Iterator[list[str]]:
    """Command lines of all commands, in each of which another path is empty."""
    for words, command in commands_with(click.Context(main.cli), main.cli):
        for parameter in command.params:
            kinds = parameter.type.types if isinstance(parameter.type, click.Tuple) else [parameter.type]
            values = ["" if isinstance(kind, click.Path) else "inbreast" for kind in kinds]
            if "" in values:
                yield [*words, *(parameter.opts[:1] if isinstance(parameter, click.Option) else []), *values]


def test_an_empty_path_is_wrong_usage(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of an unset variable: `Path("")` would be the current folder."""
    monkeypatch.chdir(tmp_path)
    lines = [*empty_paths()]
    assert {line[0] for line in lines} == COMMANDS.keys()
    for line in lines:
        said = cli(*line)
        assert (said.code, said.out, "the path is empty" in said.err) == (2, "", True), f"{line}: {said}"
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["rnu"], "No such command 'rnu'. Did you mean run?"),
        (["chek-config"], "Did you mean check-config?"),
        (["--nonsense"], "No such option"),
        (["inspect", "--nonsense"], "No such option"),
        (["inspect", "bundle"], "Got unexpected extra argument (bundle)"),
        (["verify", "--engine", "onxx"], "'auto', 'onnx', 'onnx-winograd', 'openvino'"),
        (["verify", "--threads", "none"], "'none' is not a valid integer"),
        (["inspect", "--bundle"], "requires an argument"),
    ],
)
def test_wrong_usage(cli: Cli, arguments: list[str], told: str) -> None:
    said = cli(*arguments)
    assert (said.code, said.out) == (2, "")
    assert told in said.err
    assert "Traceback" not in said.err


# how a command ends


def test_every_error_has_its_exit_code() -> None:
    leaves = {
        name: error
        for name, error in vars(errors).items()
        if isinstance(error, type) and issubclass(error, errors.GlamError) and name not in BASES
    }
    assert {name: error.exit_code for name, error in leaves.items()} == EXIT_CODES


@pytest.mark.parametrize("name", EXIT_CODES)
def test_error_is_one_sentence(cli: Cli, inspect_raises: Callable[[BaseException], None], name: str) -> None:
    inspect_raises(getattr(errors, name)("what was wrong, and what to do"))
    said = cli("inspect")
    assert (said.code, said.out) == (EXIT_CODES[name], "")
    assert said.err == "glam-deploy: what was wrong, and what to do\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()], ids=repr)
def test_stop(cli: Cli, inspect_raises: Callable[[BaseException], None], error: BaseException) -> None:
    inspect_raises(error)
    said = cli("inspect")
    assert (said.code, said.out, said.err.strip()) == (130, "", "stopped")


def test_ctrl_c_while_modules_load(start: Start) -> None:
    """Sent by the process itself, at the first import of a package that takes long to load."""
    code = (
        "import os, signal, sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == 'numpy': os.kill(os.getpid(), {signal.SIGINT.value})\n"
        "sys.meta_path.insert(0, Stop())\n"
    )
    process = start("verify", code=code + PLAIN)
    out, err = process.communicate()
    assert (process.returncode, out, err.strip()) == (130, "", "stopped")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_library_that_makes_an_error_of_a_stop(start: Start, number: signal.Signals, status: int) -> None:
    code = (
        "import os, glam_deploy.cli.inspect as c\n"
        "def fail(folder):\n"
        f"    try: os.kill(os.getpid(), {number.value})\n"
        "    except KeyboardInterrupt: raise AttributeError('half loaded') from None\n"
        "c.open_members = fail\n"
    )
    process = start("inspect", code=code + PLAIN)
    assert process.communicate() == ("", "stopped\n")
    assert process.returncode == status


@pytest.mark.parametrize("error", [ZeroDivisionError("made up"), ImportError("made up"), OSError("made up")], ids=repr)
def test_fault_of_our_own_is_never_swallowed(
    cli: Cli, inspect_raises: Callable[[BaseException], None], error: Exception
) -> None:
    inspect_raises(error)
    with pytest.raises(type(error), match="made up"):
        cli("inspect")


def test_fault_of_our_own_shows_its_trace(start: Start) -> None:
    code = "import glam_deploy.cli.inspect as c; c.open_members = lambda folder: 1 / 0; " + PLAIN
    process = start("inspect", code=code)
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err.startswith("Traceback")
    assert err.endswith("ZeroDivisionError: division by zero\n")


def test_caller_may_stand_in_any_folder(start: Start) -> None:
    for folder in PATHS:
        process = start("--version", code=PLAIN, cwd=folder)
        assert process.communicate() == (f"glam-deploy, version {__version__}\n", "")


def test_exit_codes_in_the_help(cli: Cli) -> None:
    shown = cli("--help").out
    codes = {int(line.split()[0]) for line in shown.splitlines() if line.strip()[:1].isdigit()}
    assert codes == {0, *EXIT_CODES.values(), main.STOPPED}


STOPPED_AS_IT_TAKES_A_LOCK = """
import logging, signal, time
from functools import partial
from threading import Condition
from types import SimpleNamespace
from glam_deploy.cli.main import run

given_back = []
lock = SimpleNamespace()
lock.__enter__ = lock.acquire = partial(signal.raise_signal, {number})
lock.__exit__ = lock.release = lambda *_: given_back.append(True)
condition, handler = Condition(), logging.Handler()
condition._lock = handler.lock = lock

def hold_condition():
    with condition:
        time.sleep(60)

def hold_handler():
    handler.acquire()
    try:
        time.sleep(60)
    finally:
        handler.release()

def program():
    try:
        {holder}()
    finally:
        print(given_back)

run(program)
"""
"""A signal arrives between the taking of a lock, which no Python code sees, and the return of what took it."""


@pytest.mark.parametrize("holder", ["hold_condition", "hold_handler"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_leaves_no_lock_taken(number: signal.Signals, status: int, holder: str) -> None:
    program = STOPPED_AS_IT_TAKES_A_LOCK.format(number=number.value, holder=holder)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, "[True]\n", "stopped\n")
