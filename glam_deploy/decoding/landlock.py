"""Landlock (Linux 5.13 or later) for a process that decodes images of unknown senders: the files that it may open.

It may read its own image, and what Python may still import, and no other file: no data, no token, no /proc. It reaches
no other process through /proc/PID/fd, and, where the kernel has these limits, by TCP (Linux 6.7), signals and abstract
sockets (6.12). What it has as a descriptor it can use. Sources: landlock(7), the kernel's
Documentation/userspace-api/landlock.rst and linux/landlock.h.
"""

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from glam_deploy.decoding import sandbox

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Numbers of the system calls, which are those of every architecture of `sandbox.ARCHITECTURES`."""
_VERSION, _PATH_BENEATH = 1, 1
"""LANDLOCK_CREATE_RULESET_VERSION and LANDLOCK_RULE_PATH_BENEATH."""
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = ((5, 16), (3, 15), (2, 14), (1, 13))
"""(version of Landlock, number of rights of files since then), LANDLOCK_ACCESS_FS_*: all are taken away."""
_NETWORK_VERSION, _NETWORK = 4, 0b11
"""LANDLOCK_ACCESS_NET_BIND_TCP and CONNECT_TCP."""
_SCOPES_VERSION, _SCOPES = 6, 0b11
"""LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET and SIGNAL."""
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
"""Where the dynamic linker searches (ld.so(8))."""


def restrict(image: Path | None) -> str:
    """Restrict this process for good; call it while the process has one thread, and before `sandbox.restrict`.

    `image`: a file that it may read besides; None: it has a descriptor of it. Returns "", or why this kernel has no
    Landlock; then every file can be opened as before.
    """
    try:
        ruleset = _new_ruleset(version())
        try:
            for path in filter(Path.is_absolute, readable()):
                _allow(ruleset, path)
            with suppress(OSError):  # opening it fails too, and says why
                if image is not None and image.is_file():
                    _allow(ruleset, image)
            sandbox.forbid_new_privileges()
            _call(_RESTRICT_SELF, ruleset, 0)
        finally:
            os.close(ruleset)
    except OSError as error:
        return str(error.strerror)
    return ""


def version() -> int:
    """Version of this kernel's Landlock. Raises OSError if it has none."""
    return _call(_CREATE_RULESET, 0, 0, _VERSION)


def readable() -> Iterator[Path]:
    """The folders and files with what Python and the dynamic linker may still read, whether they exist or not."""
    yield from map(Path, (*sys.path, f"{sys.prefix}/lib", f"{sys.base_prefix}/lib"))
    yield Path(__file__).parents[1]
    yield from map(Path, _LIBRARIES)


def _new_ruleset(known: int) -> int:
    """Descriptor of a set of rules that takes away every right that the version `known` has."""
    files = next(number for since, number in _FILE_RIGHTS if known >= since)
    network = _NETWORK if known >= _NETWORK_VERSION else 0
    scopes = _SCOPES if known >= _SCOPES_VERSION else 0
    attributes = struct.pack("=QQQ", (1 << files) - 1, network, scopes)  # struct landlock_ruleset_attr
    return _call(_CREATE_RULESET, attributes, len(attributes), 0)


def _allow(ruleset: int, path: Path) -> None:
    """Allow to read the file, or the folder and all within it. What this process cannot reach stays refused."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rights = _READ_FILE | _READ_DIR if stat.S_ISDIR(os.fstat(descriptor).st_mode) else _READ_FILE
            rule = struct.pack("=Qi", rights, descriptor)  # struct landlock_path_beneath_attr
            _call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        finally:
            os.close(descriptor)


def _call(number: int, *arguments: int | bytes) -> int:
    """A system call. Raises OSError."""
    given = [ctypes.c_char_p(each) if isinstance(each, bytes) else ctypes.c_long(each) for each in arguments]
    result = int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *given))
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
