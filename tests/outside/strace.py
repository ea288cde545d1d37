"""System calls of a command and all its children, by Debian's strace: peers and name lookups."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from support.commands import PATHS, PLAIN

CALLS = "trace=connect,sendto,sendmsg,sendmmsg,openat"
ADDRESS = re.compile(r'sa_family=AF_INET6?,.*?(?:inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)")')
UNIX = re.compile(r'^\d+ +(?:connect|send\w+)\(.*sa_family=AF_UNIX, sun_path=@?"([^"]+)"')
RESOLVER = re.compile(r'openat\([^"]*"/etc/resolv\.conf"')
NAME_SERVICE = "/var/run/nscd/socket"
"""glibc asks it for users as for hosts; where it does not exist, resolv.conf tells which."""


def missing() -> str:
    """What this machine lacks of strace; empty where nothing."""
    if not shutil.which("strace"):
        return "strace"
    probe = subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    return "" if probe.returncode == 0 else f"the right to trace processes ({probe.stderr.strip()})"


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A place to run commands in, with an empty home folder and a log of system calls."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def log(self) -> Path:
        return self.folder / "strace.log"

    def start(self, *arguments: object, code: str = PLAIN) -> "subprocess.Popen[str]":
        """`code`, by default the command line, under strace; a group of its own, which `kill` would end as a whole."""
        self.home.mkdir()
        strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-s", "200", "-e", CALLS, "-e", "signal=none", "-o", self.log]
        python = [sys.executable, "-P", "-c", code]
        return subprocess.Popen(
            [*map(str, strace), *python, *map(str, arguments)],
            env=self._environment(),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: object, code: str = PLAIN) -> None:
        """To its end; AssertionError with what it printed where it fails."""
        process = self.start(*arguments, code=code)
        try:
            out, _ = process.communicate()
        finally:
            with suppress(ProcessLookupError):  # a test that runs out of time leaves nobody behind
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 0, out

    def outside(self) -> list[str]:
        """Lines of the log that reach beyond this machine: addresses, name lookups, other programs' sockets."""
        return [line for line in self.log.read_text("utf-8", "replace").splitlines() if any(_reaches_out(line))]

    def home_files(self) -> list[str]:
        """Everything in the home folder, relative; compiled models in our own cache are left out."""
        files = [path.relative_to(self.home).as_posix() for path in self.home.rglob("*") if not path.is_dir()]
        return [name for name in files if not re.fullmatch(r"\.cache/glam-deploy/[0-9a-f]{64}\.model", name)]

    def _environment(self) -> dict[str, str]:
        """As a user's, without what this project's tests and CI set."""
        others = {"XDG_CACHE_HOME", "CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY"}
        kept = {name: value for name, value in os.environ.items() if name not in others}
        return kept | {"HOME": str(self.home), "PYTHONPATH": os.pathsep.join(map(str, PATHS))}


def _reaches_out(line: str) -> Iterator[bool]:
    for found in ADDRESS.finditer(line):
        address = ip_address(found[1] or found[2])
        yield not (getattr(address, "ipv4_mapped", None) or address).is_loopback
    if found := UNIX.search(line):
        yield found[1] != NAME_SERVICE
    yield RESOLVER.search(line) is not None
