"""Numbers of Linux system calls, as (x86-64, aarch64); None: the architecture does not have the call.

Source: the kernel's UAPI headers, asm/unistd_64.h as generated from arch/x86/entry/syscalls/syscall_64.tbl, and
asm-generic/unistd.h, which aarch64 uses.
"""

from collections.abc import Mapping
from types import MappingProxyType

Numbers = tuple[int, int | None]

REFUSED: Mapping[str, Numbers] = MappingProxyType(
    {
        # sockets
        "socket": (41, 198),
        "socketpair": (53, 199),
        "connect": (42, 203),
        "bind": (49, 200),
        "listen": (50, 201),
        "accept": (43, 202),
        "accept4": (288, 242),
        # programs and processes
        "execve": (59, 221),
        "execveat": (322, 281),
        "fork": (57, None),
        "vfork": (58, None),
        "unshare": (272, 97),
        "setns": (308, 268),
        # other processes
        "ptrace": (101, 117),
        "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271),
        "process_madvise": (440, 440),
        "pidfd_getfd": (438, 438),
        "pidfd_send_signal": (424, 424),
        "kcmp": (312, 272),
        "perf_event_open": (298, 241),
        "tkill": (200, 130),
        "rt_sigqueueinfo": (129, 138),
        "rt_tgsigqueueinfo": (297, 240),
        # files
        "creat": (85, None),
        "truncate": (76, 45),
        "open_by_handle_at": (304, 265),
        "rename": (82, None),
        "renameat": (264, 38),
        "renameat2": (316, 276),
        "unlink": (87, None),
        "unlinkat": (263, 35),
        "link": (86, None),
        "linkat": (265, 37),
        "symlink": (88, None),
        "symlinkat": (266, 36),
        "mkdir": (83, None),
        "mkdirat": (258, 34),
        "rmdir": (84, None),
        "mknod": (133, None),
        "mknodat": (259, 33),
        # rights and attributes of files
        "chmod": (90, None),
        "fchmod": (91, 52),
        "fchmodat": (268, 53),
        "fchmodat2": (452, 452),
        "chown": (92, None),
        "fchown": (93, 55),
        "lchown": (94, None),
        "fchownat": (260, 54),
        "setxattr": (188, 5),
        "lsetxattr": (189, 6),
        "fsetxattr": (190, 7),
        "setxattrat": (463, 463),
        "removexattr": (197, 14),
        "lremovexattr": (198, 15),
        "fremovexattr": (199, 16),
        "removexattrat": (466, 466),
        # memory and queues that outlive the process
        "shmget": (29, 194),
        "mq_open": (240, 180),
        "mq_unlink": (241, 181),
        # limits
        "setrlimit": (160, 164),
        # ways around a filter
        "io_uring_setup": (425, 425),
        "io_uring_enter": (426, 426),
        "io_uring_register": (427, 427),
    }
)
"""Calls that are refused whatever their arguments."""

CHECKED: Mapping[str, Numbers] = MappingProxyType(
    {
        "open": (2, None),
        "openat": (257, 56),
        "kill": (62, 129),
        "tgkill": (234, 131),
        "clone": (56, 220),
        "prctl": (157, 167),
        "prlimit64": (302, 261),
        "openat2": (437, 437),
        "clone3": (435, 435),
    }
)
"""Calls that are refused with some arguments, or answered as if the kernel did not have them."""
