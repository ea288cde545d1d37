"""Reads the file of --weights without running any code in it.

A checkpoint is untrusted: torch's restricted unpickler reads it, and the only types that it may build besides tensors
are those of `HARMLESS`. Files of other kinds are recognized by their first bytes and named in the message.
"""

import argparse
import datetime
import pathlib
import pickle
import re
import struct
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file

from glam_deploy.errors import CheckpointError, UsageError
from glam_deploy.regular import open_regular
from glam_export.checkpoint.foreign import file_kind, folder_kind
from glam_export.checkpoint.pickle_cost import check_hashing
from glam_export.checkpoint.pickles import LONGEST, is_plain_pickle, is_whole, types_in
from glam_export.checkpoint.snippets import program

LISTED = 8
"""Most names that a message lists; it counts the others."""


def _plain_mapping(*_: object) -> OrderedDict[Any, Any]:
    """Replaces the constructor of a mapping, because torch's unpickler sets items of dict and OrderedDict only."""
    return OrderedDict()


class Unread:
    """Replaces values that could be of any size and are not needed: numpy's arrays and types, ranges.

    Arguments and state are dropped, so that a few bytes of a file cannot allocate much memory.
    """

    def __init__(self, *_: object) -> None:
        """Takes any arguments and keeps none."""

    def __setstate__(self, state: object) -> None:
        """Drops the state."""


def _unread_types() -> Iterator[tuple[Callable[..., Any], str]]:
    """Numpy's arrays, scalars and types under the names of numpy 1 and numpy 2, and ranges."""
    for core in ("numpy.core", "numpy._core"):
        for function in ("multiarray.scalar", "multiarray._reconstruct", "numeric._frombuffer"):
            yield Unread, f"{core}.{function}"
    yield from ((Unread, name) for name in ("numpy.ndarray", "numpy.dtype", "builtins.range"))
    yield from ((Unread, f"numpy.dtypes.{type(np.dtype(code)).__name__}") for code in "?bhilqBHILQefdFDSUOMm")


HARMLESS: tuple[Callable[..., Any] | tuple[Callable[..., Any], str], ...] = (
    *_unread_types(),
    *((pathlib.PurePosixPath, f"pathlib{inner}.{name}") for inner in ("", "._local") for name in ("PosixPath", "Path")),
    *((pathlib.PureWindowsPath, f"pathlib{inner}.WindowsPath") for inner in ("", "._local")),
    pathlib.PurePosixPath,
    pathlib.PureWindowsPath,
    argparse.Namespace,
    types.SimpleNamespace,
    (_plain_mapping, "collections.defaultdict"),
    OrderedDict,
    dict,
    list,
    set,
    frozenset,
    tuple,
    int,
    float,
    str,
    complex,
    slice,
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
    *(
        (OrderedDict, name)
        for name in (
            "lightning.fabric.utilities.data.AttributeDict",
            "lightning_fabric.utilities.data.AttributeDict",
            "lightning.pytorch.utilities.parsing.AttributeDict",
            "pytorch_lightning.utilities.parsing.AttributeDict",
            "omegaconf.dictconfig.DictConfig",
            "omegaconf.listconfig.ListConfig",
            "omegaconf.base.ContainerMetadata",
            "omegaconf.base.Metadata",
            *(
                f"omegaconf.nodes.{kind}Node"
                for kind in ("Any", "String", "Integer", "Float", "Boolean", "Bytes", "Path", "Enum")
            ),
            "typing.Any",
            "yacs.config.CfgNode",
            "fvcore.common.config.CfgNode",
            "detectron2.config.config.CfgNode",
            "mmengine.config.config.ConfigDict",
            "addict.addict.Dict",
            "easydict.EasyDict",
            "ml_collections.config_dict.config_dict.ConfigDict",
            "box.box.Box",
        )
    ),
)
"""Types that a checkpoint may hold besides tensors: values without behaviour. Configuration classes of other libraries
are read as OrderedDict, so the libraries are neither needed nor imported."""


_NAMES = frozenset(
    each[1] if isinstance(each, tuple) else f"{each.__module__}.{each.__qualname__}" for each in HARMLESS
)
"""The types of HARMLESS as a pickle names them."""


def read_weights_file(path: Path) -> object:
    """Content of a file by `torch.save` or safetensors: mappings of tensors on the CPU and of harmless values.

    Raises UsageError if the file cannot be opened; CheckpointError if it is of another kind, damaged, or holds a type
    that is not in `HARMLESS`. The message names the types.
    """
    head = _head(path)
    if _is_safetensors(head):
        return _safetensors(path)
    if kind := file_kind(path, head):
        raise CheckpointError(f"{path}: not a readable checkpoint: it is {kind}")
    _refuse_long_names(path)
    check_hashing(path)
    _require_sums(path)
    try:
        # the warnings are about pickle protocols; a user cannot act on them
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(list(HARMLESS)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _other_types(path, error) from error
    except Exception as error:  # damaged bytes cause many types, such as IndexError and AssertionError
        raise _damaged(path, error) from error


def _refuse_long_names(path: Path) -> None:
    if any(len(name) > LONGEST for name in types_in(path)):
        raise CheckpointError(
            f"{path}: not a readable checkpoint: it names a type of more than {LONGEST} characters, as no library has. "
            f"Do not use it."
        )


_NOT_FOR_ZIPFILE = (zipfile.BadZipFile, OSError, ValueError, RuntimeError, LookupError, EOFError, struct.error)
"""What zipfile raises for other files and damaged directories, which torch names."""


def _require_sums(path: Path) -> None:
    """Raise CheckpointError if a part of a zip archive has not the CRC-32 that it should have, which torch ignores.

    `torch.serialization.set_crc32_options(False)` writes 0 for all parts.
    """
    with (
        suppress(*_NOT_FOR_ZIPFILE),
        open_regular(path) as file,
        zipfile.ZipFile(file) as archive,
    ):
        parts = archive.infolist()
        plain = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
        # parts that share bytes would cost more than the file has
        if not plain or not any(part.CRC for part in parts) or sum(p.file_size for p in parts) > path.stat().st_size:
            return
        if (damaged := archive.testzip()) is not None:
            raise CheckpointError(
                f"{path}: the checkpoint is damaged: its part {damaged!a} has another checksum (CRC-32) than it should "
                f"have. Copy or download it again."
            )


def _head(path: Path) -> bytes:
    """The first bytes of the file."""
    if path.is_dir():
        raise UsageError(
            f"{path}: cannot be read (Is a directory): it is {folder_kind(path)} Check the path given to --weights."
        )
    try:
        with open_regular(path) as file:
            head = file.read(1024)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Check the path given to --weights.") from error
    return head


# safetensors


def _is_safetensors(head: bytes) -> bool:
    """A length in eight bytes, then a JSON object (safetensors format, "Format")."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 100_000_000


def _safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


# messages for files that are refused


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name if name.isprintable() else ascii(name) for name in names[:LISTED])
    return shown + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _damaged(path: Path, error: Exception) -> CheckpointError:
    # torch's own message advises to switch its safety off
    text = "" if "weights_only" in str(error) else str(error)
    reason = text.splitlines()[0] if text else f"its parts do not fit together, {type(error).__name__}"
    if is_plain_pickle(path) and is_whole(path):
        names = _listed(types_in(path))
        return CheckpointError(
            f"{path}: this is a pickle that torch.save did not write{names and f', of {names}'}. If you trust where it "
            f"came from, save the state dict alone:\n{program(path, plain_pickle=True)}"
        )
    return CheckpointError(
        f"{path}: not a readable checkpoint ({reason}). "
        f"Expected .pt, .pth, .ckpt or .p written by torch.save, or .safetensors; the file may be cut short."
    )


_NAMED = re.compile(r"(?:GLOBAL|but got|unrecognized function|instantiate)[ :]+(?:<class ')?([\w.]+)")


def _other_types(path: Path, error: pickle.UnpicklingError) -> CheckpointError:
    plain = is_plain_pickle(path)
    names = _unsafe_types(path) or _NAMED.findall(str(error)) or types_in(path)
    if not names or (plain and _NAMES.issuperset(types_in(path))):
        return _damaged(path, error)
    shown = _listed(names)
    own = [name.removeprefix(_OWN) for name in names if name.startswith(_OWN) and name.replace(".", "").isidentifier()]
    made = f" (for {', '.join(own)}, of the program that wrote it, empty classes are made)" if own else ""
    return CheckpointError(
        f"{path}: this file holds something other than tensors and plain values: {shown}. To read it could run code "
        f"that came with the file, so it was refused. If you trust where it came from, save the state dict alone, in "
        f"an environment that has these types{made}:\n"
        f"{program(path, plain_pickle=plain, own_types=own)}"
    )


_OWN = "__main__."
"""Prefix of the names of types that the program that wrote the file has defined itself."""


def _unsafe_types(path: Path) -> list[str]:
    """Every type in the file that is not allowed; empty for files from before PyTorch 1.6."""
    try:
        with torch.serialization.safe_globals(list(HARMLESS)):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # the file is damaged as well
        return []
