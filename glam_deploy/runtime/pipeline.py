"""The one pipeline: image -> preprocess -> global -> patches -> local -> fusion -> result. Knows no vendor."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy import spec
from glam_deploy.engines.base import OpenedEngines
from glam_deploy.errors import UsageError
from glam_deploy.preprocess import from_standardized, place
from glam_deploy.records import VIEW_NAMES, Mammogram, NetworkInput, PlacedView, Source, View, parse_view
from glam_deploy.runtime.borrowed_slot import BorrowedSlot
from glam_deploy.runtime.chain import Chain
from glam_deploy.runtime.device_chain import DeviceChain
from glam_deploy.runtime.host_chain import HostChain
from glam_deploy.runtime.overlap import ahead
from glam_deploy.runtime.pending import Pending, Prepared
from glam_deploy.runtime.result import Result
from glam_deploy.runtime.stopwatch import Stopwatch

Image = Mammogram | PlacedView | NetworkInput | Prepared | NDArray[Any]

SLOTS = 2
"""One view is uploaded while another is computed."""


class Pipeline:
    """Finds lesions, one view or several at a time. Holds no state between calls; safe to call from several threads.

    Made by `glam_deploy.load`. On engines of the CPU all stages run on the host, one after another, and with streams
    several views beside each other. On engines of a GPU everything from the standardization to the fused map runs there
    as one sequence of work.
    """

    def __init__(
        self, opened: OpenedEngines, *, patches: int, provenance: Mapping[str, Any], slots: int | None = None
    ) -> None:
        if patches not in range(1, spec.MAX_PATCHES + 1):
            raise UsageError(f"patches = {patches}: expected a whole number from 1 to {spec.MAX_PATCHES}")
        self.patches = patches
        self.provenance = {**provenance, "engine": opened.provenance, "patches": patches}
        self._chain = _chain_of(opened, patches, slots)

    @property
    def in_flight(self) -> int:
        """How many views it takes to keep it busy: submit so many before the first result is asked for."""
        return self._chain.in_flight

    def __call__(self, image: Image, *, view: View | str | None = None, horizontal_flip: bool = False) -> Result:
        """Predictions, maps and patch places for one view.

        `image` is a Mammogram (see `glam_deploy.read`), or what `preprocess.place`, `preprocess.prepare` or
        `Pipeline.prepare` made of one; or a raw array [rows, columns], uint8, uint16 or float32 >= 0 with background 0,
        and its `view` ("L-CC", "R-CC", "L-MLO", "R-MLO"); or, with no view, a float32 [2944, 1920] array that is
        already cropped, mirrored and standardized.
        `horizontal_flip` says that a raw array is stored mirrored. Raises InputError for images that cannot be used,
        UsageError for wrong arguments, BackendRunError where an engine fails.
        """
        return self.submit(image, view=view, horizontal_flip=horizontal_flip).result()

    def submit(self, image: Image, *, view: View | str | None = None, horizontal_flip: bool = False) -> Pending:
        """Begin with one view, as in a call; its `result()` waits for the rest.

        On a GPU this returns when the view is placed and its upload is under way, on a CPU with streams when it is
        prepared, else when all is done. Pixels of a raw view must stay as they are for as long as the result is used.
        """
        return self._start([self.prepare(image, view=view, horizontal_flip=horizontal_flip)])

    def prepare(self, image: Image, *, view: View | str | None = None, horizontal_flip: bool = False) -> Prepared:
        """The host's part before the network, for `submit` or a call to go on from; made to be done in another thread.

        Arguments and errors are those of a call.
        """
        if isinstance(image, Prepared):
            _require_bare(view, horizontal_flip)
            return image
        clock = Stopwatch()
        with clock("preprocess"):
            ready = self._chain.prepare(_place(image, view=view, horizontal_flip=horizontal_flip))
        return Prepared(view=ready, times_ms=clock.times_ms)

    def map(self, images: Iterable[Image]) -> Iterator[Result]:
        """Results of many views, in their order; an array is a standardized one.

        The next view is taken from `images` and prepared in another thread while this one is computed, so that a
        generator which reads files costs no time of the network; on a GPU it is uploaded meanwhile, too. An error ends
        it: where the others are to go on, use `submit`.
        """
        with closing(ahead(self.prepare, images)) as prepared:
            yield from self._in_order(map(self.submit, prepared))

    def batch(self, images: Iterable[Image]) -> list[Result]:
        """Results of the views of an exam, in their order; an array is a standardized one.

        On a GPU four views of one kind (raw or standardized) run together; what is left over runs one by one. Any
        error is that of all.
        """
        batches = _batches(images, self._chain.largest_batch)
        return list(self._in_order(self._start([self.prepare(image) for image in batch]) for batch in batches))

    @contextmanager
    def slot(self, images: int = 1) -> Iterator[BorrowedSlot]:
        """The arrays on the GPU themselves, for one image or four, for as long as the block lasts.

        Raises UsageError where the engine runs on the CPU, and for another number of images.
        """
        if not isinstance(self._chain, DeviceChain):
            raise UsageError(f"engine {self.provenance['engine'].get('name')!r} runs on the CPU and has no GPU slots")
        with self._chain.lend(images) as (pool, slot):
            borrowed = BorrowedSlot(self._chain, pool, slot, self.provenance)
            try:
                yield borrowed
            finally:
                borrowed.close()

    def _start(self, prepared: Sequence[Prepared]) -> Pending:
        clock = Stopwatch()
        for one in prepared:
            clock.add(one.times_ms)
        return Pending(self._chain.start([one.view for one in prepared], clock), clock, self.provenance)

    def _in_order(self, started: Iterable[Pending]) -> Iterator[Result]:
        under_way: deque[Pending] = deque()
        for pending in started:
            under_way.append(pending)
            if len(under_way) == self._chain.in_flight:
                yield from under_way.popleft().results
        for pending in under_way:
            yield from pending.results


def _chain_of(opened: OpenedEngines, patches: int, slots: int | None) -> Chain:
    if opened.gpu:
        return DeviceChain(opened, patches, slots=SLOTS if slots is None else slots)
    if slots is not None:
        raise UsageError(f"slots = {slots}: engine {opened.provenance.get('name')!r} runs on the CPU; leave it out")
    return HostChain(opened.engines, patches, streams=opened.streams)


def _batches(images: Iterable[Image], size: int) -> Iterator[list[Image]]:
    """Neighbours of one kind, `size` together or each alone."""
    for _, group in groupby(images, key=_is_raw):
        same = list(group)
        whole = len(same) - len(same) % size
        yield from (same[n : n + size] for n in range(0, whole, size))
        yield from ([image] for image in same[whole:])


def _is_raw(image: Image) -> bool:
    return isinstance(image.view if isinstance(image, Prepared) else image, Mammogram | PlacedView)


def _place(image: Image, *, view: View | str | None = None, horizontal_flip: bool = False) -> PlacedView | NetworkInput:
    if isinstance(image, NetworkInput | PlacedView | Mammogram):
        _require_bare(view, horizontal_flip)
        return place(image) if isinstance(image, Mammogram) else image
    if not isinstance(image, np.ndarray):
        raise UsageError(f"image is a {type(image).__name__}; expected a Mammogram, a NetworkInput or a numpy array")
    if view is None and (horizontal_flip or not np.issubdtype(image.dtype, np.floating)):
        raise UsageError(
            f"an array of {image.dtype} is a raw image and needs its view: pass view=, one of {VIEW_NAMES}. Without a "
            f"view, the array is a standardized float [2944, 1920] that faces right, and takes no horizontal_flip."
        )
    if view is None:
        return from_standardized(image, source=Source(name="array", kind="array"))
    return place(Mammogram(pixels=image, view=parse_view(view), horizontal_flip=horizontal_flip))


def _require_bare(view: View | str | None, horizontal_flip: bool) -> None:
    if view is not None or horizontal_flip:
        raise UsageError("view and horizontal_flip go with raw arrays; this image already carries its own")
