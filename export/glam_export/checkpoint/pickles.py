"""Opcodes of the pickles in a checkpoint, and the types that they name. No code is run, no claimed size allocated.

Source: the documentation of Python's `pickletools` for the opcodes; `torch.serialization._legacy_save` for files from
before PyTorch 1.6.
"""

import io
import mmap
import pickletools
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

from glam_deploy.signatures import Kind, kind_of

Opcode = tuple[str, Any, int | None]
"""Name, argument and place of an opcode, as `pickletools.genops` gives them."""

LONGEST = 1000
"""Most characters of a type's name with its module. PyTorch's time to refuse a name grows with its square."""

_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
"""torch.serialization.MAGIC_NUMBER pickled, which follows the protocol in files from before PyTorch 1.6."""

_ZIP = b"PK\x03\x04"
"""First bytes of a file that torch.load reads as a zip archive."""


def is_plain_pickle(path: Path) -> bool:
    """Whether pickle.dump wrote the file, and not torch.save. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(2 + len(_MAGIC))
    return kind_of(head) is Kind.PICKLE and not head[2:].startswith(_MAGIC)


def is_whole(path: Path) -> bool:
    """Whether a plain pickle has a STOP opcode, found without running it. Raises OSError."""
    with path.open("rb") as file, suppress(*ZIP_DAMAGE), mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return any(opcode == "STOP" for opcode, _, _ in _opcodes(mapped))
    return False


def types_in(path: Path) -> list[str]:
    """Types that the pickles of a checkpoint name, sorted; of a damaged file those before the damage.

    Raises OSError.
    """
    names: dict[str, None] = {}
    with suppress(*ZIP_DAMAGE):
        for opcodes in opcodes_of(path):
            for name in _types(opcodes):
                names[name] = None
    return sorted(names)


def opcodes_of(path: Path) -> Iterator[Iterator[Opcode]]:
    """The opcodes of each pickle in a checkpoint, in the order in which torch.load reads them.

    The opcodes of a pickle must be consumed before the next pickle. Raises OSError.
    """
    with path.open("rb") as file, suppress(*ZIP_DAMAGE):
        for pickled in _pickles(file):
            yield _opcodes(pickled)


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
"""Errors of zipfile and of PyTorch's reader for truncated or changed archives (encoding, version, password, offset).
Pickletools raises some of them too."""

_LEGACY = 5
"""Pickles in a file from before PyTorch 1.6: magic number, protocol, system, content, names of storages."""


def _pickles(file: BinaryIO) -> Iterator[IO[bytes] | mmap.mmap]:
    if file.read(len(_ZIP)) == _ZIP:
        # PyTorch's own reader: zipfile may find another entry of that name
        yield io.BytesIO(torch._C.PyTorchFileReader(file.name).get_record("data.pkl"))
        return
    # read() allocates as many bytes as a damaged pickle asks for; a memory map returns only those that exist
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for _ in range(_LEGACY):
            yield mapped


def _types(opcodes: Iterable[Opcode]) -> Iterator[str]:
    strings: list[str] = []
    memo: dict[int, str] = {}
    last = ""
    for opcode, argument, _ in opcodes:
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


def _opcodes(file: IO[bytes] | mmap.mmap) -> Iterator[Opcode]:
    """As pickletools.genops, which ends at a type's name that is not ASCII; PyTorch reads it, so it is yielded too."""
    try:
        for opcode, argument, place in pickletools.genops(cast("IO[bytes]", file)):
            yield opcode.name, argument, place
    except UnicodeDecodeError as error:
        if error.encoding == "ascii":
            yield "GLOBAL", error.object.decode("utf-8", "replace"), None
