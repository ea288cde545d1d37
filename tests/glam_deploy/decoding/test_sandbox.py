"""What the kernel refuses a process with the filter, by the error numbers of the calls themselves."""

import errno
import json
import os
import platform
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from support.commands import start_process

from glam_deploy.decoding import sandbox
from glam_deploy.decoding.system_calls import ALLOWED, CHECKED, NEWEST

OTHERS = {
    "socket": (41, 198),
    "connect": (42, 203),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "pidfd_getfd": (438, 438),
    "tkill": (200, 130),
    "setrlimit": (160, 164),
    "io_uring_setup": (425, 425),
    "unlinkat": (263, 35),
    "renameat2": (316, 276),
    "truncate": (76, 45),
    "utimensat": (280, 88),
    "flock": (73, 32),
    "msgget": (68, 186),
    "semget": (64, 190),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "add_key": (248, 217),
    "userfaultfd": (323, 282),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "bpf": (321, 280),
    "mount": (165, 40),
    "umount2": (166, 39),
    "fsopen": (430, 430),
    "acct": (163, 89),
    "migrate_pages": (256, 238),
    "ioprio_set": (251, 30),
    "unshare": (272, 97),
    "setns": (308, 268),
    "perf_event_open": (298, 241),
    "clock_settime": (227, 112),
    "setuid": (105, 146),
    "mremap": (25, 216),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
}
"""Calls that no decoder needs, from the same headers as those of `system_calls`."""
NUMBERS = ALLOWED | CHECKED | OTHERS
MORE: dict[str, tuple[int, ...]] = {
    "msgget": (0, 0o1600),
    "semget": (0, 1, 0o1600),
    "shmget": (0, 4096, 0o1600),
    "shmat": (0, 0, 0),
    "add_key": (0, 0, 0, 0, -4),
    "userfaultfd": (1,),
    "inotify_init1": (0,),
    "fanotify_init": (0, 0),
    "bpf": (0, 0, 0),
    "mount": (0, 0, 0, 0, 0),
    "umount2": (0, 0),
    "fsopen": (0, 0),
    "acct": (0,),
    "migrate_pages": (0, 0, 0, 0),
    "ioprio_set": (1, 0, 0),
    "perf_event_open": (0, 0, 0, 0, 0),
    "clock_settime": (0, 0),
    "setuid": (0,),
    "tkill": (1, 0),
    "execveat": (0, 0, 0, 0, 0x1000),
    "mremap": (0, 4096, 8192, 1),
    "landlock_create_ruleset": (0, 0, 1),
    "landlock_add_rule": (0, 0, 0, 0),
    "landlock_restrict_self": (0, 0),
}
"""Call -> arguments with which it is tried."""

CONFINED = """
import ctypes, errno, fcntl, json, mmap, multiprocessing, os, resource, signal, socket, struct, sys, threading
from pathlib import Path
ours, theirs = socket.socketpair()
from glam_deploy.decoding.start import confine
missing = confine(os.getppid(), Path(sys.argv[1], "file") if sys.argv[1:] else None)
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
        "io_uring": raw(IO_URING_SETUP, 1, 0),
        "typing into a terminal": lambda: fcntl.ioctl(0, 0x5412, b"x"),
        "flags of a file": lambda: fcntl.ioctl(os.open(file, os.O_RDONLY), 0x40086602, bytes(8)),
        "owner of signals": lambda: fcntl.fcntl(ours, fcntl.F_SETOWN, parent),
        "signal of input": lambda: fcntl.fcntl(ours, 10, signal.SIGKILL),
        "lock": lambda: fcntl.lockf(os.open(file, os.O_RDONLY), fcntl.LOCK_SH),
        "lock of a file": lambda: fcntl.flock(os.open(file, os.O_RDONLY), fcntl.LOCK_EX),
        "lease": lambda: fcntl.fcntl(os.open(file, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK),
        "times": lambda: os.utime(file, (0, 0)),
        "priority of the parent": lambda: os.setpriority(os.PRIO_PROCESS, parent, 19),
        "cores of the parent": lambda: os.sched_setaffinity(parent, os.sched_getaffinity(0)),
        "policy of the parent": lambda: os.sched_setscheduler(parent, os.SCHED_IDLE, os.sched_param(0)),
        "memory that counts as a stack": raw(MMAP, 0, 5 << 30, 3, GROWING, -1, 0),
        "chroot": lambda: os.chroot(folder),
        "host name": lambda: socket.sethostname("x"),
        **{name: raw(number, *arguments) for name, (number, arguments) in MORE.items()},
    }.items()
}
print(json.dumps([missing, found]))
"""


def test_each_way_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"whole")
    column = sandbox.ARCHITECTURES[platform.machine()][0]
    raw = ("mmap", "clone", "ptrace", "process_vm_readv", "prctl", "setrlimit", "prlimit64", "io_uring_setup")
    numbers = {name.upper(): NUMBERS[name][column] for name in raw}
    numbers["GROWING"] = 0x0122  # MAP_GROWSDOWN | MAP_ANONYMOUS | MAP_PRIVATE
    numbers["MORE"] = {name: (NUMBERS[name][column], arguments) for name, arguments in MORE.items()}
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
NAMES = {"aarch64": {"newfstatat": "fstatat"}}
"""Names of calls in the headers that are other ones."""


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    path, form = HEADERS[machine]
    if not path.exists():
        pytest.skip(f"{path} is not there")
    defined = {name: int(number) for name, number in form.findall(path.read_text())}
    column = sandbox.ARCHITECTURES[machine][0]
    for name, numbers in NUMBERS.items():
        assert numbers[column] == defined.get(NAMES.get(machine, {}).get(name, name)), name


def verdict(machine: str, name: str, *arguments: int, architecture: int | None = None) -> str:
    """What the filter of the process 77 says of a call, by the rules of classic BPF (linux/filter.h)."""
    column, own = sandbox.ARCHITECTURES[machine]
    return verdict_of(machine, NUMBERS[name][column], *arguments, architecture=architecture or own)


def verdict_of(machine: str, number: int | None, *arguments: int, architecture: int) -> str:
    assert number is not None
    values = struct.pack(
        "<iIQ6Q", number, architecture, 0, *(each % (1 << 64) for each in arguments), *[0] * (6 - len(arguments))
    )
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


THREAD = 0x3D0F00
"""Flags of clone for a thread of the GNU C library: CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM | SETTLS |
PARENT_SETTID | CHILD_CLEARTID."""


@pytest.mark.parametrize("machine", sandbox.ARCHITECTURES)
def test_the_verdicts_of_the_filter(machine: str) -> None:
    column, own = sandbox.ARCHITECTURES[machine]
    allowed: list[Any] = [(name,) for name, numbers in ALLOWED.items() if numbers[column] is not None]
    allowed += [("openat", 0, 0, os.O_RDONLY | os.O_CLOEXEC), ("clone", THREAD), ("tgkill", 77, 78, 6), ("kill", 77, 6)]
    allowed += [("prlimit64", 0, 7, 0, 1 << 40), ("prctl", 15), ("fcntl", 3, 1030), ("ioctl", 1, 0x5401)]
    allowed += [("mmap", 0, 4096, 3, 0x22), ("mmap", 0, 4096, 3, 0x20022)]  # private memory, and the stack of a thread
    refused: list[Any] = [("openat", 0, 0, flags) for flags in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC)]
    refused += [("clone", 17), ("tgkill", 1, 1, 6), ("kill", 1, 6), ("kill", -1, 6), ("prctl", 1), ("prctl", 4)]
    refused += [("prlimit64", 0, 7, 1 << 40, 0), ("prlimit64", 0, 7, 8, 0)]
    refused += [("fcntl", 3, command) for command in (6, 7, 8, 10, 15, 37, 38, 1024, 1026)]
    refused += [("ioctl", 0, request) for request in (0x5412, 0x540E, 0x8901, 0x40086602)]
    refused += [("mmap", 0, 5 << 30, 3, 0x0122), ("mmap", 0, 4096, 3, 0x20122)]
    refused += [(name,) for name in OTHERS]
    assert {call: verdict(machine, *call) for call in allowed} == dict.fromkeys(allowed, "allowed")
    assert {call: verdict(machine, *call) for call in refused} == dict.fromkeys(refused, "EPERM")
    assert {verdict(machine, name) for name in ("clone3", "openat2")} == {"ENOSYS"}
    assert verdict(machine, "read", architecture=0x40000003) == "EPERM"  # AUDIT_ARCH_I386
    assert verdict_of(machine, NEWEST + 1, architecture=own) == "ENOSYS"
    known = {number for numbers in NUMBERS.values() if (number := numbers[column]) is not None}
    others = set(range(NEWEST + 1)) - known
    assert {verdict_of(machine, number, architecture=own) for number in others} == {"EPERM"}


def test_a_processor_without_a_table_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert sandbox.restrict() == "no filter for the processor riscv64"
