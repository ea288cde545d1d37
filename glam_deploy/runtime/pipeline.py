"""The pipeline, the same for all engines: image -> preprocess -> global -> patches -> local -> fusion -> result."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from glam_deploy import reading
from glam_deploy.engines.base import Chain, Engine, OpenedEngines, Stopwatch, require_whole_number
from glam_deploy.errors import GlamError, UsageError, without_frames
from glam_deploy.gpu.chain import DeviceChain
from glam_deploy.gpu.engines.base import GpuEngines
from glam_deploy.json_records import to_json
from glam_deploy.networks import Stage
from glam_deploy.preprocess import from_standardized
from glam_deploy.records import (
    VIEW_NAMES,
    ChainInput,
    Facts,
    Mammogram,
    NetworkInput,
    PlacedView,
    Source,
    UsedGpu,
    View,
    parse_view,
)
from glam_deploy.runtime.borrowed_slot import BorrowedSlot
from glam_deploy.runtime.host_arrays import exact_pixels, is_array, to_host
from glam_deploy.runtime.host_chain import EnsembleChain, HostChain
from glam_deploy.runtime.multi_gpu import GpuChain, MultiGpuChain
from glam_deploy.runtime.overlap import ahead, in_batches
from glam_deploy.runtime.result import Pending, PendingOfBatch, Prepared, Result

Image = ChainInput | Prepared | NDArray[Any] | str | os.PathLike[str] | Any
"""A view in any stage of preparation; Any is for arrays of other libraries and for other inputs of `reading.read`."""

T = TypeVar("T")
U = TypeVar("U")

SLOTS = 2
"""Default number of GPU slots: one view is uploaded while another is computed."""


class Pipeline:
    """Detects lesions in single views or batches. Has no state between calls; thread-safe.

    Created by `glam_deploy.load`; `close`, or the end of a `with` block, releases its memory. With CPU engines all
    stages run on the host one after another, and with streams several views run concurrently. With GPU engines all
    steps from the standardization to the fused map run on the GPU.
    """

    def __init__(
        self,
        opened: OpenedEngines,
        *,
        patches: int | None,
        provenance: Facts,
        slots: int | None = None,
        others: Sequence[OpenedEngines] = (),
        replicas: Sequence[Sequence[OpenedEngines]] = (),
    ) -> None:
        """`patches`: number of patches of an image; None means the network's default.

        `others`: engines of the further models of an ensemble, whose scores are averaged with those of `opened`.
        `replicas`: for each further GPU, the same engines as `opened` and `others`, opened on it.
        """
        self.network = opened.network
        self.patches = self.network.patch_count(patches)
        self.identity = opened.identity
        self.provenance = {**provenance, "engine": to_json(opened.identity), "patches": self.patches}
        make = partial(_chain_of, patches=self.patches, slots=slots)
        self._open_chain: Chain | None = make([opened, *others])
        if replicas:
            self._open_chain = MultiGpuChain([_on_gpu(models, make) for models in ([opened, *others], *replicas)])

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Pipeline: engine {self.identity.name}, {self.patches} patches, {state}>"

    @property
    def in_flight(self) -> int:
        """Number of views to submit before the first result is requested, for full utilization."""
        return self._chain.in_flight

    @property
    def ahead(self) -> int:
        """Number of views to read and `prepare` at the same time, in as many threads, for full utilization."""
        return self._chain.ahead

    @property
    def engines(self) -> Mapping[Stage, Engine]:
        """The engine of each stage, which also runs alone with host arrays. Raises UsageError after `close`."""
        return self._chain.engines

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._open_chain is None

    def close(self) -> None:
        """Accept no more views, and release engines and memory as soon as they are unused. Further calls do nothing.

        Views that were started before, also in other threads, are completed. Waits for views in streams.
        """
        chain, self._open_chain = self._open_chain, None
        if chain is not None:
            chain.close()

    def __enter__(self) -> Self:
        _ = self._chain
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _chain(self) -> Chain:
        """The open chain. Raises UsageError after `close`."""
        chain = self._open_chain
        if chain is None:
            raise UsageError("this pipeline is closed: load the bundle again")
        return chain

    def __call__(self, image: Image, *, view: View | str | None = None, horizontal_flip: bool = False) -> Result:
        """Compute predictions, saliency maps and patches of one view.

        `image` is one of:
        - an input of `glam_deploy.read` (path, bytes, binary file, pydicom Dataset), with the same `view` and
          `horizontal_flip`;
        - a Mammogram, or the result of `preprocess.place`, `preprocess.prepare` or `Pipeline.prepare`;
        - a raw array [rows, columns], >= 0 with background 0, with its `view` ("L-CC", "R-CC", "L-MLO", "R-MLO").
          Integers or floats of any width, if uint8, uint16 or float32 can represent all values exactly;
        - without `view`, a float array [2944, 1920] that is already cropped, mirrored and standardized; it is converted
          to float32.
        Arrays may be of numpy or of another library (torch, CuPy, numba), in host memory or on a GPU.
        `horizontal_flip`: whether a raw image is stored mirrored. Raises InputError for an image that cannot be used,
        for example because a value would change; UsageError for wrong arguments and after `close`; BackendRunError if
        an engine fails.
        """
        return self.submit(image, view=view, horizontal_flip=horizontal_flip).result()

    def submit(self, image: Image, *, view: View | str | None = None, horizontal_flip: bool = False) -> Pending:
        """Start one view, with the arguments of a call; `result()` of the returned object waits for the result.

        On a GPU this returns when the upload of the view has started, and `result()` also raises InputError for a raw
        view that cannot be used; on a CPU with streams it returns when the view is prepared; otherwise when the result
        is complete. The pixels of a raw view must not change while the result is used.
        """
        return self._start([self.prepare(image, view=view, horizontal_flip=horizontal_flip)])

    def prepare(self, image: Image, *, view: View | str | None = None, horizontal_flip: bool = False) -> Prepared:
        """Do the host's preprocessing of a view, for example in another thread; the result is an input of `submit`.

        Arguments and errors are those of a call.
        """
        if isinstance(image, Prepared):
            _require_bare(view, horizontal_flip)
            return image
        chain, clock = self._chain, Stopwatch()
        if reading.is_source(image):
            image, view, horizontal_flip = reading.read(image, view=view, horizontal_flip=horizontal_flip), None, False
        with clock("preprocess"):
            ready = chain.prepare(self._chain_input(image, view=view, horizontal_flip=horizontal_flip))
        return Prepared(view=ready, times_ms=clock.times_ms)

    @overload
    def map(self, images: Iterable[Image], *, errors: Literal["raise"] = "raise") -> Iterator[Result]: ...
    @overload
    def map(self, images: Iterable[Image], *, errors: Literal["return"]) -> Iterator[Result | GlamError]: ...
    def map(
        self, images: Iterable[Image], *, errors: Literal["raise", "return"] = "raise"
    ) -> Iterator[Result] | Iterator[Result | GlamError]:
        """Iterate over the results of many views, in their order; arrays are standardized images, paths are read.

        The next view is taken from `images` and prepared in another thread while the current one is computed, so that a
        generator may read files. On a GPU the next `ahead` views are read and prepared at the same time, and the next
        one is also uploaded meanwhile.
        `errors`: "raise" raises the error of the first view that fails; "return" returns the GlamError instead of the
        view's result and continues; it has no traceback, so that it holds no image. Errors of `images` itself, and
        views after `close`, end the iteration in both cases. Raises UsageError for another value.
        """
        if errors not in ("raise", "return"):
            raise UsageError(f"errors = {errors!r}: expected 'raise' or 'return'")
        _ = self._chain
        _require_several(images)
        return self._each(images) if errors == "raise" else self._each_or_error(images)

    def _each(self, images: Iterable[Image]) -> Iterator[Result]:
        with closing(ahead(self.prepare, images, threads=self.ahead)) as prepared:
            yield from self._in_order(map(self.submit, prepared))

    def _each_or_error(self, images: Iterable[Image]) -> Iterator[Result | GlamError]:
        prepare = partial(self._attempt, self.prepare)
        with closing(ahead(prepare, images, threads=self.ahead)) as prepared:
            for pending in self._started(self._attempt(self.submit, one) for one in prepared):
                yield self._attempt(Pending.result, pending)

    def _attempt(self, step: Callable[[T], U], given: T | GlamError) -> U | GlamError:
        """Do a step of one view and return its GlamError if it fails; an earlier error is returned unchanged.

        Raises other exceptions, and errors caused by `close`.
        """
        if isinstance(given, GlamError):
            return given
        try:
            return step(given)
        except GlamError as error:
            if self.closed:
                raise
            return without_frames(error)

    def batch(self, images: Iterable[Image]) -> list[Result]:
        """Results of the views of an exam, in their order; arrays are standardized images.

        On a GPU four views of one kind (raw or standardized) run as one batch; the remaining ones run one by one. An
        error in one view is raised, and there are no results.
        """
        _require_several(images)
        batches = in_batches(images, self._chain.largest_batch, kind=is_raw)
        return list(self._in_order(self._start([self.prepare(image) for image in batch]) for batch in batches))

    def submit_batch(self, images: Sequence[Image]) -> list[Pending]:
        """Start views of one kind (raw or standardized) as one run, and return an object as of `submit` for each.

        `images`: one or `largest_batch` views. A view that cannot be used affects no other: the views of such a batch
        run again one by one when their results are requested.
        """
        if len(images) == 1:
            return [self.submit(images[0])]
        prepared = [self.prepare(image) for image in images]
        run = self._start(prepared)
        return [PendingOfBatch(run, n, partial(self._start, [one])) for n, one in enumerate(prepared)]

    def require_batch(self, size: int) -> None:
        """Raises UsageError if the engine does not compute `size` views as one run."""
        largest = self._chain.largest_batch
        if size not in (1, largest):
            sizes = f"1 or {largest}" if largest > 1 else "1, because it runs on the CPU, where batches are not faster"
            raise UsageError(f"batch = {size}: engine {self.identity.name!r} computes batches of {sizes}")

    @contextmanager
    def slot(self, images: int = 1) -> Iterator[BorrowedSlot]:
        """Context with direct access to the arrays in GPU memory, for one or four images.

        Raises UsageError for a CPU engine, for an ensemble, and for another number of images.
        """
        chain = self._chain
        if isinstance(chain, MultiGpuChain):
            raise UsageError("a pipeline on several GPUs has no slots: load one for each GPU, with device=")
        if isinstance(chain, EnsembleChain):
            raise UsageError("an ensemble has no GPU slots, because its scores are averaged on the host")
        if not isinstance(chain, DeviceChain):
            raise UsageError(f"engine {self.identity.name!r} runs on the CPU and has no GPU slots")
        with chain.lend(images) as (pool, slot):
            borrowed = BorrowedSlot(chain, pool, slot, self.provenance)
            try:
                yield borrowed
            finally:
                borrowed.close()

    def _chain_input(self, image: Image, *, view: View | str | None, horizontal_flip: bool) -> ChainInput:
        shape = self.network.input_shape
        if isinstance(image, NetworkInput | PlacedView | Mammogram):
            _require_bare(view, horizontal_flip)
            return _exact(image) if isinstance(image, Mammogram) else image
        if not is_array(image):
            raise UsageError(
                f"image has the type {type(image).__name__}, expected a Mammogram, a NetworkInput, an array, or an "
                "input of glam_deploy.read: a path, bytes, a binary file or a pydicom Dataset"
            )
        array = to_host(image)
        if view is None and (horizontal_flip or not np.issubdtype(array.dtype, np.floating)):
            raise UsageError(
                f"an array of {array.dtype} is a raw image and needs its view: pass view=, one of {VIEW_NAMES}. "
                f"Without a view, the array must be a standardized float array {list(shape)} that faces right, without "
                "horizontal_flip."
            )
        if view is None:
            return from_standardized(array, source=Source(name="array", kind="array"), network_shape=shape)
        return _exact(Mammogram(pixels=array, view=parse_view(view), horizontal_flip=horizontal_flip))

    def _start(self, prepared: Sequence[Prepared]) -> Pending:
        clock = Stopwatch()
        for one in prepared:
            clock.add(one.times_ms)
        return Pending(self._chain.start([one.view for one in prepared], clock), clock, self.provenance)

    def _in_order(self, started: Iterable[Pending]) -> Iterator[Result]:
        for pending in self._started(started):
            yield from pending.results

    def _started(self, started: Iterable[T]) -> Iterator[T]:
        """Yield started views in order, each only after `in_flight` views have been started.

        An error of `started` is raised after the views that were started before it.
        """
        under_way: deque[T] = deque()
        depth, views = self.in_flight, iter(started)
        while True:
            try:
                under_way.append(next(views))
            except StopIteration:
                break
            except Exception:
                yield from under_way
                raise
            if len(under_way) == depth:
                yield under_way.popleft()
        yield from under_way


def _chain_of(models: Sequence[OpenedEngines], *, patches: int, slots: int | None) -> Chain:
    """The chain of a model, or of the models of an ensemble."""
    chains = [_chain_of_model(one, patches, slots) for one in models]
    return EnsembleChain(chains) if len(chains) > 1 else chains[0]


def _on_gpu(models: Sequence[OpenedEngines], make: Callable[[Sequence[OpenedEngines]], Chain]) -> GpuChain:
    """The chain of one of several GPUs."""
    first = models[0]
    assert isinstance(first, GpuEngines)
    return GpuChain(gpu=UsedGpu(index=first.gpu.index, uuid=first.gpu.uuid), chain=make(models))


def _chain_of_model(opened: OpenedEngines, patches: int, slots: int | None) -> Chain:
    require_whole_number("slots", slots, 1)
    if isinstance(opened, GpuEngines):
        return DeviceChain(opened, patches, slots=SLOTS if slots is None else slots)
    if slots is not None:
        raise UsageError(f"slots = {slots}: engine {opened.identity.name!r} runs on the CPU; remove slots")
    return HostChain(opened.engines, opened.network, patches, streams=opened.streams)


def _require_several(images: Any) -> None:
    """Raises UsageError for a single view; paths and files are iterable too, over their characters and lines."""
    one = reading.is_source(images) or isinstance(images, ChainInput | Prepared)
    try:
        iter(images)
    except TypeError:
        one = True
    if one:
        raise UsageError(
            f"images is one {type(images).__name__}, expected a list or generator of views, such as "
            "sorted(pathlib.Path(folder).glob('*.dcm'))"
        )


def is_raw(image: Image) -> bool:
    """Whether an image is a raw view, else a standardized one; the views of a batch are of one kind."""
    view = image.view if isinstance(image, Prepared) else image
    return isinstance(view, Mammogram | PlacedView) or reading.is_source(view)


def _exact(mammogram: Mammogram) -> Mammogram:
    pixels = exact_pixels(to_host(mammogram.pixels))
    return mammogram if pixels is mammogram.pixels else replace(mammogram, pixels=pixels)


def _require_bare(view: View | str | None, horizontal_flip: bool) -> None:
    if view is not None or horizontal_flip:
        raise UsageError("view and horizontal_flip are for raw arrays only; this image already has them: remove them")
