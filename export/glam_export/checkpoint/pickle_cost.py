"""Cost of hashing the keys and set members of a pickle, computed from its opcodes before PyTorch's unpickler runs.

Python hashes the keys of dicts and the members of sets in C, where no signal stops it. A tuple that holds another one
twice takes twice as long; numbers with equal hashes take the square of their count. State dicts, optimizers (small
numbers), Lightning and the hyper-parameters of configuration libraries stay far below `LIMIT`.

Source: `torch._weights_only_unpickler.Unpickler.load` for the opcodes that are read, and for what it hashes.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glam_deploy.errors import CheckpointError
from glam_export.checkpoint.pickles import ZIP_DAMAGE, Opcode, is_plain_pickle, opcodes_of
from glam_export.checkpoint.snippets import program

SMALL = 1 << 32
"""Integers below it, in magnitude, cost 1."""
OTHER = 20
"""Cost of a float, a larger integer, a value that a function makes, and of a tuple beside what it holds. Text, bytes,
bool and None cost nothing: their hashes are keyed or few. Tensors and types are hashed by their place in memory."""
LIMIT = 100_000
"""Largest total cost of a file: 5,000 tuples or large integers, at most a second."""
LARGEST = 100_000_000
"""Largest cost of one tuple, hashed or not; to hash it takes a tenth of a second."""
_STORAGE = OTHER + 1
"""Cost of the tuple by which a pickle refers to a storage: strings and a number of elements."""
_STORAGE_KEYS = 4
"""Index of the pickle with the names of storages, which are looked up, in files from before PyTorch 1.6."""
_CALLING = {"torch.Size", "torch._tensor._rebuild_from_type_v2"}
"""Functions of PyTorch that return a tuple, or call another function."""
_ABOVE = {"TUPLE", "APPENDS", "SETITEMS"}
"""Opcodes that pop all values above the mark."""
_TAKEN = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2, "BINPERSID": 1, "BUILD": 1, "REDUCE": 2,
          "NEWOBJ": 2}  # fmt: skip
"""Opcode -> number of values that it pops."""
_CONSTANT = {"NONE", "NEWTRUE", "NEWFALSE", "EMPTY_TUPLE", "EMPTY_DICT", "EMPTY_SET", "BINUNICODE", "SHORT_BINSTRING"}
_NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}


class _TooCostly(Exception):
    """The cost is more than any checkpoint needs."""


@dataclass(eq=False)
class _List:
    """Cost of a list, and whether it is in a list or tuple whose cost was computed, so that it may no longer grow."""

    cost: int = 0
    held: bool = False


_Value = int | str | _List
"""A value on the unpickler's stack: a cost, the name of a type or function, or a list."""


def check_hashing(path: Path) -> None:
    """Raises CheckpointError if the keys and set members of a checkpoint cost more to hash than `LIMIT`.

    It ends silently at damage, where PyTorch's unpickler ends too. Raises OSError.
    """
    charge = _Charge()
    try:
        for place, opcodes in enumerate(opcodes_of(path)):
            if (last := _Machine(charge=charge).run(opcodes)) is None:
                return
            if place == _STORAGE_KEYS:
                charge.add(_cost(last))
    except _TooCostly as error:
        raise CheckpointError(
            f"{path}: not a readable checkpoint: {error}. To look them up could keep this machine busy for hours. "
            f"Expected keys that are text or small numbers, as in state dicts and optimizers. If you trust where the "
            f"file came from, save the state dict alone:\n{program(path, plain_pickle=is_plain_pickle(path))}"
        ) from None


@dataclass
class _Charge:
    total: int = 0

    def add(self, cost: int) -> None:
        self.total += cost
        if self.total > LIMIT:
            raise _TooCostly(
                f"its dictionaries and sets have more keys that are no text than {LIMIT} small integers or "
                f"{LIMIT // OTHER} tuples and other numbers"
            )


def _cost(value: _Value) -> int:
    return value if isinstance(value, int) else value.cost if isinstance(value, _List) else 0


@dataclass
class _Machine:
    """Simulates the unpickler with costs in place of values; it ends where the unpickler ends with an error."""

    charge: _Charge
    stack: list[_Value] = field(default_factory=list)
    outer: list[list[_Value]] = field(default_factory=list)
    """Stacks below the marks."""
    memo: dict[int, _Value] = field(default_factory=dict)

    def run(self, opcodes: Iterable[Opcode]) -> _Value | None:
        """The value at STOP; None if the unpickler ends before."""
        with suppress(LookupError, *ZIP_DAMAGE):
            for name, argument, _ in opcodes:
                if name == "STOP":
                    return self.stack.pop()
                if not self._step(name, argument):
                    return None
        return None

    def _step(self, name: str, argument: Any) -> bool:
        """Apply one opcode; whether the unpickler knows it."""
        push = self.stack.append
        if name in _CONSTANT:
            push(0)
        elif name in _NUMBERS:
            push(1 if isinstance(argument, int) and abs(argument) < SMALL else OTHER)
        elif name == "GLOBAL":
            push(str(argument).replace(" ", "."))
        elif name == "EMPTY_LIST":
            push(_List())
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            push(self.memo[argument])
        elif name == "MARK":
            self.outer.append(self.stack)
            self.stack = []
        else:
            return self._combine(name)
        return True

    def _combine(self, name: str) -> bool:
        """As `_step`, for the opcodes that pop values."""
        if name in _ABOVE:
            items, self.stack = self.stack, self.outer.pop()
        elif name in _TAKEN:
            items = [self.stack.pop() for _ in range(_TAKEN[name])][::-1]
        else:
            return name == "PROTO"
        if name.startswith("TUPLE"):
            self.stack.append(self._tuple(items))
        elif name.startswith("APPEND"):
            self._append(self.stack[-1], items)
        elif name.startswith("SETITEM"):
            self.charge.add(sum(map(_cost, items[::2])))
        elif name == "BINPERSID":
            self.charge.add(max(0, _cost(items[0]) - _STORAGE))
            self.stack.append(0)
        elif name == "BUILD":
            self.charge.add(_cost(items[0]) if self.stack[-1] else 0)  # items, but of tensors and arrays
        else:
            self.stack.append(self._made(items[0], _cost(items[1])))
        return True

    @staticmethod
    def _append(grown: _Value, items: Sequence[_Value]) -> None:
        if not isinstance(grown, _List):
            raise LookupError("no list")
        if grown.held:
            raise _TooCostly("it has lists that grow after they were put into a tuple or another list")
        grown.cost += _held(items)

    @staticmethod
    def _tuple(items: Sequence[_Value]) -> int:
        cost = OTHER + _held(items)
        if cost > LARGEST:
            raise _TooCostly(f"it has tuples that hold each other, of more than {LARGEST // OTHER} parts")
        return cost

    def _made(self, function: _Value, arguments: int) -> int:
        """Cost of the value that a function or type returns; the call may hash everything in its arguments."""
        if isinstance(function, str) and function.startswith(("torch.", "numpy.")) and function not in _CALLING:
            return 0
        self.charge.add(max(0, arguments - OTHER))
        return max(OTHER, arguments)


def _held(items: Sequence[_Value]) -> int:
    """Cost of the items of a tuple or list; lists among them may no longer grow."""
    for item in items:
        if isinstance(item, _List):
            item.held = True
    return sum(map(_cost, items))
