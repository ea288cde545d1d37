"""What the code asks of the bindings, read from the code itself."""

import ast
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path

from glam_bench.gpu import contract
from glam_bench.measurements import library
from glam_deploy.gpu.engines import tensorrt

OURS = {
    *("append", "clear", "copy", "data", "items", "keys", "pop", "read", "start", "values", "write"),
    *("itemsize", "max", "nbytes", "size"),
    *("FLOAT16",),  # of ONNX
    *(
        "allocate",
        "builder",
        "engine",
        "enqueue",
        "errors",
        "kind",
        "library",
        "metadata",
        "precision",
        "stream",
        "weights",
    ),
}
"""Names that classes of the bindings have too, and that the code asks only of objects of its own."""

PARTS = (contract.COMMON, contract.RTX)


@dataclass(kw_only=True)
class Asked:
    """Names in source code."""

    top: set[str] = field(default_factory=set)
    """Asked of the module."""
    pairs: set[tuple[str, str]] = field(default_factory=set)
    """Asked of a name of the module: an enum's member, a class's attribute."""
    others: set[str] = field(default_factory=set)
    """Asked of anything else, which may be an object of the module's."""


def sources() -> list[Path]:
    """Every file that has the module in its hands."""
    folder = Path(tensorrt.__file__).parent
    return [path for path in (*folder.glob("*.py"), Path(library.__file__)) if _handles(ast.parse(path.read_text()))]


def asked_in(text: str) -> Asked:
    """Of `trt`, or `anything.trt`; also by getattr and hasattr with the name written out."""
    found = Asked()
    for owner, name in _attributes(ast.parse(text)):
        if _is_module(owner):
            found.top.add(name)
        elif isinstance(owner, ast.Attribute) and _is_module(owner.value):
            found.pairs.add((owner.attr, name))
        else:
            found.others.add(name)
    return found


def unlisted(asked: Asked, offered: Set[str]) -> list[str]:
    """Names that are asked for and that the contract does not list. `offered`: of all classes of a module."""
    pairs, members = _pairs(), set(_members())
    tops = {name for part in PARTS for name in (*part.methods, *part.properties)} | {name for name, _ in pairs}
    known = members | OURS | {member for _, member in pairs}
    return sorted(
        [
            *(asked.top - tops - {"nptype", "__version__"}),
            *(f"{name}.{member}" for name, member in asked.pairs - pairs if member in offered - members),
            *((asked.others & offered) - known),
        ]
    )


def _pairs() -> set[tuple[str, str]]:
    """Every enum's members."""
    enums = (*(part.enums for part in PARTS), contract.LOOKED_FOR)
    return {(name, member) for names in enums for name, members in names.items() for member in members}


def _members() -> Iterator[str]:
    for part in PARTS:
        yield from (line.partition("(")[0] for lines in part.methods.values() for line in lines)
        yield from (line.split(":")[0].split(" = ")[0] for lines in part.properties.values() for line in lines)
    yield from contract.SEVERITIES


def _attributes(tree: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.value, node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"getattr", "hasattr"}:
            owner, name = node.args[0], node.args[1]
            if isinstance(name, ast.Constant):
                yield owner, str(name.value)


def _handles(tree: ast.AST) -> bool:
    return any(_is_module(owner) for owner, _ in _attributes(tree))


def _is_module(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id == "trt") or (isinstance(node, ast.Attribute) and node.attr == "trt")


def names_of(classes: Iterable[Iterable[str]]) -> set[str]:
    """Every public name of some classes."""
    return {name for names in classes for name in names}
