"""What the kernel refuses a process under Landlock, by the error numbers of the calls themselves."""

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from support.commands import start_process

from glam_deploy.decoding import landlock

UNIT = Path(__file__).parents[3] / "packaging/glam-deploy.service"
OPENING = """
import json, os, sys
from pathlib import Path
from glam_deploy.decoding import start
folder, held, user = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
memory = os.memfd_create("content")
os.write(memory, b"content")
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
missing = start.confine(os.getppid(), folder / "image")

def error_of(path, flags=os.O_RDONLY):
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK))
    except OSError as error:
        return error.errno

def listing(path):
    try:
        os.listdir(path)
    except OSError as error:
        return error.errno

refused = {
    path: error_of(path)
    for path in (
        f"{folder}/other", f"{folder}/link", f"{folder}/fifo", f"{folder}/folder/file", "/etc/passwd", "/etc/hostname",
        "/proc/self/status", "/proc/self/environ", f"/proc/{os.getppid()}/fd/{held}", f"/proc/{os.getppid()}/cmdline",
        f"/proc/{os.getppid()}/mem", "/dev/null", "/dev/ptmx", "/sys/kernel/notes",
    )
} | {f"{path} as a folder": listing(path) for path in (folder, "/", "/proc", "/tmp", f"/proc/{os.getppid()}/fd")}
allowed = {path: error_of(path) for path in (f"{folder}/image", f"/proc/self/fd/{memory}", "/etc/ld.so.cache")}
if not user:
    import ftplib  # which nothing else has imported
print(json.dumps([missing, refused, allowed]))
"""


@pytest.mark.parametrize("user", [0, 65534])
def test_only_the_image_and_what_python_imports_can_be_opened(user: int) -> None:
    """`user`: to which the process changes before, 0 for none; everybody may read the files."""
    if user and os.getuid():
        pytest.skip("another user needs root")
    ours, theirs = os.pipe()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "folder").mkdir()
        for file in ("image", "other", "folder/file"):
            (folder / file).write_bytes(b"x")
        (folder / "link").symlink_to("other")
        os.mkfifo(folder / "fifo")
        process = start_process(folder, ours, user, code=OPENING)
        out, err = process.communicate()
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0, err
    missing, refused, allowed = json.loads(out)
    assert missing == ""
    assert {path: errno.errorcode.get(number, number) for path, number in refused.items()} == dict.fromkeys(
        refused, "EACCES"
    )
    assert allowed == dict.fromkeys(allowed)


REACHING = """
import json, os, socket, sys
from glam_deploy.decoding import landlock
stream, abstract, bound = socket.socket(), socket.socket(socket.AF_UNIX), socket.socket()
missing = landlock.restrict(None)

def error_of(call):
    try:
        call()
    except OSError as error:
        return error.errno

print(json.dumps([missing, {
    "connect": error_of(lambda: stream.connect(("127.0.0.1", int(sys.argv[1])))),
    "bind": error_of(lambda: bound.bind(("127.0.0.1", 0))),
    "abstract": error_of(lambda: abstract.connect("\\0" + sys.argv[2])),
    "signal": error_of(lambda: os.kill(os.getppid(), 0)),
}]))
"""


def test_other_processes_are_out_of_reach_without_the_filter_too() -> None:
    if landlock.version() < 6:
        pytest.skip("this kernel has no limits of signals and sockets")
    name = f"glam-deploy-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0{name}")
        abstract.listen()
        process = start_process(server.getsockname()[1], name, code=REACHING)
        out, err = process.communicate()
    assert process.returncode == 0, err
    missing, found = json.loads(out)
    assert missing == ""
    assert {what: errno.errorcode.get(number, number) for what, number in found.items()} == {
        "connect": "EACCES",
        "bind": "EACCES",
        "abstract": "EPERM",
        "signal": "EPERM",
    }


def test_a_path_that_is_no_file_gives_no_rights(tmp_path: Path) -> None:
    """A folder, and a file that is not there: the process is restricted all the same."""
    code = """
import os, sys
from pathlib import Path
from glam_deploy.decoding import landlock
print([landlock.restrict(Path(sys.argv[1]))])
try:
    open(f"{sys.argv[2]}/other")
except PermissionError:
    print("refused")
"""
    (tmp_path / "other").write_bytes(b"x")
    for image in (tmp_path, tmp_path / "none"):
        process = start_process(image, tmp_path, code=code)
        out, err = process.communicate()
        assert out.split() == ["['']", "refused"], err


def calls_of(group: str) -> set[str]:
    """The system calls of a group of systemd."""
    text = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    words = {line.strip() for line in text.stdout.splitlines()[1:] if line.strip() and "#" not in line}
    return {call for word in words for call in (calls_of(word) if word.startswith("@") else {word})}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_the_unit_of_the_service_lets_decoders_limit_themselves() -> None:
    allowed = set[str]()
    for entries in re.findall(r"^SystemCallFilter=([^~\n]+)$", UNIT.read_text(), re.MULTILINE):
        for entry in entries.split():
            allowed |= calls_of(entry) if entry.startswith("@") else {entry}
    assert {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "prctl"} <= allowed
