"""Arrays of the npz files in a bundle, whose names and sizes are checked before anything is decompressed."""

import io
import zipfile
from collections.abc import Collection
from typing import Any

import numpy as np

_NPY_HEADER = 256
"""Largest size in bytes of the header of an array."""


def arrays_of(content: bytes, *, names: Collection[str], nbytes: int, optional: Collection[str] = ()) -> dict[str, Any]:
    """The arrays of an npz file by name; nothing is read from a file with other names or with more bytes.

    `names`: those that it must have; `optional`: those that it may have; each once. `nbytes`: of all values together.
    Raises ValueError for another file, and what zipfile and numpy raise for a damaged one.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = archive.infolist()
    found = sorted(member.filename.removesuffix(".npy") for member in members)
    if found != sorted({*names, *({*found} & {*optional})}):
        raise ValueError(f"its arrays are {', '.join(found)[:200] or 'none'}; expected {', '.join(sorted(names))}")
    if (size := sum(member.file_size for member in members)) > nbytes + _NPY_HEADER * len(members):
        raise ValueError(f"its arrays have {size} bytes; expected {nbytes}")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)
    if other := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise ValueError(f"{', '.join(other)}: no array; expected one")
    return arrays
