"""A file of weights -> the network in PyTorch. Every key of the network must be there, and no other; no code is run.

The keys decide which network it is (`glam_export.networks.FAMILIES`).
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor

from glam_deploy.errors import CheckpointError, UsageError
from glam_deploy.networks import NetworkSpec
from glam_deploy.regular import open_regular
from glam_export.checkpoint.state_dict import StateDict, find_state_dict
from glam_export.checkpoint.weights_file import read_weights_file
from glam_export.networks import NetworkFamily, family_of
from glam_export.reference.base import ReferenceNetwork

COUNTER = "num_batches_tracked"
"""A training counter of every batch norm; optional, because inference does not read it."""
VARIANCE = "running_var"
LISTED = 20
"""Most keys that a message lists; it counts the others."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A network filled from a file."""

    network: ReferenceNetwork
    """In eval mode, float32, on the CPU."""
    path: Path
    sha256: str
    """Of the file's bytes, hexadecimal."""
    parameters: int
    """Number of learned values, without batch-norm statistics."""
    ignored: tuple[str, ...]
    """Keys in the file that were left out because they match `ignore`."""
    key: str
    """Path of the state dict in the file, as for `--key`; "" at the top level."""
    notes: tuple[str, ...]
    """How the state dict differs from the file: wrapper and prefix, values left out, tensors rounded."""


def load_checkpoint(
    path: Path, *, key: str | None = None, ignore: Sequence[str] = (), network: str | None = None
) -> Checkpoint:
    """Read `.pt`, `.pth`, `.ckpt`, `.p` or `.safetensors`, plain or wrapped, float8 to float64, into a network.

    `key`: which of several networks in the file, for instance "ema" or "state_dict.teacher". `ignore`: shell patterns
    of keys to leave out, for checkpoints that also hold tensors of other models. `network`: name of the only family to
    look for; None means any.
    Raises UsageError if the file cannot be opened; CheckpointError if it is damaged, of another kind, holds types that
    could run code, or if keys, shapes or values are not those of the network. The message names them.
    """
    content = read_weights_file(path)
    digest = _sha256(path)
    ignored: set[str] = set()
    found = find_state_dict(_without(content, ignore, ignored), path, key, network)
    _check_storage(found.tensors, path)
    spec = _spec_of(found, path)
    with torch.device("meta"):
        expected = found.family.reference.like(spec, found.tensors).state_dict()
    _check_keys(found.tensors, expected, found.family, path)
    filled = _fill(found.tensors, spec)
    return Checkpoint(
        network=filled,
        path=path,
        sha256=digest,
        parameters=sum(p.numel() for p in filled.parameters()),
        ignored=tuple(sorted(ignored)),
        key=found.name,
        notes=tuple(_notes(found, filled)),
    )


def _without(content: object, patterns: Sequence[str], ignored: set[str]) -> object:
    """`content` without the tensors whose keys match a pattern; adds their keys to `ignored`."""
    if not isinstance(content, Mapping) or not patterns:
        return content
    fits = {
        key
        for key, value in content.items()
        if isinstance(value, Tensor) and any(fnmatchcase(str(key), pattern) for pattern in patterns)
    }
    ignored.update(map(str, fits))
    return {key: _without(value, patterns, ignored) for key, value in content.items() if key not in fits}


def _notes(found: StateDict, network: ReferenceNetwork) -> Iterator[str]:
    if found.name:
        yield f"state dict taken from {found.name}"
    if found.prefix:
        yield f"prefix {found.prefix} removed from its keys"
    if found.left_out:
        yield f"left out, because they are not weights: {_listed(frozenset(found.left_out))}"
    if found.family.assumption:
        yield found.family.assumption
    own = network.state_dict()
    rounded = [k for k, v in found.tensors.items() if v.dtype == torch.float64 and not torch.equal(own[k].double(), v)]
    if rounded:
        yield f"{len(rounded)} tensors rounded from float64 to float32"


def load_weights(content: bytes, spec: NetworkSpec) -> ReferenceNetwork:
    """The network from the bytes of a bundle's safetensors file, whose hash was checked.

    Raises CheckpointError if they are not a safetensors file, or if keys or shapes are not those of the network.
    """
    try:
        return _fill(load(content), spec)
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"the bundle's weights are not those of {spec.title} with {spec.aggregation} aggregation "
            f"({str(error).splitlines()[0]}). Export the checkpoint again."
        ) from error


def save_weights(network: ReferenceNetwork, path: Path) -> None:
    """Write a network's float32 tensors as safetensors, without training counters. Raises OSError."""
    tensors = {k: v.contiguous() for k, v in network.state_dict().items() if not k.endswith(COUNTER)}
    path.write_bytes(save(tensors))  # safetensors.save_file raises another error than OSError for a full disk


def _fill(tensors: Mapping[str, Tensor], spec: NetworkSpec) -> ReferenceNetwork:
    with torch.device("meta"):  # without it, the random initial weights take most of the time
        network = family_of(spec).reference.like(spec, tensors)
    network.to_empty(device="cpu")
    counters = {k: torch.zeros_like(v) for k, v in network.state_dict().items() if k.endswith(COUNTER)}
    network.load_state_dict({**tensors, **counters})
    return network.eval().requires_grad_(False)


def _sha256(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Check the path given to --weights.") from error


def _check_storage(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises CheckpointError for tensors that are not dense numbers."""
    faults = {
        "without values (device meta)": {k for k, v in tensors.items() if v.is_meta},
        "quantized": {k for k, v in tensors.items() if v.is_quantized},
        "sparse": {k for k, v in tensors.items() if v.layout != torch.strided},
    }
    for what, keys in faults.items():
        if keys:
            raise CheckpointError(
                f"{path}: {len(keys)} tensors are {what}: {_listed(keys)}. Expected dense floating-point tensors: save "
                f"the state dict of the network as it was trained."
            )


def _spec_of(found: StateDict, path: Path) -> NetworkSpec:
    try:
        return found.family.spec_of(found.tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _check_keys(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], family: NetworkFamily, path: Path
) -> None:
    required = {k for k in expected if not k.endswith(COUNTER)}
    missing = required - tensors.keys()
    unexpected = tensors.keys() - expected.keys()
    wrong = {
        f"{k} {list(tensors[k].shape)}, expected {list(expected[k].shape)}"
        for k in required & tensors.keys()
        if tensors[k].shape != expected[k].shape
    }
    not_float = {k for k in required & tensors.keys() if not tensors[k].is_floating_point()}
    floats = {k: tensors[k] for k in required & tensors.keys() - not_float}
    not_finite = {k for k, tensor in floats.items() if not torch.isfinite(tensor.double()).all()}
    too_large = {k for k in floats.keys() - not_finite if not torch.isfinite(floats[k].float()).all()}
    negative = {k for k, tensor in floats.items() if k.endswith(VARIANCE) and (tensor < 0).any()}
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": wrong}
    faults |= {"not floating point": not_float, "with NaN or infinite values": not_finite}
    faults |= {"with values too large for float32": too_large, "variances below 0": negative}
    lines = [f"  {len(keys)} {what}: {_listed(keys)}" for what, keys in faults.items() if keys]
    if lines:
        remedy = ["Unexpected keys can be left out by name with --ignore-key; nothing else can."] if unexpected else []
        raise CheckpointError(
            "\n".join([f"{path}: these are not the weights of a {family.name} network:", *lines, *remedy])
        )


def _listed(keys: set[str] | frozenset[str]) -> str:
    names = sorted(keys)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
