"""What a checkpoint file holds -> the state dict of one GLAM network, found by its keys.

Training programs wrap a state dict: in mappings (`state_dict`, `model`, `ema`, ...) and behind prefixes of its keys
(`module.` of DataParallel, `_orig_mod.` of torch.compile, `model.` of Lightning). Neither is guessed from a list of
names: every mapping is searched for keys of the network, and what stands before them is the prefix.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from glam_deploy.errors import CheckpointError
from glam_deploy.installation import quoted
from glam_export.printed import program
from glam_export.weights_file import Unread

ROOT = re.compile(r"^(?:.*?\.)??(?=(?:global_network|detection_network)\.)")
"""What stands before the first part of a key of the network (`glam_export.reference.network`). Its attention and fusion
layers do not tell: GMIC's have the same names."""
AVERAGED = "n_averaged"
"""A counter that torch.optim.swa_utils.AveragedModel keeps beside the network; inference never reads it."""
DEPTH = 6
"""Mappings inside mappings that are searched."""
LISTED = 12
"""Names in a message before the rest are counted."""

OTHERS: Mapping[str, str] = {
    "ds_net.first_conv.weight": "GMIC (Shen et al. 2021)",
    "ds_net.conv1.weight": "GMIC with a ResNet-18 trunk",
    "view_resnet.first_conv.weight": "an NYU breast cancer classifier (Wu et al. 2019)",
    "four_view_resnet.cc.first_conv.weight": "an NYU breast cancer classifier (Wu et al. 2019)",
    "layer1.0.conv1.weight": "a ResNet as torchvision has it, such as CAM uses",
    "features.0.weight": "a VGG or DenseNet as torchvision has it",
    "patch_embed.proj.weight": "a vision transformer",
    "roi_heads.box_head.fc6.weight": "a Faster R-CNN detector",
}
"""A key that is in every state dict of another network -> its name; the key may have a prefix."""


@dataclass(frozen=True, kw_only=True)
class StateDict:
    """The tensors of one network, under the network's own keys."""

    name: str
    """Where it stands in the file, as `--key` names it: keys of mappings and the prefix, with dots; "" at the top."""
    prefix: str
    """What was taken off its keys, with its last dot; "" for nothing."""
    tensors: Mapping[str, Tensor]
    left_out: tuple[str, ...]
    """Values beside the tensors that are no tensors, and training counters, by name."""


def find_state_dict(content: object, path: Path, key: str | None = None) -> StateDict:
    """The one state dict of a GLAM network in `content`, or the one that `key` names.

    Raises CheckpointError where there is none (with the name of the network whose keys were found instead), where
    there are several and no `key`, and where `key` names none; each with the keys that could be named.
    """
    found = list(_networks(content))
    if key is not None:
        return _named(found, key, content, path)
    if len(found) == 1:
        return found[0]
    if not found:
        raise CheckpointError(f"{path}: {_instead(content, path)}")
    names = _listed([each.name or "(top level)" for each in found])
    raise CheckpointError(
        f"{path}: holds {len(found)} GLAM networks: {names}. Name the one to export with --key, for instance "
        f"--key {quoted(next(each.name for each in found if each.name))}."
    )


def mappings(content: object, place: str = "", depth: int = DEPTH) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Every mapping with names as keys in `content`, itself included, with its place."""
    if not isinstance(content, Mapping) or not depth:
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    if named:
        yield place, named
    for key, value in named.items():
        yield from mappings(value, f"{place}.{key}" if place else key, depth - 1)


def _networks(content: object) -> Iterator[StateDict]:
    """State dicts with keys of the network: one for each mapping and prefix."""
    for place, mapping in mappings(content):
        tensors = {key: value for key, value in mapping.items() if isinstance(value, Tensor)}
        prefixes = dict.fromkeys(match.group() for key in tensors if (match := ROOT.match(key)))
        others = tuple(sorted(key for key in mapping if key not in tensors and not _holds_tensors(mapping[key])))
        for prefix in prefixes:
            own = _own(tensors, prefix, [p for p in prefixes if p != prefix])
            counters = (AVERAGED,) if prefix and AVERAGED in own else ()
            yield StateDict(
                name=".".join(filter(None, (place, prefix.removesuffix(".") if len(prefixes) > 1 else ""))),
                prefix=prefix,
                tensors={key: value for key, value in own.items() if key not in counters},
                left_out=(*others, *counters),
            )


def _own(tensors: Mapping[str, Tensor], prefix: str, others: list[str]) -> dict[str, Tensor]:
    """The tensors of the network behind `prefix`, less those of the `others` in the same mapping.

    Alone, it keeps what has no prefix too, so that nothing is left out unasked.
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
        raise CheckpointError(f"{path}: --key {key} fits {len(chosen)} GLAM networks: {names}. Name one of them.")
    what = "holds no GLAM network" if key in (place for place, _ in mappings(content)) else "is not in the file"
    here = _listed([each.name or "(top level, no --key needed)" for each in found])
    raise CheckpointError(f"{path}: --key {key} {what}. GLAM networks in it: {here or 'none'}. {_wrappers(content)}")


def _instead(content: object, path: Path) -> str:
    """What was found where no GLAM network is."""
    for place, mapping in mappings(content):
        if arrays := [key for key, value in mapping.items() if ROOT.match(key) and isinstance(value, Unread)]:
            return (
                f"the weights of a GLAM network are there as numpy arrays, not as tensors (for instance {arrays[0]}). "
                f"torch.from_numpy makes tensors of them. If you trust where the file came from:\n{program(path)}"
            )
        for key in (key for key, value in mapping.items() if isinstance(value, Tensor)):
            if name := next((name for own, name in OTHERS.items() if key == own or key.endswith(f".{own}")), None):
                where = f" (under {place})" if place else ""
                return (
                    f"these are the weights of another network{where}: {name}, by its key {key}. Expected a GLAM "
                    f"network, whose keys begin with global_network. and detection_network."
                )
    if isinstance(content, list | tuple):
        return (
            f"no state dict found of a GLAM network, but a {type(content).__name__} of {len(content)}. Expected a "
            f"mapping of names to tensors. If you trust where the file came from, save the state dict in it:\n"
            f"{program(path)}"
        )
    return (
        f"no state dict found of a GLAM network: expected a mapping of names to tensors with keys that begin with "
        f"global_network. and detection_network. {_wrappers(content)} Save `model.state_dict()` and export that file."
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
