"""The chain on a GPU: one upload, one sequence of work, one download. Equals the host chain up to rounding.

Its slots are lent to one owner at a time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from operator import or_
from threading import Condition, Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.engines.base import Engine, Flight, Stopwatch
from glam_deploy.errors import BackendRunError, UsageError
from glam_deploy.gpu.engines.base import GpuEngines
from glam_deploy.gpu.kernels.geometry import Flags
from glam_deploy.gpu.slot import Collected, GpuStages, Slot
from glam_deploy.networks import Stage
from glam_deploy.records import Findings, NetworkInput, Placed, PlacedView

EXAM = 4
"""Views that can run together; engines are built for this batch and for 1."""
FLAT = (Flags.FLAT_BENIGN, Flags.FLAT_MALIGNANT)


class SlotPool:
    """Up to `limit` slots, made when they are first needed. Safe to use from any number of threads.

    A run that was started holds its slot until its results are on the host. Whoever needs a slot when all are held so
    finishes the oldest run first: a caller that starts several runs before asking for any result cannot block itself,
    and a run whose result nobody asks for costs no slot.
    """

    def __init__(self, make: Callable[[], Slot], *, limit: int) -> None:
        self.limit = limit
        self._make = make
        self._made = 0
        self._free: list[Slot] = []
        self._under_way: list[Run] = []
        self._changed = Condition()
        self._fault: BackendRunError | None = None

    def take(self) -> Slot:
        """A slot for the caller alone, which waits for one if it must. Give it back, or start a run in it.

        Raises BackendRunError where the GPU has failed, or has no memory for another slot.
        """
        while True:
            with self._changed:
                self._require_sound()
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
        """The slot is free again."""
        with self._changed:
            self._free.append(slot)
            self._changed.notify()

    def start(self, slot: Slot, launch: Callable[[], None]) -> "Run":
        """Launch work in a slot that the caller has taken; the slot comes back by itself, at the latest with an error.

        Raises BackendRunError.
        """
        try:
            with self.guarded():
                launch()
        except BaseException:
            self.give(slot)
            raise
        run = Run(self, slot)
        with self._changed:
            self._under_way.append(run)
            self._changed.notify()
        return run

    def end(self, run: "Run", slot: Slot) -> None:
        """For `Run`: its results are on the host, or lost."""
        with self._changed:
            self._under_way.remove(run)
            self._free.append(slot)
            self._changed.notify()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Calls of the GPU. One that fails ends the use of the pool: CUDA's errors stay until the process ends."""
        try:
            yield
        except BackendRunError as error:
            with self._changed:
                self._fault = self._fault or error
                self._changed.notify_all()
            raise

    def _require_sound(self) -> None:
        if self._fault:
            raise BackendRunError(
                f"the GPU failed earlier in this process, and this pipeline gives no more results. Restart the "
                f"process. What failed: {self._fault}"
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
    """Work under way in a slot."""

    def __init__(self, pool: SlotPool, slot: Slot) -> None:
        self._pool = pool
        self._slot: Slot | None = slot
        self._lock = Lock()
        self._outcome: Collected | BackendRunError | None = None

    def finish(self) -> Collected | BackendRunError:
        """Wait for the work, take its results and free the slot; whoever comes first does it."""
        with self._lock:
            if self._slot is not None:
                self._outcome = self._collect(self._slot)
                self._pool.end(self, self._slot)
                self._slot = None
            assert self._outcome is not None
            return self._outcome

    def result(self) -> Collected:
        """What the work has left on the host. Raises BackendRunError for work that failed."""
        outcome = self.finish()
        if isinstance(outcome, BackendRunError):
            raise outcome
        return outcome

    def _collect(self, slot: Slot) -> Collected | BackendRunError:
        try:
            with self._pool.guarded():
                return slot.collect()
        except BackendRunError as error:
            return error


class DeviceChain:
    """Slots on one GPU, for one view and for the four of an exam. Safe to use from several threads."""

    largest_batch = EXAM

    def __init__(self, opened: GpuEngines, patches: int, *, slots: int) -> None:
        """`slots`: how many runs of each batch may be under way at once; memory is taken when one is first needed."""
        self.in_flight = slots
        self._stages = GpuStages(
            network=opened.network, gpu=opened.gpu, kernels=opened.kernels, engines=opened.engines, patches=patches
        )
        self._pools = {n: SlotPool(partial(Slot, self._stages, images=n), limit=slots) for n in (1, EXAM)}

    @property
    def engines(self) -> Mapping[Stage, Engine]:
        """The three stages, each to be run alone with host arrays."""
        return self._stages.engines

    def prepare(self, view: PlacedView | NetworkInput) -> PlacedView | NetworkInput:
        """Nothing more: the GPU standardizes."""
        return view

    def start(self, views: Sequence[PlacedView | NetworkInput], clock: Stopwatch) -> Flight:
        """One view or four: staged on the host, uploaded and under way when this returns. Raises BackendRunError."""
        pool = self._pools[len(views)]
        for view in views:
            if isinstance(view, NetworkInput):  # no later check sees it: an engine's ReLU may turn NaN into 0
                self._stages.engines["global"].require_finite_inputs({"image": view.image})
        slot = pool.take()
        try:
            with clock("preprocess"):
                feed = slot.stage(views)
        except BaseException:
            pool.give(slot)
            raise
        run = pool.start(slot, partial(slot.start, feed))
        return partial(self._land, run, views, clock)

    def close(self) -> None:
        """Nothing to wait for: slots, engines and their memory go with the last run that uses them."""

    @contextmanager
    def lend(self, images: int) -> Iterator[tuple[SlotPool, Slot]]:
        """A slot for the caller alone. Raises UsageError for a number of images that no slot has."""
        if images not in self._pools:
            raise UsageError(f"a slot for {images} images was asked for; there are slots for 1 and for {EXAM}")
        pool = self._pools[images]
        slot = pool.take()
        try:
            yield pool, slot
        finally:
            pool.give(slot)

    def findings(self, collected: Collected, views: Sequence[Placed]) -> Findings:
        """What was downloaded, without the slots not in use. Raises BackendRunError for numbers that are not finite."""
        values = self._used(collected.arrays)
        flags = [Flags(flag) for flag in values.pop("flags").tolist()]
        _require_finite_images(flags)
        self._require_finite(values, flags)
        flat = np.array([[bit in flag for bit in FLAT] for flag in flags])
        y_fusion, attention = values.pop("y_fusion", None), values.pop("attention", None)
        return Findings(
            network=self._stages.network,
            inputs=tuple(views),
            flat=flat,
            recording=collected.recording,
            y_fusion=y_fusion,
            attention=attention,
            **values,
        )

    def _land(self, run: Run, views: Sequence[Placed], clock: Stopwatch) -> Findings:
        collected = run.result()
        clock.times_ms["gpu"] = collected.milliseconds
        return self.findings(collected, views)

    def _used(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        slotted = ("patch_locations", "saliency_patches", "attention")
        return {name: a[:, : self._stages.patches] if name in slotted else a for name, a in arrays.items()}

    def _require_finite(self, values: Mapping[str, NDArray[Any]], flags: Sequence[Flags]) -> None:
        """As every engine does at the host; of the maps, which the kernels have looked at, only where they say so."""
        said = reduce(or_, flags)
        names: dict[Stage, list[str]] = {"global": ["y_scale"], "local": []}
        names["fusion"] = list(self._stages.engines["fusion"].contract.outputs)
        names["global"] += ["saliency_global"] if said & Flags.NOT_FINITE_GLOBAL else []
        names["local"] += ["saliency_patches"] if said & Flags.NOT_FINITE_LOCAL else []
        for stage, found in names.items():
            self._stages.engines[stage].require_finite_outputs({name: values[name] for name in found})


def _require_finite_images(flags: Sequence[Flags]) -> None:
    """The cause before what comes of it. The image stays on the GPU, so its values are not counted."""
    if spoilt := [n for n, flag in enumerate(flags) if Flags.NOT_FINITE_IMAGE in flag]:
        raise BackendRunError(
            f"values of 'image' are NaN or infinite in {len(spoilt)} of the slot's {len(flags)} images (first: "
            f"{spoilt[0]}, counted from 0). They get no result. Look at how what was written there was made."
        )
