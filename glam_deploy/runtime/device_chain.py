"""The chain on a GPU: one upload, one sequence of work, one download. Equals the host chain up to rounding."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from operator import or_
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from glam_deploy.engines.base import Engine, OpenedEngines
from glam_deploy.engines.device_base import DeviceEngine
from glam_deploy.errors import BackendRunError, UsageError
from glam_deploy.kernels.flags import Flags
from glam_deploy.networks import Stage
from glam_deploy.records import Findings, NetworkInput, Placed, PlacedView
from glam_deploy.runtime.chain import Flight
from glam_deploy.runtime.slot import Collected, GpuStages, Slot
from glam_deploy.runtime.slot_pool import Run, SlotPool
from glam_deploy.runtime.stopwatch import Stopwatch

EXAM = 4
"""Views that can run together; engines are built for this batch and for 1."""

FLAT = (Flags.FLAT_BENIGN, Flags.FLAT_MALIGNANT)


class DeviceChain:
    """Slots on one GPU, for one view and for the four of an exam. Safe to use from several threads."""

    largest_batch = EXAM

    def __init__(self, opened: OpenedEngines, patches: int, *, slots: int) -> None:
        """`slots`: how many runs of each batch may be under way at once; memory is taken when one is first needed."""
        assert opened.gpu is not None and opened.kernels is not None
        engines = {stage: cast(DeviceEngine, engine) for stage, engine in opened.engines.items()}
        self.in_flight = slots
        self._stages = GpuStages(
            network=opened.network, gpu=opened.gpu, kernels=opened.kernels, engines=engines, patches=patches
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
