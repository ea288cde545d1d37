"""Errors whose frames hold an image, and whether anything still holds it without a garbage collection."""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from glam_deploy.errors import InputError


@contextmanager
def no_collection() -> Iterator[None]:
    """Context without automatic garbage collections."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def is_released(use: Callable[[np.ndarray], object], image: np.ndarray) -> bool:
    """Whether a copy of `image` is free as soon as `use` has returned; its result is kept until then."""
    own = image.copy()
    alive = weakref.ref(own)
    with no_collection():
        kept = use(own)
        del own
        released = alive() is None
    del kept
    return released


def refuse(image: np.ndarray) -> None:
    """Raise an InputError that its own frame holds, as that of `Future.result` does, with a cause of the same kind."""
    try:
        fail(image)
    except ValueError as error:
        refused = InputError("refused")
        refused.__cause__ = error
        raise refused  # noqa: B904 its frame must hold it


def fail(image: np.ndarray) -> None:
    """Raise a ValueError that its own frame holds."""
    fault = ValueError(f"a fault with {image.size} pixels")
    raise fault
