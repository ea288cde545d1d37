"""What the kernel refuses a process with the filter, by the error numbers of the calls themselves."""

import errno
import json
import os
import platform
import re
import struct
from pathlib import Path

import pytest
from support.commands import start_process

from glam_deploy.decoding import sandbox
from glam_deploy.decoding.system_calls import CHECKED, REFUSED

CONFINED = """
import ctypes, errno, fcntl, json, mmap, multiprocessing, os, resource, signal, socket, struct, sys, threading
ours, theirs = socket.socketpair()
from glam_deploy.decoding.start import confine
missing = confine(os.getppid())
libc = ctypes.CDLL(None, use_errno=True)

def error_of(call):
    try:
        call()
    except OSError as error:
        return error.errno

def raw(number, *arguments):
    def call():
        if libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) == -1:
            raise OSError(ctypes.get_errno(), "raw")
    return call
"""
ATTEMPTS = """
folder, parent = sys.argv[1], os.getppid()
file = f"{folder}/file"
limit = ctypes.create_string_buffer(struct.pack("QQ", *resource.getrlimit(resource.RLIMIT_NOFILE)))
found = {
    name: error_of(call) for name, call in {
        "socket": lambda: socket.socket(),
        "unix socket": lambda: socket.socket(socket.AF_UNIX),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "socketpair": lambda: socket.socketpair(),
        "connect": lambda: ours.connect("/none"),
        "bind": lambda: ours.bind(f"{folder}/socket"),
        "listen": lambda: ours.listen(),
        "accept": lambda: ours.accept(),
        "posix_spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "execve": lambda: os.execv("/bin/true", ["true"]),
        "fork": lambda: os.fork(),
        "raw clone": raw(CLONE, signal.SIGCHLD, 0, 0, 0, 0),
        "ptrace": raw(PTRACE, 16, parent, 0, 0),
        "process_vm_readv": raw(PROCESS_VM_READV, parent, 0, 0, 0, 0, 0),
        "kill parent": lambda: os.kill(parent, 0),
        "kill all": lambda: os.kill(-1, 0),
        "pidfd": lambda: signal.pidfd_send_signal(os.pidfd_open(parent), 0),
        "write": lambda: open(file, "w"),
        "append": lambda: open(file, "a"),
        "update": lambda: open(file, "r+b"),
        "create": lambda: os.open(f"{folder}/new", os.O_RDONLY | os.O_CREAT),
        "truncate on opening": lambda: os.open(file, os.O_RDONLY | os.O_TRUNC),
        "temporary": lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR),
        "truncate": lambda: os.truncate(file, 0),
        "rename": lambda: os.rename(file, f"{folder}/new"),
        "unlink": lambda: os.unlink(file),
        "link": lambda: os.link(file, f"{folder}/new"),
        "symlink": lambda: os.symlink(file, f"{folder}/new"),
        "mkdir": lambda: os.mkdir(f"{folder}/new"),
        "rmdir": lambda: os.rmdir(folder),
        "mkfifo": lambda: os.mkfifo(f"{folder}/new"),
        "chmod": lambda: os.chmod(file, 0o777),
        "own memory": lambda: open("/proc/self/mem", "r+b"),
        "setrlimit": raw(SETRLIMIT, resource.RLIMIT_NOFILE, ctypes.addressof(limit)),
        "prlimit": raw(PRLIMIT64, 0, resource.RLIMIT_NOFILE, ctypes.addressof(limit), 0),
        "prlimit of the parent": raw(PRLIMIT64, parent, resource.RLIMIT_NOFILE, ctypes.addressof(limit), 0),
        "parent death signal": raw(PRCTL, 1, 0),
        "io_uring": raw(425, 1, 0),
    }.items()
}
print(json.dumps([missing, found]))
"""


def test_each_way_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"whole")
    column = sandbox.ARCHITECTURES[platform.machine()][0]
    raw = ("clone", "ptrace", "process_vm_readv", "prctl", "setrlimit", "prlimit64")
    numbers = {name.upper(): (REFUSED | CHECKED)[name][column] for name in raw}
    code = CONFINED + "".join(f"{name} = {number}\n" for name, number in numbers.items()) + ATTEMPTS
    process = start_process(tmp_path, code=code)
    out, err = process.communicate()
    assert process.returncode == 0, err
    missing, found = json.loads(out)
    assert missing == ""
    assert {name: errno.errorcode.get(number, number) for name, number in found.items()} == dict.fromkeys(
        found, "EPERM"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"whole"


REMAINING = """
ours.send(b"message")
assert theirs.recv(10) == b"message"
memory = os.memfd_create("pixels", os.MFD_ALLOW_SEALING)
os.ftruncate(memory, 1 << 20)
with mmap.mmap(memory, 1 << 20) as mapped:
    mapped[:4] = b"data"
socket.send_fds(ours, [b"x"], [memory])
_, (received,), _, _ = socket.recv_fds(theirs, 1, 1)
assert open(f"/proc/self/fd/{received}", "rb").read(4) == b"data"
import numpy as np
results = []
threads = [threading.Thread(target=lambda: results.append((np.ones((300, 300)) @ np.ones((300, 300))).sum()))
           for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert results == [300.0**3] * 4
import cv2
cv2.setNumThreads(4)
assert (cv2.resize(np.ones((3000, 3000), np.uint16), (1500, 1500)) == 1).all()
assert len(os.listdir("/proc/self/task")) > 1
import gdcm, openjpeg, pylibjpeg, pydicom.pixels
assert resource.getrlimit(resource.RLIMIT_DATA)[0] == 4 << 30
os.kill(os.getpid(), 0)
signal.alarm(0)
thread = threading.Thread(target=lambda: results.append(error_of(socket.socket)))
thread.start()
thread.join()
assert results[-1] == errno.EPERM
os.abort()
"""


def test_memory_threads_imports_and_the_channel_remain() -> None:
    process = start_process(code=CONFINED + REMAINING)
    _, err = process.communicate()
    assert process.returncode == -6, err


OTHER_TABLES = """
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid of i386); int 0x80; ret
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
print(-call(), error_of(raw(0x40000000 + 39)), error_of(raw(39)))  # getpid of x32, and of x86-64
os._exit(0)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the other sets of calls of x86-64")
def test_the_other_sets_of_system_calls_are_refused() -> None:
    process = start_process(code=CONFINED + OTHER_TABLES)
    out, err = process.communicate()
    assert out.split() == ["1", "1", "None"], err


CLONE3 = """
print(error_of(raw(435, 0, 0)), error_of(raw(437, -100, 0, 0, 0)))
"""


def test_calls_with_flags_in_memory_are_as_if_absent() -> None:
    process = start_process(code=CONFINED + CLONE3)
    out, err = process.communicate()
    assert out.split() == [str(errno.ENOSYS)] * 2, err


HEADERS = {
    "x86_64": (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), re.compile(r"#define __NR_(\w+)\s+(\d+)")),
    "aarch64": (Path("/usr/include/asm-generic/unistd.h"), re.compile(r"#define __NR(?:3264)?_(\w+)\s+(\d+)")),
}
NEWER = {"fchmodat2": 452, "setxattrat": 463, "removexattrat": 466}
"""Calls that the headers of Linux 6.1 do not have, with one number for all architectures (Linux 6.6 and 6.13)."""


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    path, form = HEADERS[machine]
    if not path.exists():
        pytest.skip(f"{path} is not there")
    defined = NEWER | {name: int(number) for name, number in form.findall(path.read_text())}
    column = sandbox.ARCHITECTURES[machine][0]
    for name, numbers in (REFUSED | CHECKED).items():
        assert numbers[column] == defined.get(name), name


def verdict(machine: str, name: str, *arguments: int, architecture: int | None = None) -> str:
    """What the filter of the process 77 says of a call, by the rules of classic BPF (linux/filter.h)."""
    column, own = sandbox.ARCHITECTURES[machine]
    number = (REFUSED | CHECKED | OTHERS)[name][column]
    values = struct.pack("<iIQ6Q", number, architecture or own, 0, *arguments, *[0] * (6 - len(arguments)))
    steps, place, loaded = sandbox.program(machine, 77), 0, 0
    holds = {0x15: int.__eq__, 0x35: int.__ge__, 0x45: lambda one, other: bool(one & other)}
    while True:
        operation, yes, no, operand = steps[place]
        if operation == 0x06:
            return "allowed" if operand == 0x7FFF0000 else errno.errorcode[operand - 0x50000]
        if operation == 0x20:
            loaded = int.from_bytes(values[operand : operand + 4], "little")
            place += 1
        else:
            place += 1 + (yes if holds[operation](loaded, operand) else no)


OTHERS = {
    "read": (0, 63),
    "futex": (202, 98),
    "memfd_create": (319, 279),
    "sendmsg": (46, 211),
    "exit_group": (231, 94),
}
"""From the same headers."""
THREAD = 0x3D0F00
"""Flags of clone for a thread of the GNU C library: CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM | SETTLS |
PARENT_SETTID | CHILD_CLEARTID."""


@pytest.mark.parametrize("machine", sandbox.ARCHITECTURES)
def test_the_verdicts_of_the_filter(machine: str) -> None:
    allowed = [*((name,) for name in OTHERS), ("openat", 0, 0, os.O_RDONLY | os.O_CLOEXEC), ("clone", THREAD)]
    allowed += [("tgkill", 77, 78, 6), ("kill", 77, 6), ("prlimit64", 0, 7, 0, 1 << 40), ("prctl", 15)]
    refused = [("openat", 0, 0, flags) for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC)]
    refused += [("clone", 17), ("tgkill", 1, 1, 6), ("kill", 1, 6), ("prctl", 1)]
    refused += [("prlimit64", 0, 7, 1 << 40, 0), ("prlimit64", 0, 7, 8, 0)]
    column = sandbox.ARCHITECTURES[machine][0]
    refused += [(name,) for name, numbers in REFUSED.items() if numbers[column] is not None]
    assert {call: verdict(machine, *call) for call in allowed} == dict.fromkeys(allowed, "allowed")
    assert {call: verdict(machine, *call) for call in refused} == dict.fromkeys(refused, "EPERM")
    assert {verdict(machine, name) for name in ("clone3", "openat2")} == {"ENOSYS"}
    assert verdict(machine, "read", architecture=0x40000003) == "EPERM"  # AUDIT_ARCH_I386


def test_a_processor_without_a_table_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert sandbox.restrict() == "no filter for the processor riscv64"
