"""Decoders that misbehave as the names of their files say, in the child process of the product."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from glam_deploy.archive import decoder
from glam_deploy.archive.sources import open_source
from glam_deploy.archive.sources.base import Entry, OnPassedOver, Source, ignored
from glam_deploy.decoding import view_reader

HANG_S = 5.0
"""Time limit for a decoder that hangs, which others do not reach on a busy machine."""
MISDEEDS = {
    "aborts": ("os.abort()", "its decoder ended by signal SIGABRT: it crashed, or 4 GiB of memory were not enough"),
    "crashes": ("ctypes.string_at(0)", "its decoder ended by signal SIGSEGV: it crashed"),
    "signals": ("os.kill(os.getpid(), 40)", "its decoder ended by signal 40: it crashed"),
    "exits": ("os._exit(3)", "its decoder ended with exit code 3"),
    "hangs": ("while True: pass", "reading it took longer than 5 s"),
    "eats": ("bytearray(8 << 30)", "its decoder needed more than 4 GiB of memory"),
    "connects": ("socket.socket()", "a fault while reading it: PermissionError"),
    "starts": ("subprocess.run(['touch', '{folder}/made'])", "a fault while reading it: PermissionError"),
    "writes": ("open('{folder}/made', 'w')", "a fault while reading it: PermissionError"),
    "opens": ("open('/etc/passwd')", "a fault while reading it: PermissionError"),
    "tells": ("raise InputError(f'{sorted(os.environ)} {sorted(os.environ.values())}')", "['"),
    "listens": ("os.listdir(f'/proc/{os.getppid()}/fd')", "a fault while reading it: PermissionError"),
    "kills": ("os.kill(os.getppid(), signal.SIGKILL)", "a fault while reading it: PermissionError"),
}
"""Name -> what its decoder does, and the reason that the image then has."""


RISCV = "import platform; platform.machine = lambda: 'riscv64'; from glam_deploy.decoding.start import main; main()"
"""Program of a child process on a machine for which there is no filter."""
NO_LANDLOCK = """
from glam_deploy.decoding import sandbox, start
sandbox.forbid_new_privileges()
sandbox.install([(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x50026), (0x06, 0, 0, 0x7FFF0000)])
start.main()
"""
"""Program of a child process as on a kernel without Landlock: landlock_create_ruleset fails with ENOSYS (38)."""


def program(folder: Path, misdeeds: Mapping[str, str] | None = None) -> str:
    """The program of the child process. `folder`: where a decoder tries to make a file.

    `misdeeds`: first part of a file's name, to "_" or its suffix -> its misdeed, if they differ.
    """
    given = misdeeds or {name: name for name in MISDEEDS}
    deeds = {name: MISDEEDS[misdeed][0].replace("{folder}", str(folder)) for name, misdeed in given.items()}
    return f"""
import ctypes, os, signal, socket, subprocess
from pathlib import PurePath
from glam_deploy.decoding import start
from glam_deploy.errors import InputError
confine = start.confine

def confine_and_replace(*arguments):
    missing = confine(*arguments)
    from glam_deploy.decoding import child
    read = child._read

    def misread(request, descriptor):
        deed = {deeds!r}.get(PurePath(request.path).stem.partition("_")[0], "")
        exec(deed, globals())
        return read(request, descriptor)

    child._read = misread
    return missing

start.confine = confine_and_replace
start.main()
"""


class DecodedSource:
    """A folder whose images are decoded by a program, within HANG_S, in each process that it is sent to."""

    def __init__(self, folder: Path, program: str) -> None:
        self._folder, self._program = folder, program
        self._inner: Source = open_source([str(folder)])

    def entries(self, on_passed_over: OnPassedOver = ignored) -> Iterator[Entry]:
        return self._inner.entries(on_passed_over)

    def read(self, entry: Entry) -> bytes:
        return self._inner.read(entry)

    def __reduce__(self) -> Any:
        return _received, (self._folder, self._program)


def _received(folder: Path, program: str) -> DecodedSource:
    view_reader._PROGRAM, decoder.DECODING_S = program, HANG_S
    return DecodedSource(folder, program)
