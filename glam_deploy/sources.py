"""What a caller may give in place of a path (bytes, a binary file, a pydicom Dataset) -> a file that readers open."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glam_deploy.errors import InputError, UsageError
from glam_deploy.records import MAX_PIXELS

MAX_BYTES = 8 * MAX_PIXELS + (1 << 20)
"""Most bytes that are taken from a binary file: the largest image in float64, and a header."""

_CHUNK = 1 << 24
_KINDS = "a path, bytes, a file opened in binary mode or a pydicom Dataset"


@dataclass(frozen=True, kw_only=True)
class Content:
    """An image that is in memory."""

    name: str
    """What a person calls it: the name of the file that it came from, else "bytes", "file" or "dataset"."""
    data: bytes | bytearray


def is_source(value: object) -> bool:
    """Whether `content_of` or a path reader takes `value`, as far as its type tells."""
    return (
        isinstance(value, str | os.PathLike | bytes | bytearray | memoryview) or _is_file(value) or _is_dataset(value)
    )


def content_of(source: Any) -> Content:
    """The bytes of a source that is no path, and its name.

    `source`: bytes, bytearray or memoryview; a file opened in binary mode, which is read from where it stands to its
    end and left open; or a pydicom Dataset with file meta, which is encoded as it is and not changed. Raises UsageError
    for anything else, and for a file that is closed, in text mode or at its end; InputError for one that cannot be read
    or has more than MAX_BYTES; DicomError for a Dataset that cannot be encoded.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return Content(name="bytes", data=bytes(source) if isinstance(source, memoryview) else source)
    if _is_dataset(source):
        from glam_deploy.dicom.encode import file_bytes

        return Content(name=_name(getattr(source, "filename", None), "dataset"), data=file_bytes(source))
    if _is_file(source):
        return Content(name=_name(getattr(source, "name", None), "file"), data=_read(source))
    raise UsageError(f"an image was given as {type(source).__name__}; expected {_KINDS}")


@contextmanager
def as_file(data: bytes | bytearray) -> Iterator[Path]:
    """A path with `data` behind it for as long as the block lasts.

    On Linux the file is in memory (memfd_create(2)), so that no image of a patient reaches a disk; elsewhere it is a
    temporary file that only this user can read.
    """
    if sys.platform == "linux" and Path("/proc/self/fd").is_dir():
        number = os.memfd_create("glam-deploy")
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            yield Path(f"/proc/self/fd/{number}")
        return
    with tempfile.TemporaryDirectory(prefix="glam-deploy-") as folder:
        path = Path(folder) / "image"
        path.write_bytes(data)
        yield path


def _is_file(value: object) -> bool:
    return callable(getattr(value, "read", None)) and not isinstance(value, os.PathLike)


def _is_dataset(value: object) -> bool:
    """Without importing pydicom: who has a Dataset has it imported."""
    module = sys.modules.get("pydicom.dataset")
    return module is not None and isinstance(value, module.Dataset)


def _name(given: object, otherwise: str) -> str:
    # a file of `os.fdopen` or `tempfile.TemporaryFile` has its number for a name
    named = os.fsdecode(given) if isinstance(given, str | bytes | os.PathLike) else ""
    return Path(named).name or otherwise


def _read(file: Any) -> bytes:
    if getattr(file, "closed", False):
        raise UsageError("the image's file is closed: open it again in binary mode")
    start = _position(file)
    content = bytearray()
    try:
        while chunk := file.read(_CHUNK):
            if not isinstance(chunk, bytes | bytearray | memoryview):
                raise UsageError(f"the image's file gives {type(chunk).__name__}: open it in binary mode ('rb')")
            content += chunk
            if len(content) > MAX_BYTES:
                raise InputError(f"the image's file has more than {MAX_BYTES} bytes, too many for one mammogram")
    except (OSError, ValueError) as error:
        raise InputError(f"the image's file cannot be read ({type(error).__name__}): open it in binary mode") from error
    if not content and start:
        raise UsageError(f"the image's file is at its end (byte {start}): seek(0) first")
    return bytes(content)


def _position(file: Any) -> int:
    try:
        return int(file.tell())
    except (OSError, ValueError, AttributeError):
        return 0  # a pipe or socket has none
