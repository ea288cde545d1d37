"""Content of a checkpoint file -> the state dict of one network, found by its keys.

Training programs wrap a state dict in mappings (`state_dict`, `model`, `ema`, ...) and add prefixes to its keys
(`module.` by DataParallel, `_orig_mod.` by torch.compile, `model.` by Lightning). There is no list of such names: every
mapping is searched for keys of the networks (`networks.FAMILIES`), and the text before such a key is the prefix.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from glam_deploy.errors import CheckpointError
from glam_deploy.installation import quoted
from glam_export.checkpoint.snippets import program
from glam_export.checkpoint.weights_file import Unread
from glam_export.networks import FAMILIES, NetworkFamily

AVERAGED = "n_averaged"
"""A counter that torch.optim.swa_utils.AveragedModel adds to the network; inference does not read it."""
NAMES = "{} or {}".format(", ".join(family.name for family in FAMILIES[:-1]), FAMILIES[-1].name)
"""The networks that an export takes, for messages."""
ROOTS = " or ".join(f"{' and '.join((*family.roots, *family.needs))} ({family.name})" for family in FAMILIES)
"""Beginnings of their keys, for messages."""
DEPTH = 6
"""Depth of nested mappings that are searched."""
LISTED = 12
"""Most names that a message lists; it counts the others."""

OTHERS: Mapping[str, str] = {
    "view_resnet.first_conv.weight": "an NYU breast cancer classifier (Wu et al. 2019)",
    "four_view_resnet.cc.first_conv.weight": "an NYU breast cancer classifier (Wu et al. 2019)",
    "layer1.0.conv1.weight": (
        "a ResNet without the classifier fc.weight that CAM has (rename a layer of two outputs, such as fc.1, to fc)"
    ),
    "features.0.weight": "a VGG or DenseNet as torchvision has it",
    "patch_embed.proj.weight": "a vision transformer",
    "roi_heads.box_head.fc6.weight": "a Faster R-CNN detector",
}
"""A key that every state dict of another network has, perhaps with a prefix -> name of that network."""


@dataclass(frozen=True, kw_only=True)
class StateDict:
    """The tensors of one network by the published keys."""

    family: NetworkFamily
    name: str
    """Path in the file, as for `--key`: keys of mappings and the prefix, joined with dots; "" at the top level."""
    prefix: str
    """Prefix that was removed from the keys, with its last dot; "" if there was none."""
    tensors: Mapping[str, Tensor]
    left_out: tuple[str, ...]
    """Keys of values in the same mapping that are not tensors, of training counters, and of unused tensors."""


def find_state_dict(content: object, path: Path, key: str | None = None, network: str | None = None) -> StateDict:
    """The only state dict of a network in `content`, or the one that `key` names.

    `network`: name of the only family to look for; None means any.
    Raises CheckpointError if there is none (the message names the other network whose keys were found), if there are
    several and no `key`, or if `key` names none; the message lists the possible keys.
    """
    everything = list(_networks(content))
    found = [each for each in everything if network in (None, each.family.name)]
    if everything and not found:
        first = everything[0]
        root = next(key for key in first.tensors if key.startswith(first.family.roots))
        raise CheckpointError(
            f"{path}: holds a {_kinds(everything)} network, by its key {first.prefix}{root}; --network asks for "
            f"{network}. Leave --network out, or give a checkpoint of {network}."
        )
    if key is not None:
        return _named(found, key, content, path)
    if len(found) == 1:
        return found[0]
    if not found:
        raise CheckpointError(f"{path}: {_other_content(content, path)}")
    names = _listed([each.name or "(top level)" for each in found])
    kinds = {each.family.name for each in found}
    if len(kinds) == len(found):
        option = f"--network, for instance --network {found[0].family.name.lower()}"
    else:
        option = f"--key, for instance --key {quoted(next(each.name for each in found if each.name))}"
    raise CheckpointError(
        f"{path}: holds {len(found)} networks ({_kinds(found)}): {names}. Name the one to export with {option}."
    )


def _kinds(found: list["StateDict"]) -> str:
    return ", ".join(dict.fromkeys(each.family.name for each in found))


def mappings(content: object, place: str = "", depth: int = DEPTH) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Every mapping in `content` that has text keys, with its path; `content` itself has the path ""."""
    if not isinstance(content, Mapping) or not depth:
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    if named:
        yield place, named
    for key, value in named.items():
        yield from mappings(value, f"{place}.{key}" if place else key, depth - 1)


def root_of(key: str, family: NetworkFamily) -> str | None:
    """The prefix before a published key of the family, "" for none; None if `key` is not a key of the family."""
    roots = "|".join(map(re.escape, family.roots))
    match = re.match(rf"(?:.*?\.)??(?={roots})", key)
    return match.group() if match else None


def _networks(content: object) -> Iterator[StateDict]:
    """State dicts with keys of a network: one for each mapping, family and prefix."""
    for place, mapping in mappings(content):
        tensors = {key: value for key, value in mapping.items() if isinstance(value, Tensor)}
        others = tuple(sorted(key for key in mapping if key not in tensors and not _holds_tensors(mapping[key])))
        for family in FAMILIES:
            roots = dict.fromkeys(prefix for key in tensors if (prefix := root_of(key, family)) is not None)
            prefixes = [prefix for prefix in roots if all(f"{prefix}{key}" in tensors for key in family.needs)]
            for prefix in prefixes:
                own = _own(tensors, prefix, [p for p in prefixes if p != prefix])
                counters = [key for key in (AVERAGED,) if prefix and key in own]
                counters += [key for key in family.no_weights if key in own]
                yield StateDict(
                    family=family,
                    name=".".join(filter(None, (place, prefix.removesuffix(".") if len(prefixes) > 1 else ""))),
                    prefix=prefix,
                    tensors={key: value for key, value in own.items() if key not in counters},
                    left_out=(*others, *counters),
                )


def _own(tensors: Mapping[str, Tensor], prefix: str, others: list[str]) -> dict[str, Tensor]:
    """The tensors with `prefix`, which is removed, without those of `others`, the other prefixes in the same mapping.

    If there are no others, tensors without the prefix are kept too, so that unexpected keys are reported.
    """
    if not others:
        return {key.removeprefix(prefix): value for key, value in tensors.items()}
    if prefix:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    return {key: value for key, value in tensors.items() if not key.startswith(tuple(others))}


def _holds_tensors(value: object) -> bool:
    return any(any(isinstance(v, Tensor) for v in mapping.values()) for _, mapping in mappings(value))


def _named(found: list[StateDict], key: str, content: object, path: Path) -> StateDict:
    chosen = [each for each in found if each.name == key] or [
        each for each in found if each.name.startswith(f"{key}.") or each.prefix.removesuffix(".") == key
    ]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        names = _listed([each.name for each in chosen])
        raise CheckpointError(
            f"{path}: --key {key} fits {len(chosen)} networks ({_kinds(chosen)}): {names}. Name one of them."
        )
    what = f"holds no {NAMES} network" if key in (place for place, _ in mappings(content)) else "is not in the file"
    names = _listed([each.name or "(top level, no --key needed)" for each in found])
    raise CheckpointError(f"{path}: --key {key} {what}. Networks in it: {names or 'none'}. {_wrappers(content)}")


def _other_content(content: object, path: Path) -> str:
    """Message for content without a state dict of a known network: what it is instead, and what to do."""
    for place, mapping in mappings(content):
        unread = [key for key, value in mapping.items() if isinstance(value, Unread)]
        if arrays := [key for key in unread if any(root_of(key, family) is not None for family in FAMILIES)]:
            return (
                f"the weights of a {NAMES} network are there as numpy arrays, not as tensors (for instance "
                f"{arrays[0]}). torch.from_numpy makes tensors of them. If you trust where the file came from:\n"
                f"{program(path)}"
            )
        for key in (key for key, value in mapping.items() if isinstance(value, Tensor)):
            if name := next((name for own, name in OTHERS.items() if key == own or key.endswith(f".{own}")), None):
                where = f" (under {place})" if place else ""
                return (
                    f"these are the weights of another network{where}: {name}, by its key {key}. Expected a {NAMES} "
                    f"network, whose keys begin with {ROOTS}."
                )
    if isinstance(content, list | tuple):
        return (
            f"no state dict found of a {NAMES} network, but a {type(content).__name__} of {len(content)}. Expected a "
            f"mapping of names to tensors. If you trust where the file came from, save the state dict in it:\n"
            f"{program(path)}"
        )
    return (
        f"no state dict found of a {NAMES} network: expected a mapping of names to tensors with keys that begin with "
        f"{ROOTS}. {_wrappers(content)} Save `model.state_dict()` and export that file."
    )


def _wrappers(content: object) -> str:
    if not isinstance(content, Mapping):
        return f"The file holds a {type(content).__name__}."
    held = [
        f"{place or '(top level)'} ({sum(isinstance(value, Tensor) for value in mapping.values())} tensors)"
        for place, mapping in mappings(content)
        if any(isinstance(value, Tensor) for value in mapping.values())
    ]
    keys = _listed([str(key) for key in content])
    return f"Tensors are under: {_listed(held)}." if held else f"No tensors in it; its keys: {keys or 'none'}."


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
