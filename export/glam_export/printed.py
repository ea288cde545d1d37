"""Programs and commands that messages print, to be pasted: they make a state dict of a file that holds none as it is.

Whatever the file is called, what is pasted reads that file and does nothing else.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from glam_deploy.installation import quoted


def commands(path: Path) -> Mapping[str, str]:
    """Kind of archive -> the shell command that saves the weights in `path` in the current folder."""
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
    """Double quotes are easier to read around a program; the shell takes what is in them as it is but for these."""
    return shlex.join(["python", "-c", line]) if set(line) & set('"$`\\!') else f'python -c "{line}"'


def program(path: Path, *, plain_pickle: bool = False, own_types: Sequence[str] = ()) -> str:
    """A program that makes a state dict of a checkpoint, a whole module, or a pickle of arrays that one trusts.

    `own_types`: names of classes that the file expects in the program that reads it, which makes empty ones of these
    names. Where several mappings in the file could be the network, all are saved, each under its place, for --key.
    """
    name, out = str(path), f"{path.stem}.state_dict.pt"
    load = (
        f"pickle.loads(pathlib.Path({name!r}).read_bytes())"
        if plain_pickle
        else f"torch.load({name!r}, 'cpu', weights_only=False)"
    )
    outer = dict.fromkeys(name.partition(".")[0] for name in own_types)
    classes = [_STAND_IN, *(f"  class {name}(StandIn): pass" for name in outer)] if outer else []
    return "\n".join(
        (
            *classes,
            _SEARCH,
            "  found = {}",
            f"  for place, state in states({load}, ''):",
            "      found.update({place + '_' * (place in found): state} if state else {})",
            "  if not found:",
            f"      raise SystemExit({f'{name}: no mapping of names to tensors in it; nothing was written'!r})",
            "  networks = {place: state for place, state in found.items() if any(map(is_network, state))} or found",
            "  one = len(networks) == 1",
            f"  torch.save(next(iter(networks.values())) if one else networks, {out!r})",
            "  print('one state dict' if one else 'several state dicts, name one with --key:', *networks)",
            f"  # then: glam-deploy export --weights {quoted(Path(out))}",
        )
    )


_STAND_IN = """\
  # in place of the classes of the program that wrote the file: none of their code is needed
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
  seen = {}  # also keeps them, so that no two have one id
  def tensor(value):
      if isinstance(value, numpy.ndarray) and value.dtype.kind in 'fiu':
          value = torch.from_numpy(value.astype(value.dtype.newbyteorder('='), 'C'))
      return value if isinstance(value, torch.Tensor) else None
  def is_network(key):
      return 'global_network.' in key or 'detection_network.' in key
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
  def states(value, place):  # every mapping of names to tensors in the file, with its place
      if id(value) in seen:
          return
      seen[id(value)] = value
      inside = parts(value)
      made = {key: tensor(each) for key, each in inside.items() if isinstance(key, str)}
      yield place or 'top', {key: each for key, each in made.items() if each is not None}
      for key, each in inside.items():
          yield from states(each, f'{place}.{key}' if place else str(key))"""
