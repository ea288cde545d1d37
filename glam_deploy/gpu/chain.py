"""The GPU chain: one upload, all steps on one stream, one download. Results equal the host chain up to rounding.

Runs use slots (`gpu.slot`) from a pool; each slot is used by one run at a time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from operator import or_
from threading import Condition, Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.engines.base import Engine, PendingFindings, Stopwatch
from glam_deploy.engines.cpu import usable_cores
from glam_deploy.errors import BackendRunError, GpuLost, UsageError
from glam_deploy.gpu.engines.base import GpuEngines
from glam_deploy.gpu.kernels.geometry import Flags
from glam_deploy.gpu.placing import GpuPlacing
from glam_deploy.gpu.slot import Collected, GpuStages, Slot
from glam_deploy.networks import Stage
from glam_deploy.records import ChainInput, Findings, NetworkInput, Placed

EXAM = 4
"""Number of views of a batched run (an exam); engines are built for this batch size and for 1."""
FLAT = (Flags.FLAT_BENIGN, Flags.FLAT_MALIGNANT)
MAP_FLAGS = {"saliency_global": Flags.NOT_FINITE_GLOBAL, "saliency_patches": Flags.NOT_FINITE_LOCAL}
MOST_AHEAD = 8
"""Largest number of views that are read at the same time; each has up to 60 MB."""
SLOTTED = ("patch_locations", "saliency_patches", "z_k", "attention")
"""Downloaded tensors whose axis 1 is the patch slots."""


class SlotPool:
    """Pool of up to `limit` slots, which are created when first needed. Thread-safe.

    A started run occupies its slot until its results are on the host. If all slots are occupied by started runs, `take`
    first collects the results of the oldest run. A caller that starts several runs before it requests a result
    therefore cannot deadlock, and a run whose result is never requested does not block a slot.
    """

    def __init__(self, make: Callable[[], Slot], *, limit: int) -> None:
        self.limit = limit
        self._make = make
        self._made = 0
        self._free: list[Slot] = []
        self._under_way: list[Run] = []
        self._changed = Condition()
        self._fault: GpuLost | None = None

    def take(self) -> Slot:
        """Take a slot for exclusive use; blocks until one is free. The caller calls `give` or `start` with it.

        Raises BackendRunError if the GPU has failed, or has not enough memory for another slot.
        """
        while True:
            with self._changed:
                self._require_no_fault()
                if self._free:
                    return self._free.pop()
                if self._made < self.limit:
                    self._made += 1
                    break
                if not self._under_way:
                    self._changed.wait()
                    continue
                oldest = self._under_way[0]
            oldest.finish()
        return self._new()

    def give(self, slot: Slot) -> None:
        """Return a slot to the pool."""
        with self._changed:
            self._free.append(slot)
            self._changed.notify()

    def start(self, slot: Slot, launch: Callable[[], None], meanwhile: Callable[[], None] = lambda: None) -> "Run":
        """Launch work in a slot from `take`. The slot returns to the pool when the run ends, also with an error.

        `meanwhile`: work of the host that uses the slot's memory, done before the results are waited for. Raises
        BackendRunError.
        """
        run = Run(self, slot, meanwhile)
        try:
            with self.guarded():
                launch()
            with self._changed:
                self._under_way.append(run)
                self._changed.notify()
        except BaseException:  # Ctrl-C may come at any time
            if run not in self._under_way:
                self.give(slot)
            raise
        return run

    def end(self, run: "Run", slot: Slot) -> None:
        """Return the slot of a run whose results are on the host or have failed; once, also if called again."""
        with self._changed:
            if run in self._under_way:
                under_way, free = [one for one in self._under_way if one is not run], [*self._free, slot]
                self._under_way, self._free = under_way, free  # together, because Ctrl-C may come at any time
            self._changed.notify()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Context for GPU calls. A failure disables the pool, because CUDA errors persist until the process ends.

        Raises GpuLost for any BackendRunError.
        """
        try:
            yield
        except BackendRunError as error:
            lost = error if isinstance(error, GpuLost) else GpuLost(str(error))
            with self._changed:
                self._fault = self._fault or lost
                self._changed.notify_all()
            if lost is error:
                raise
            raise lost from error

    def _require_no_fault(self) -> None:
        if self._fault:
            raise GpuLost(
                f"the GPU failed earlier in this process, so this pipeline cannot compute further results. Restart the "
                f"process. Cause: {self._fault}"
            ) from self._fault

    def _new(self) -> Slot:
        try:
            return self._make()
        except BaseException:
            with self._changed:
                self._made -= 1
                self._changed.notify()
            raise


class Run:
    """A started run in a slot."""

    def __init__(self, pool: SlotPool, slot: Slot, meanwhile: Callable[[], None]) -> None:
        self._pool, self._meanwhile = pool, meanwhile
        self._slot: Slot | None = slot
        self._lock = Lock()
        self._outcome: Collected | Exception | None = None

    def finish(self) -> Collected | Exception:
        """Wait for the run, copy its results and free the slot. Thread-safe; further calls return the same outcome."""
        with self._lock:
            if self._outcome is None:
                assert self._slot is not None
                self._outcome = self._collect(self._slot)
            if self._slot is not None:
                self._pool.end(self, self._slot)
                self._slot = None
            return self._outcome

    def result(self) -> Collected:
        """The results of the run. Raises BackendRunError if it failed, MemoryError if the host has no room for them."""
        outcome = self.finish()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _collect(self, slot: Slot) -> Collected | Exception:
        try:
            with self._pool.guarded():
                self._meanwhile()
                return slot.collect()
        except Exception as error:  # kept for `result`: another run that needs the slot may have called `finish`
            return error


class DeviceChain:
    """Chain on one GPU, for single views and for batches of four (an exam). Thread-safe."""

    largest_batch = EXAM

    def __init__(self, opened: GpuEngines, patches: int, *, slots: int) -> None:
        """`slots`: number of concurrent runs per batch size; their memory is allocated when first needed."""
        self.in_flight, self.ahead = slots, min(MOST_AHEAD, max(1, usable_cores() - 1))
        self._placing = GpuPlacing(opened.network.input_shape)
        self._stages = GpuStages(
            network=opened.network,
            gpu=opened.gpu,
            kernels=opened.kernels,
            head=opened.head,
            engines=opened.engines,
            patches=patches,
        )
        self._pools = {n: SlotPool(partial(Slot, self._stages, images=n), limit=slots) for n in (1, EXAM)}

    @property
    def engines(self) -> Mapping[Stage, Engine]:
        """The engine of each stage, which also runs alone with host arrays."""
        return self._stages.engines

    def prepare(self, view: ChainInput) -> ChainInput:
        """A raw view as the GPU takes it, or placed on the host if it is too large for that; others unchanged.

        The GPU places and standardizes. Raises InputError as `preprocess.place`, but not for all that it refuses.
        """
        return self._placing.prepare(view)

    def start(self, views: Sequence[ChainInput], clock: Stopwatch) -> PendingFindings:
        """Start a run of one or four views; returns before the GPU has finished. Raises BackendRunError."""
        pool = self._pools[len(views)]
        slot = pool.take()
        try:
            with clock("preprocess"):
                feed = slot.stage(views)
        except BaseException:
            pool.give(slot)
            raise
        judged: list[Placed | Exception] = []
        run = pool.start(slot, partial(slot.start, feed), partial(self._judge, slot, views, judged, clock))
        return partial(self._wait, run, views, judged, clock)

    def close(self) -> None:
        """Does nothing: slots and engines are freed with the last reference to them."""

    @contextmanager
    def lend(self, images: int) -> Iterator[tuple[SlotPool, Slot]]:
        """Context with a slot for exclusive use. Raises UsageError unless `images` is 1 or EXAM."""
        if images not in self._pools:
            raise UsageError(f"there is no slot for {images} images, expected 1 or {EXAM} images")
        pool = self._pools[images]
        slot = pool.take()
        try:
            yield pool, slot
        finally:
            pool.give(slot)

    def findings(self, collected: Collected, views: Sequence[Placed]) -> Findings:
        """Convert the downloaded arrays to findings, without unused patch slots.

        Raises BackendRunError for NaN or infinite values.
        """
        k = self._stages.patches
        values = {name: a[:, :k] if name in SLOTTED else a for name, a in collected.arrays.items()}
        flags = [Flags(flag) for flag in values["flags"].tolist()]
        _require_finite_images(flags)
        self._require_finite(values, flags)
        return Findings(
            network=self._stages.network,
            inputs=tuple(views),
            saliency_global=values["saliency_global"],
            saliency_patches=values.get("saliency_patches"),
            patch_locations=values.get("patch_locations", np.zeros((len(flags), 0, 2), np.int64)),
            flat=np.array([[bit in flag for bit in FLAT] for flag in flags]),
            y_scale=values.get("y_scale"),
            y_global=values["y_global"],
            y_local=values.get("y_local"),
            y_fusion=values.get("y_fusion"),
            attention=values.get("attention"),
            recording=collected.recording,
        )

    def _judge(
        self, slot: Slot, views: Sequence[ChainInput], judged: list[Placed | Exception], clock: Stopwatch
    ) -> None:
        """Place the views of a run by what the GPU found in them, while it runs the network."""
        found = slot.located()
        with clock("preprocess"):
            judged[:] = map(self._placing.judge, views, found)  # again, if an earlier wait was interrupted

    def _wait(
        self, run: Run, views: Sequence[ChainInput], judged: Sequence[Placed | Exception], clock: Stopwatch
    ) -> Findings:
        collected = run.result()
        clock.times_ms["gpu"] = collected.milliseconds
        placed = list[Placed]()
        for one in judged:
            if isinstance(one, Exception):
                raise one
            placed.append(one)
        self._require_finite_images(views, collected)
        return self.findings(collected, placed)

    def _require_finite_images(self, views: Sequence[ChainInput], collected: Collected) -> None:
        """Raises BackendRunError for standardized images with NaN or infinite values, which an engine may hide."""
        for view, flag in zip(views, collected.arrays["flags"].tolist(), strict=True):
            if flag & Flags.NOT_FINITE_IMAGE and isinstance(view, NetworkInput):
                self._stages.engines["global"].require_finite_inputs({"image": view.image})

    def _require_finite(self, values: Mapping[str, NDArray[Any]], flags: Sequence[Flags]) -> None:
        """Raises BackendRunError for downloaded outputs that are not finite.

        Saliency maps are scanned only if a kernel has set their flag, which saves time.
        """
        found = reduce(or_, flags)
        finite = {name for name, flag in MAP_FLAGS.items() if not found & flag}
        for engine in self._stages.engines.values():
            names = [name for name in engine.contract.outputs if name in values and name not in finite]
            engine.require_finite_outputs({name: values[name] for name in names})


def _require_finite_images(flags: Sequence[Flags]) -> None:
    """Raises BackendRunError for input images that are not finite; checked before the outputs, which follow from them.

    The values are not counted, because the images stay on the GPU.
    """
    if invalid := [n for n, flag in enumerate(flags) if Flags.NOT_FINITE_IMAGE in flag]:
        raise BackendRunError(
            f"'image' has NaN or infinite values in {len(invalid)} of the slot's {len(flags)} images (first: "
            f"{invalid[0]}, counted from 0). They get no result. Check the code that wrote these images."
        )
