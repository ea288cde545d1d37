"""What a module of bindings offers, JSON-ready: it can be read in one process and compared in another."""

import importlib
import inspect
import json
import os
import re
import sys
from dataclasses import asdict, dataclass
from typing import Any

from glam_bench.gpu import contract
from glam_deploy.gpu.engines.tensorrt.callbacks import logger, monitor
from glam_deploy.gpu.engines.tensorrt.flavours import FLAVOURS, Library

Arity = tuple[int, int]
"""Fewest and most arguments, without `self`."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A module of bindings, looked at from outside."""

    version: str
    differences: list[str]
    """From the contract."""
    classes: dict[str, dict[str, list[Arity]]]
    """Class -> public name -> what each overload takes; no overload for what is no method."""
    subclasses: list[str]
    """What went wrong with the classes that this package derives from the module's."""


def offer_of(trt: Any, *, rtx: bool) -> Offer:
    """Needs no library, no GPU, and calls nothing but constructors of classes made to be derived from."""
    classes = {name: kind for name, kind in vars(trt).items() if inspect.isclass(kind) and not name.startswith("_")}
    return Offer(
        version=str(trt.__version__),
        differences=contract.differences(trt, rtx=rtx),
        classes={name: _members(kind) for name, kind in classes.items()},
        subclasses=_subclasses(trt, rtx=rtx),
    )


def _members(kind: type) -> dict[str, list[Arity]]:
    return {name: arities(getattr(kind, name, None)) for name in dir(kind) if not name.startswith("_")}


def arities(method: object) -> list[Arity]:
    """Of each overload in pybind11's docstring."""
    if isinstance(method, property):
        return []
    return [_arity(signature) for signature in sorted(contract.signatures(getattr(method, "__doc__", None)))]


def _arity(signature: str) -> Arity:
    inside = signature[signature.index("(") + 1 : signature.rindex(") ->")]
    arguments = [part for part in re.split(r", (?=\w+: )", inside) if part]
    return sum(" = " not in argument for argument in arguments), len(arguments)


def _subclasses(trt: Any, *, rtx: bool) -> list[str]:
    """The logger tells the severities apart, and the progress monitor takes what the library calls it with."""
    from threading import Event

    library = Library(flavour=FLAVOURS["tensorrt-rtx" if rtx else "tensorrt"], trt=trt)
    log, steps = logger(library), list[str]()
    for severity in (trt.ILogger.ERROR, trt.ILogger.WARNING, trt.ILogger.VERBOSE):
        log.log(severity, str(severity))
    watcher = monitor(library, lambda phase, _: steps.append(phase), Event())
    watcher.phase_start("build", None, 2)
    goes_on = watcher.step_complete("build", 0)
    watcher.phase_finish("build")
    found = (len(log.errors), len(log.warnings), goes_on, set(steps))
    return [] if found == (1, 1, True, {"build"}) else [f"logger and monitor: {found}"]


if __name__ == "__main__":
    sys.path.insert(0, os.environ["GLAM_BINDINGS"])
    print(json.dumps(asdict(offer_of(importlib.import_module("tensorrt_bindings"), rtx=False))))
