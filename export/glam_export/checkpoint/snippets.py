"""Programs and shell commands in messages, for pasting: they save a state dict from a file that is refused.

File names are quoted, so that a pasted program reads that file and does nothing else whatever its name is.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from glam_deploy.installation import quoted
from glam_export.networks import FAMILIES


def commands(path: Path) -> Mapping[str, str]:
    """Kind of archive -> the shell command that saves the weights of `path` into the current folder."""
    name, out = repr(str(path)), repr("weights.pt" if path.name != "weights.pt" else "weights.state_dict.pt")
    return {
        "torchscript": _python(
            f"import torch; torch.save(torch.jit.load({name}, map_location='cpu').state_dict(), {out})"
        ),
        "exported": _python(f"import torch; torch.save(dict(torch.export.load({name}).state_dict), {out})"),
        "arrays": _python(
            "import numpy, torch; torch.save({k: torch.from_numpy(v.astype(v.dtype.newbyteorder('='), 'C')) "
            f"for k, v in numpy.load({name}).items() if v.dtype.kind in 'fiu'}} or exit('no arrays of numbers in it'), "
            f"{out})"
        ),
    }


def _python(line: str) -> str:
    """A shell command that runs a line of Python; in double quotes, unless it has characters that are special there."""
    return shlex.join(["python", "-c", line]) if set(line) & set('"$`\\!') else f'python -c "{line}"'


def program(path: Path, *, plain_pickle: bool = False, own_types: Sequence[str] = ()) -> str:
    """A program that saves the state dict of a trusted checkpoint, pickled module or pickle of arrays.

    It can be saved as a file, or pasted into an interpreter, in which a blank line ends a block. `own_types`: classes
    that the file expects in the program that reads it; the program defines empty ones. If several mappings in the file
    could be the network, all are saved, each under its path, for --key.
    """
    name, out = str(path), f"{path.stem}.state_dict.pt"
    load = (
        f"pickle.loads(pathlib.Path({name!r}).read_bytes())"
        if plain_pickle
        else f"torch.load({name!r}, 'cpu', weights_only=False)"
    )
    outer = dict.fromkeys(name.partition(".")[0] for name in own_types)
    classes = [_STAND_IN, "", *(f"class {name}(StandIn): pass\n" for name in outer)] if outer else []
    return "\n".join(
        (
            *classes,
            _SEARCH,
            "",
            "def is_network(key):",
            f"    return {' or '.join(f'{root!r} in key' for family in FAMILIES for root in family.roots)}",
            "",
            "found = {}",
            f"for place, state in states({load}, ''):",
            "    found.update({place + '_' * (place in found): state} if state else {})",
            "",
            "if not found:",
            f"    raise SystemExit({f'{name}: no mapping of names to tensors in it; nothing was written'!r})",
            "",
            "networks = {place: state for place, state in found.items() if any(map(is_network, state))} or found",
            "one = len(networks) == 1",
            f"torch.save(next(iter(networks.values())) if one else networks, {out!r})",
            "print('one state dict' if one else 'several state dicts, name one with --key:', *networks)",
            f"# then: glam-deploy export --weights {quoted(Path(out))}",
        )
    )


_STAND_IN = """\
# in place of the classes of the program that wrote the file, whose code is not needed
class Inside(type):  # classes inside a class
    def __getattr__(self, name):
        return StandIn

class StandIn(metaclass=Inside):
    def __init__(self, *given, **named):
        pass
    def __setstate__(self, state):
        if '_parameters' in state:
            self.__class__ = torch.nn.Module
            return self.__setstate__(state)
        for values in state if isinstance(state, tuple) else (state,):
            self.__dict__.update(values or {})"""

_SEARCH = """\
import collections.abc, pathlib, pickle, numpy, torch
seen = {}  # keeps the values, so that no two have the same id
def tensor(value):
    if isinstance(value, numpy.ndarray) and value.dtype.kind in 'fiu':
        value = torch.from_numpy(value.astype(value.dtype.newbyteorder('='), 'C'))
    return value if isinstance(value, torch.Tensor) else None

def parts(value):
    if isinstance(value, (type, torch.Tensor)):
        return {}
    if callable(getattr(value, 'state_dict', None)):
        return value.state_dict()
    if isinstance(value, collections.abc.Mapping):
        return value
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    return {} if callable(value) else getattr(value, '__dict__', {})

def states(value, place):  # every mapping of names to tensors in the file, with its path
    if id(value) in seen:
        return
    seen[id(value)] = value
    inside = parts(value)
    made = {key: tensor(each) for key, each in inside.items() if isinstance(key, str)}
    yield place or 'top', {key: each for key, each in made.items() if each is not None}
    for key, each in inside.items():
        yield from states(each, f'{place}.{key}' if place else str(key))"""
