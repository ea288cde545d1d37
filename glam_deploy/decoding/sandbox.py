"""Filter of system calls (seccomp, Linux) for a process that decodes images of unknown senders.

The process, its later threads included, may read files (`landlock` says which), use memory, threads and the descriptors
that it has, and ask for the time and for facts about itself. Every other call fails with EPERM: it can open no socket,
start no program, reach no other process, lock or change no file, and change no limit. Sources: seccomp(2), clone(2),
fcntl(2), ioctl_tty(2), mmap(2), and the kernel's UAPI headers linux/seccomp.h, linux/filter.h, linux/audit.h,
linux/prctl.h, linux/sched.h, linux/fcntl.h, asm-generic/ioctls.h and asm-generic/mman.h.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from glam_deploy.decoding.system_calls import ALLOWED, CHECKED, NEWEST

ARCHITECTURES: Mapping[str, tuple[int, int]] = MappingProxyType({"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)})
"""Machine -> its place in `system_calls`, and AUDIT_ARCH_*."""

Instruction = tuple[int, int, int, int]
"""Operation, instructions to skip if it holds and if it does not, operand: struct sock_filter."""

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
"""SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO, to which the error number is added."""
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
"""BPF_LD | BPF_W | BPF_ABS; BPF_JMP | BPF_K with BPF_JEQ, BPF_JGE and BPF_JSET; BPF_RET | BPF_K."""
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Offsets in struct seccomp_data; both architectures are little-endian."""
_X32 = 0x40000000
"""__X32_SYSCALL_BIT: the second set of numbers of x86-64."""
_PASS: Instruction = (_RETURN, 0, 0, _ALLOW)
_CLONE_THREAD = 0x00010000
_MAP_GROWSDOWN = 0x0100
"""A mapping that counts as a stack, so towards no limit of data."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2
_PRCTLS = (3, 15, 16, 0x53564D41)
"""PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME; PR_SET_VMA, by which the C library names its memory."""
_FCNTLS = (0, 1, 2, 3, 4, 1030, 1033, 1034)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_ADD_SEALS, F_GET_SEALS: no locks, leases, signals."""
_IOCTLS = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS (`isatty`), FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""


def restrict() -> str:
    """Restrict this process for good; call it while the process has one thread.

    Returns "", or why this kernel or machine has no such filter; then nothing is refused.
    """
    machine = platform.machine()
    if machine not in ARCHITECTURES or sys.maxsize < 1 << 32:
        return f"no filter for the processor {machine}"
    try:
        forbid_new_privileges()  # without it the filter needs CAP_SYS_ADMIN
        install(program(machine, os.getpid()))
    except OSError as error:
        return str(error.strerror)
    return ""


def forbid_new_privileges() -> None:
    """Let no program that this process starts have more rights than it, for good. Raises OSError."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def install(instructions: Sequence[Instruction]) -> None:
    """Filter the system calls of this process, for good. Raises OSError."""
    code = b"".join(struct.pack("=HBBI", *each) for each in instructions)
    held = ctypes.create_string_buffer(code, len(code))
    packed = struct.pack("@HP", len(instructions), ctypes.addressof(held))  # struct sock_fprog
    filter_program = ctypes.create_string_buffer(packed, len(packed))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(filter_program))


def _prctl(*arguments: int) -> None:
    given = (*arguments, 0, 0, 0, 0)[:5]
    if ctypes.CDLL(None, use_errno=True).prctl(*map(ctypes.c_ulong, given)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def program(machine: str, pid: int) -> list[Instruction]:
    """The filter for an architecture and the process `pid`."""
    column, architecture = ARCHITECTURES[machine]
    allowed = [number for each in ALLOWED.values() if (number := each[column]) is not None]
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        _error(errno.EPERM),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        _error(errno.EPERM),
        (_AT_LEAST, 0, 1, NEWEST + 1),
        _error(errno.ENOSYS),
        *(step for number in allowed for step in ((_EQUAL, 0, 1, number), _PASS)),
        *(
            step
            for name, steps in _checks(pid).items()
            if (number := CHECKED[name][column]) is not None
            for step in ((_EQUAL, 0, len(steps), number), *steps)
        ),
        _error(errno.EPERM),
    ]


def _checks(pid: int) -> Mapping[str, list[Instruction]]:
    """Name of each call of CHECKED -> instructions that end with its verdict."""
    absent = [_error(errno.ENOSYS)]  # the C library then makes the older call, whose flags are no structure in memory
    return {
        "open": _refuse_if([(_argument(1), _ANY_BIT, _WRITES)]),
        "openat": _refuse_if([(_argument(2), _ANY_BIT, _WRITES)]),
        "openat2": absent,
        "mmap": _refuse_if([(_argument(3), _ANY_BIT, _MAP_GROWSDOWN)]),
        "clone": _allow_if(_argument(0), _ANY_BIT, _CLONE_THREAD),
        "clone3": absent,
        "kill": _allow_if(_argument(0), _EQUAL, pid),
        "tgkill": _allow_if(_argument(0), _EQUAL, pid),
        "prctl": _allow_if(_argument(0), _EQUAL, *_PRCTLS),
        "fcntl": _allow_if(_argument(1), _EQUAL, *_FCNTLS),
        "ioctl": _allow_if(_argument(1), _EQUAL, *_IOCTLS),
        "prlimit64": _refuse_if([(_argument(2) + half, _ANY_BIT, 0xFFFFFFFF) for half in (0, 4)]),  # a new limit
    }


def _refuse_if(tests: list[tuple[int, int, int]]) -> list[Instruction]:
    """Refuse if one of the tests (offset, operation, operand) holds."""
    steps: list[Instruction] = []
    for offset, operation, operand in tests:
        steps += [(_LOAD, 0, 0, offset), (operation, 0, 1, operand), _error(errno.EPERM)]
    return [*steps, _PASS]


def _allow_if(offset: int, operation: int, *operands: int) -> list[Instruction]:
    """Allow if the lower half of the argument at `offset` passes the test with one of the operands."""
    steps = [step for operand in operands for step in ((operation, 0, 1, operand), _PASS)]
    return [(_LOAD, 0, 0, offset), *steps, _error(errno.EPERM)]


def _argument(index: int) -> int:
    """Offset of the lower half of an argument."""
    return _ARGUMENTS + 8 * index


def _error(number: int) -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | number)
