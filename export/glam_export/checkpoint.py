"""A file of weights -> the network, strictly: every key accounted for, no code run.

The published checkpoints decide what exists: with all attention and fusion tensors the network has a fusion head,
without any of them it has none.
"""

import hashlib
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from glam_deploy.errors import CheckpointError, UsageError
from glam_export.reference import GlamNetwork

HEAD_KEYS = frozenset(
    {"mil_attn_V.weight", "mil_attn_U.weight", "mil_attn_w.weight", "fusion_dnn.weight", "fusion_dnn.bias"}
)
WRAPPERS = ("state_dict", "model", "model_state_dict")
PREFIXES = ("module.", "model.")
COUNTER = "num_batches_tracked"
"""A training counter in every batch norm; inference never reads it, so it may be there or not."""
MAGIC = (b"PK\x03\x04", b"\x80")
"""How files of torch.save begin: a zip archive, or from before PyTorch 1.6 a pickle of protocol 2 or later."""
LISTED = 20
"""Keys named in a message before the rest are counted."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network filled from a file."""

    network: GlamNetwork
    """In eval mode, float32, on the CPU."""
    path: Path
    sha256: str
    """Of the file's bytes, hexadecimal."""
    parameters: int
    """Learned numbers, batch-norm statistics not counted."""
    ignored: tuple[str, ...]
    """Keys in the file that the caller asked to leave out."""


def load_checkpoint(path: Path, *, ignore: Sequence[str] = ()) -> Checkpoint:
    """Read `.pt`, `.pth`, `.ckpt` or `.safetensors`, plain or wrapped, float16 to float64, into a GlamNetwork.

    `ignore`: shell patterns of keys to leave out, for checkpoints that carry tensors of other models along.
    Raises UsageError for a file that cannot be opened, CheckpointError for one that is damaged, wants to run code, or
    whose keys, shapes or values are not the network's, by name.
    """
    digest = _sha256(path)
    everything = unwrap(_read(path), path)
    ignored = tuple(sorted(k for k in everything if any(fnmatchcase(k, pattern) for pattern in ignore)))
    tensors = {k: v for k, v in everything.items() if k not in ignored}
    fusion_head = _has_head(tensors, path)
    with torch.device("meta"):
        expected = GlamNetwork(fusion_head=fusion_head).state_dict()
    _check_keys(tensors, expected, path)
    network = _fill(tensors, fusion_head=fusion_head)
    parameters = sum(p.numel() for p in network.parameters())
    return Checkpoint(network=network, path=path, sha256=digest, parameters=parameters, ignored=ignored)


def load_weights(content: bytes, *, fusion_head: bool) -> GlamNetwork:
    """The network from the bytes of a bundle's own safetensors file, whose hash vouches for what is in it.

    Raises CheckpointError where they are no such file, or their keys or shapes are not the network's.
    """
    try:
        return _fill(load(content), fusion_head=fusion_head)
    except (safetensors.SafetensorError, RuntimeError) as error:
        head = "with" if fusion_head else "without"
        raise CheckpointError(
            f"the bundle's weights are not those of a GLAM network {head} fusion head ({str(error).splitlines()[0]}). "
            f"Export the checkpoint again."
        ) from error


def save_weights(network: GlamNetwork, path: Path) -> None:
    """Write a network's float32 tensors as safetensors, training counters left out."""
    tensors = {k: v.contiguous() for k, v in network.state_dict().items() if not k.endswith(COUNTER)}
    save_file(tensors, path)


def unwrap(content: object, path: Path) -> dict[str, Tensor]:
    """The state dict inside a checkpoint: under `state_dict` or `model` and behind `module.`, where those are used."""
    while isinstance(content, Mapping) and (inner := next((w for w in WRAPPERS if w in content), None)):
        content = content[inner]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(
            f"{path}: no state dict found; expected a mapping of names to tensors, plain or under one of "
            f"{', '.join(WRAPPERS)}. Save `model.state_dict()` and export that file."
        )
    tensors = {str(k): v for k, v in content.items()}
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in tensors)), None):
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    return tensors


def _fill(tensors: Mapping[str, Tensor], *, fusion_head: bool) -> GlamNetwork:
    with torch.device("meta"):  # drawing 24 million initial weights takes longer than all else here
        network = GlamNetwork(fusion_head=fusion_head)
    network.to_empty(device="cpu")
    counters = {k: torch.zeros_like(v) for k, v in network.state_dict().items() if k.endswith(COUNTER)}
    network.load_state_dict({**tensors, **counters})
    return network.eval().requires_grad_(False)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Check the path given to --weights.") from error


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    _check_magic(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # remarks on pickle protocols, nothing that a user could act on
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: this file holds something other than tensors. Loading that could run code that came with the "
            f"file, so it was refused. If you trust where it came from, load it yourself in a throw-away environment "
            f"and save only `model.state_dict()`."
        ) from error
    except Exception as error:  # damaged bytes lead the unpickler to many, IndexError and AssertionError among them
        raise _damaged(path, error) from error


def _check_magic(path: Path) -> None:
    """Tell what was never a checkpoint from one that wants to run code: the unpickler refuses both alike."""
    with path.open("rb") as file:
        start = file.read(len(MAGIC[0]))
    if not start.startswith(MAGIC):
        raise _damaged(path, ValueError(f"begins with {start!r}, not as a zip archive or a pickle does"))


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: not a readable checkpoint ({str(error).splitlines()[0] if str(error) else type(error).__name__}). "
        f"Expected .pt, .pth or .ckpt written by torch.save, or .safetensors; the file may be cut short."
    )


def _has_head(tensors: Mapping[str, Tensor], path: Path) -> bool:
    found = HEAD_KEYS & tensors.keys()
    if found and found != HEAD_KEYS:
        raise CheckpointError(
            f"{path}: has {_listed(found)} but lacks {_listed(HEAD_KEYS - found)}. Attention and fusion layers come "
            f"all together or not at all."
        )
    return bool(found)


def _check_keys(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    required = {k for k in expected if not k.endswith(COUNTER)}
    missing = required - tensors.keys()
    unexpected = tensors.keys() - expected.keys()
    wrong = {
        f"{k} {list(tensors[k].shape)}, expected {list(expected[k].shape)}"
        for k in required & tensors.keys()
        if tensors[k].shape != expected[k].shape
    }
    not_float = {k for k in required & tensors.keys() if not tensors[k].is_floating_point()}
    not_finite = {k for k in required & tensors.keys() - not_float if not torch.isfinite(tensors[k].float()).all()}
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
    faults |= {"not floating point": not_float, "with NaN or infinite values": not_finite}
    lines = [f"  {len(keys)} {what}: {_listed(keys)}" for what, keys in faults.items() if keys]
    if lines:
        remedy = ["Unexpected keys can be left out by name with --ignore-key; nothing else can."] if unexpected else []
        raise CheckpointError("\n".join([f"{path}: these are not the weights of a GLAM network:", *lines, *remedy]))


def _listed(keys: set[str] | frozenset[str]) -> str:
    names = sorted(keys)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
