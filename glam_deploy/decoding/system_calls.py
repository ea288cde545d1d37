"""Numbers of the Linux system calls that a decoder needs, as (x86-64, aarch64); None: the architecture has not got it.

Source: the kernel's UAPI headers, asm/unistd_64.h as generated from arch/x86/entry/syscalls/syscall_64.tbl, and
asm-generic/unistd.h, which aarch64 uses. Which ones: those that Python, the C library, NumPy, OpenCV and imagecodecs
make while they read an image, and their other forms for older and newer C libraries.
"""

from collections.abc import Mapping
from types import MappingProxyType

Numbers = tuple[int, int | None]

NEWEST = 466
"""Largest number in Linux 6.13, which is one for all architectures. The C library does without newer calls."""

ALLOWED: Mapping[str, Numbers] = MappingProxyType(
    {
        # descriptors that the process has
        "read": (0, 63),
        "write": (1, 64),
        "readv": (19, 65),
        "writev": (20, 66),
        "pread64": (17, 67),
        "pwrite64": (18, 68),
        "preadv": (295, 69),
        "pwritev": (296, 70),
        "lseek": (8, 62),
        "close": (3, 57),
        "close_range": (436, 436),
        "dup": (32, 23),
        "dup2": (33, None),
        "dup3": (292, 24),
        "pipe": (22, None),
        "pipe2": (293, 59),
        "eventfd2": (290, 19),
        "poll": (7, None),
        "ppoll": (271, 73),
        "select": (23, None),
        "pselect6": (270, 72),
        "sendto": (44, 206),
        "recvfrom": (45, 207),
        "sendmsg": (46, 211),
        "recvmsg": (47, 212),
        "getsockopt": (55, 209),
        "getsockname": (51, 204),
        "getpeername": (52, 205),
        "ftruncate": (77, 46),
        "fallocate": (285, 47),
        # reading of files
        "stat": (4, None),
        "fstat": (5, 80),
        "lstat": (6, None),
        "newfstatat": (262, 79),
        "statx": (332, 291),
        "statfs": (137, 43),
        "fstatfs": (138, 44),
        "access": (21, None),
        "faccessat": (269, 48),
        "faccessat2": (439, 439),
        "readlink": (89, None),
        "readlinkat": (267, 78),
        "getdents": (78, None),
        "getdents64": (217, 61),
        "getcwd": (79, 17),
        "fadvise64": (221, 223),
        "readahead": (187, 213),
        # memory
        "munmap": (11, 215),
        "mprotect": (10, 226),
        "madvise": (28, 233),
        "brk": (12, 214),
        "msync": (26, 227),
        "mincore": (27, 232),
        "memfd_create": (319, 279),
        "membarrier": (324, 283),
        "get_mempolicy": (239, 236),
        # threads of this process
        "futex": (202, 98),
        "futex_waitv": (449, 449),
        "set_robust_list": (273, 99),
        "set_tid_address": (218, 96),
        "rseq": (334, 293),
        "sched_yield": (24, 124),
        "sched_getaffinity": (204, 123),
        "sched_getparam": (143, 121),
        "sched_getscheduler": (145, 120),
        "sched_get_priority_max": (146, 125),
        "sched_get_priority_min": (147, 126),
        "getpriority": (140, 141),
        "getcpu": (309, 168),
        "gettid": (186, 178),
        "exit": (60, 93),
        "exit_group": (231, 94),
        "arch_prctl": (158, None),
        "restart_syscall": (219, 128),
        # signals of this process
        "rt_sigaction": (13, 134),
        "rt_sigprocmask": (14, 135),
        "rt_sigreturn": (15, 139),
        "rt_sigpending": (127, 136),
        "rt_sigtimedwait": (128, 137),
        "rt_sigsuspend": (130, 133),
        "sigaltstack": (131, 132),
        "alarm": (37, None),
        "getitimer": (36, 102),
        "setitimer": (38, 103),
        # time
        "time": (201, None),
        "gettimeofday": (96, 169),
        "clock_gettime": (228, 113),
        "clock_getres": (229, 114),
        "clock_nanosleep": (230, 115),
        "nanosleep": (35, 101),
        "times": (100, 153),
        # facts
        "getpid": (39, 172),
        "getppid": (110, 173),
        "getuid": (102, 174),
        "geteuid": (107, 175),
        "getgid": (104, 176),
        "getegid": (108, 177),
        "getresuid": (118, 148),
        "getresgid": (120, 150),
        "getgroups": (115, 158),
        "getpgrp": (111, None),
        "getpgid": (121, 155),
        "getsid": (124, 156),
        "getrlimit": (97, 163),
        "getrusage": (98, 165),
        "uname": (63, 160),
        "sysinfo": (99, 179),
        "capget": (125, 90),
        "getrandom": (318, 278),
    }
)
"""Calls that are allowed whatever their arguments."""

CHECKED: Mapping[str, Numbers] = MappingProxyType(
    {
        "open": (2, None),
        "openat": (257, 56),
        "mmap": (9, 222),
        "kill": (62, 129),
        "tgkill": (234, 131),
        "clone": (56, 220),
        "prctl": (157, 167),
        "prlimit64": (302, 261),
        "fcntl": (72, 25),
        "ioctl": (16, 29),
        "openat2": (437, 437),
        "clone3": (435, 435),
    }
)
"""Calls that are allowed with some arguments, or answered as if the kernel did not have them."""
