"""The types that a pickle names, read from its opcodes without running it, and no more of it in memory than there is.

Source: the documentation of Python's `pickletools` for the opcodes; `torch.serialization._legacy_save` for files from
before PyTorch 1.6.
"""

import mmap
import pickletools
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from glam_deploy.signatures import Kind, kind_of

LONGEST = 1000
"""Characters of a type's name, its module with it. PyTorch's time to refuse a name grows with its square."""

_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""torch.serialization.MAGIC_NUMBER as pickle writes it, after the protocol: how torch.save began before PyTorch 1.6."""


def is_plain_pickle(path: Path) -> bool:
    """Whether pickle.dump wrote the file, and not torch.save. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(2 + len(_MAGIC))
    return kind_of(head) is Kind.PICKLE and not head[2:].startswith(_MAGIC)


def is_whole(path: Path) -> bool:
    """Whether a plain pickle has its end, as far as that can be told without running it. Raises OSError."""
    with path.open("rb") as file, suppress(*ZIP_DAMAGE), mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return any(opcode == "STOP" for opcode, _, _ in _opcodes(mapped))
    return False


def types_in(path: Path) -> list[str]:
    """Types that the pickles of a checkpoint name, a zip archive or not, sorted; those before it is damaged.

    Raises OSError.
    """
    names: dict[str, None] = {}
    with path.open("rb") as file, suppress(*ZIP_DAMAGE):
        for pickled in _pickles(file):
            for name in _types(pickled):
                names[name] = None
    return sorted(names)


ZIP_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    EOFError,
    OSError,
)
"""What zipfile raises for archives that were cut or changed: other encodings, versions, passwords and places among it.
Pickletools raises some of the same."""

_LEGACY = 4
"""Pickles in a file from before PyTorch 1.6: magic number, protocol, system, content; later ones name no types."""


def _pickles(file: BinaryIO) -> Iterator[IO[bytes] | mmap.mmap]:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.rpartition("/")[2] == "data.pkl":
                    with archive.open(name) as inner:
                        yield inner
        return
    # a file that is asked for more bytes than it has sets aside the memory; what is mapped gives what there is
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for _ in range(_LEGACY):
            yield mapped


def _types(file: IO[bytes] | mmap.mmap) -> Iterator[str]:
    strings: list[str] = []
    memo: dict[int, str] = {}
    last = ""
    for opcode, argument, _ in _opcodes(file):
        if opcode == "GLOBAL":
            yield str(argument).replace(" ", ".")
        elif opcode == "STACK_GLOBAL":
            yield ".".join(strings[-2:])
        elif "PUT" in opcode or opcode == "MEMOIZE":
            memo[len(memo) if argument is None else int(argument)] = last
        else:
            pushed = memo.get(int(argument or 0)) if "GET" in opcode else argument
            last = pushed if isinstance(pushed, str) else ""
            strings = [*strings[-1:], last] if last else strings


def _opcodes(file: IO[bytes] | mmap.mmap) -> Iterator[tuple[str, Any, int | None]]:
    """As pickletools.genops, and a type's name that is no ASCII, which PyTorch reads, before the end that it makes."""
    try:
        for opcode, argument, place in pickletools.genops(cast("IO[bytes]", file)):
            yield opcode.name, argument, place
    except UnicodeDecodeError as error:
        if error.encoding == "ascii":
            yield "GLOBAL", error.object.decode("utf-8", "replace"), None
