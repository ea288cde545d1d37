"""`glam-deploy`: the group of commands, and the message and exit code of every error.

Exit codes: 0 all done, 1 some inputs failed, none was done, or standard output cannot be written, 2 wrong usage, 3 this
machine lacks what was asked for, 4 parity, integrity or a gate failed, an engine could not be built, or the bundle
lacks the graphs that an engine needs, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

import _thread
import signal
import sys
import time
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from types import FrameType
from typing import NoReturn

import click

from glam_deploy import __version__
from glam_deploy.cli.standard_streams import StandardStreams
from glam_deploy.errors import Caller, GlamError, UsageError
from glam_deploy.installation import documentation, refusal, require_current_folder, require_linux
from glam_deploy.memory import too_little_memory

COMMANDS = {
    "export": "Checkpoint -> bundle: ONNX graphs of all stages, manifest, parity table.",
    "build": "Build TensorRT engines into a bundle, for the GPU of this machine.",
    "run": "Find lesions in DICOM, PNG, TIFF or npy images.",
    "run-dir": "Find lesions for a host that calls a program on a folder (mercure, MONAI).",
    "archive": "Find lesions in all images of an archive, with Ray, into Parquet tables.",
    "inspect": "Show what is in a bundle.",
    "sign": "Sign a bundle, so that others can demand it from this key.",
    "verify": "Re-check a bundle's hashes and its parity on this machine.",
    "gate": "Compare an engine with the reference: does it find the same lesions?",
    "bench": "Measure engines beside other ways to run the same weights.",
    "evaluate": "Evaluate networks on labelled images: AUROC, Dice, FROC, a page for all.",
    "triton": "Write a model repository for NVIDIA Triton Inference Server.",
    "serve": "Run the appliance beside a PACS.",
    "check-config": "Check the appliance's configuration.",
    "route": "Show which routing rule applies to a study.",
    "doctor": "Check whether the appliance can run here.",
    "queue": "List what waits or failed; retry it, or give it up.",
    "fetch": "Fetch studies from the archive of [fetch]: by date, or by a list.",
    "init": "Write the files with which the appliance starts.",
    "backup": "Copy the appliance's data folder while it runs.",
    "restore": "Restore a backup, or take over from another node.",
    "demo": "Make weights and images, then do all of the above.",
}
LINUX = frozenset(
    [
        "run-dir",
        "archive",
        "bench",
        "build",
        "serve",
        "check-config",
        "route",
        "doctor",
        "queue",
        "fetch",
        "init",
        "backup",
        "restore",
    ]
)
"""Commands that need Linux: those of the appliance, of NVIDIA GPUs and of measurements, and `archive`."""
VERBOSITY = f"{__name__}.verbosity"
"""Key in click's context of the values of -v and -q."""
TAKES_LOCK = {("threading", "__enter__"), ("logging", "acquire"), ("logging", "_acquireLock")}
"""Module and name of Python functions that return with a lock taken."""
STOPPED = 130
"""Exit code of a program that Ctrl-C ended: 128 + SIGINT."""


class LazyGroup(click.Group):
    """Imports the module of a command only when the command is used, so that help and usage errors are fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name in LINUX:
            require_linux(f"glam-deploy {cmd_name}")
        command = import_module(f"glam_deploy.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        if not any(parameter.name == "verbose" for parameter in command.params):
            command.params += _verbosity_options()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click, and suggests similar names also of commands that are not imported yet."""
        if args[0] not in COMMANDS and (near := get_close_matches(args[0], COMMANDS)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {' or '.join(near)}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write(f"docs/ lies in {documentation()}\n")  # not wrapped: a path is to be copied


def _verbosity_options() -> list[click.Parameter]:
    """-v and -q of every command."""
    return [
        click.Option(
            ["-v", "--verbose"],
            count=True,
            expose_value=False,
            is_eager=True,
            callback=_settle,
            help="Log to standard error; -vv logs more. No level logs names of files.",
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_settle,
            help="No progress and no remarks; `run` prints only inputs that were skipped or failed.",
        ),
    ]


def _settle(ctx: click.Context, param: click.Parameter, value: int) -> None:
    """Set the verbosity from -v and -q; click calls it for each of the two, in the order in which they were given."""
    from glam_deploy.cli import console

    asked = ctx.meta.setdefault(VERBOSITY, {"verbose": 0, "quiet": False})
    asked[param.name] = value
    if asked["verbose"] and asked["quiet"]:
        raise click.UsageError("-v asks for more and -q for less: give one of them", ctx)
    console.settle(-1 if asked["quiet"] else asked["verbose"])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="glam-deploy")
def cli() -> None:
    """Take a GLAM mammography checkpoint to production. Research use only.

    \b
    Exit codes:
      0  all done
      1  some inputs failed, none was done, or standard output cannot be
         written
      2  wrong usage
      3  this machine lacks what was asked for
      4  parity, integrity or a gate failed, an engine could not be built,
         or the bundle lacks the graphs that an engine needs
      130  stopped by Ctrl-C, 143 by SIGTERM
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit the process."""
    run(lambda: exit_code(arguments))


def run(program: Callable[[], int | None]) -> NoReturn:
    """Run a program and exit the process with the code that it returns (None is 0), or with that of its error.

    If standard output cannot be written, the program goes on, and the code is not 0.
    """
    streams = StandardStreams()
    stop = _Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        status: int | None = status_of(program)
    except Exception:
        if stop.number is None:
            raise
        status = _print_error(KeyboardInterrupt())
    code = streams.exit_code(status or 0)
    sys.exit(code if stop.number is None else 128 + stop.number)


class _Stop:
    """Handler of SIGINT and SIGTERM: raises KeyboardInterrupt, so that incomplete files are removed.

    It keeps the signal's number, because a library that is interrupted while it loads may raise another error. In a
    function that takes a lock the exception would leave the lock taken, and threads that need it would never end: there
    the signal is sent again a little later. (Documentation of `signal`, "Note on Signal Handlers and Exceptions".)
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        if frame and (frame.f_globals.get("__name__"), frame.f_code.co_name) in TAKES_LOCK:
            _thread.start_new_thread(_send_again, (number, _thread.get_ident()))  # `Thread` takes locks itself
        else:
            raise KeyboardInterrupt


def _send_again(number: int, thread: int) -> None:
    time.sleep(0.01)
    if sys.platform == "win32":
        _thread.interrupt_main(number)
    else:
        signal.pthread_kill(thread, number)


def exit_code(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return status_of(lambda: cli.main(given, prog_name="glam-deploy", standalone_mode=False, obj=given))


def status_of(program: Callable[[], object]) -> int:
    """Exit code of a program, after the message of the error that ended it. Raises faults of this software."""
    try:
        code = program()
    except (Exception, KeyboardInterrupt) as error:
        if (status := _print_error(error)) is None:
            raise
        return status
    return code if isinstance(code, int) else 0


def _print_error(error: BaseException) -> int | None:
    """Print the message of an error; its exit code, or None for a fault of this software, whose trace is needed."""
    if isinstance(error, click.Abort | KeyboardInterrupt):
        click.echo("stopped", err=True)
        return STOPPED
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    error = _as_ours(error)
    if isinstance(error, GlamError):
        from glam_deploy.cli.console import printable

        message = f"glam-deploy: {error.message_for(Caller.RUN)}"
        click.echo("\n".join(map(printable, message.split("\n"))), err=True)
        return error.exit_code
    return None


def _as_ours(error: BaseException) -> BaseException:
    """The error with a message for one by which Python or a library says what this machine lacks; else `error`."""
    if isinstance(error, ModuleNotFoundError):
        return refusal(error) or error
    if isinstance(error, FileNotFoundError) and error.filename is None:  # as from os.getcwd
        try:
            require_current_folder()
        except UsageError as gone:
            return gone
    return too_little_memory(error) or error
