"""Several GPUs in one pipeline: which of them computes a run, and what the failure of one means."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from glam_deploy.engines.base import Stopwatch
from glam_deploy.errors import BackendRunError, GpuLost, InputError
from glam_deploy.records import ChainInput, Findings, UsedGpu
from glam_deploy.runtime import multi_gpu
from glam_deploy.runtime.multi_gpu import GpuChain, MultiGpuChain


def findings() -> Findings:
    """Of nothing; only the GPU is looked at."""
    empty = object.__new__(Findings)
    for name in Findings.__dataclass_fields__:
        object.__setattr__(empty, name, None)
    return empty


@dataclass
class Recorder:
    """The chain of one GPU, without a GPU: it keeps what it was given; `error` is raised by the next results."""

    started: list[object] = field(default_factory=list)
    error: Exception | None = None
    closed: int = 0
    largest_batch: int = 4
    in_flight: int = 2
    ahead: int = 3

    def start(self, views: Sequence[ChainInput], clock: Stopwatch) -> Callable[[], Findings]:
        self.started.append(*views)

        def wait() -> Findings:
            if self.error:
                raise self.error
            return findings()

        return wait

    def close(self) -> None:
        self.closed += 1
        if self.error:
            raise self.error


def several(count: int) -> tuple[MultiGpuChain, list[Recorder]]:
    recorders = [Recorder() for _ in range(count)]
    named = [UsedGpu(index=2 * n + 1, uuid=f"GPU-{n}") for n in range(count)]
    return MultiGpuChain([GpuChain(gpu=g, chain=r) for g, r in zip(named, recorders, strict=True)]), recorders  # type: ignore[arg-type]


def start(chain: MultiGpuChain, view: object) -> Callable[[], Findings]:
    return chain.start([view], Stopwatch())  # type: ignore[list-item]


def test_sums_and_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multi_gpu, "usable_cores", lambda: 100)
    chain, _ = several(3)
    assert (chain.in_flight, chain.ahead, chain.largest_batch) == (6, 9, 4)
    monkeypatch.setattr(multi_gpu, "usable_cores", lambda: 5)
    assert several(3)[0].ahead == 4
    monkeypatch.setattr(multi_gpu, "usable_cores", lambda: 1)
    assert several(3)[0].ahead == 1


def test_views_one_after_another_take_turns() -> None:
    chain, gpus = several(3)
    for view in range(7):
        start(chain, view)()
    assert [gpu.started for gpu in gpus] == [[0, 3, 6], [1, 4], [2, 5]]


def test_a_view_goes_where_fewest_are_unfinished() -> None:
    chain, gpus = several(2)
    runs = [start(chain, view) for view in range(4)]
    assert [gpu.started for gpu in gpus] == [[0, 2], [1, 3]]
    runs[1]()
    runs[3]()
    runs[3]()  # asked for twice: one run
    runs += [start(chain, view) for view in (4, 5)]
    assert gpus[1].started == [1, 3, 4, 5]


def test_a_run_that_is_forgotten_counts_no_longer() -> None:
    chain, gpus = several(2)
    kept = start(chain, 0)
    for view in range(1, 6):
        start(chain, view)
        gc.collect()
    assert gpus[0].started == [0]
    assert gpus[1].started == [1, 2, 3, 4, 5]
    assert kept().gpu == UsedGpu(index=1, uuid="GPU-0")


def test_findings_name_their_gpu_and_stay_the_same() -> None:
    chain, _ = several(2)
    runs = [start(chain, view) for view in range(2)]
    assert [run().gpu for run in runs] == [UsedGpu(index=1, uuid="GPU-0"), UsedGpu(index=3, uuid="GPU-1")]
    assert runs[0]() is runs[0]()


def test_an_error_of_one_view_names_its_gpu_and_ends_nothing() -> None:
    chain, gpus = several(2)
    gpus[1].error = BackendRunError("2 values are NaN")
    first, second = start(chain, 0), start(chain, 1)
    assert first().gpu
    for _ in range(2):
        with pytest.raises(BackendRunError, match=r"^GPU 3 \(GPU-1\): 2 values are NaN$"):
            second()
    gpus[1].error = None
    assert {run().gpu.index for run in (start(chain, 2), start(chain, 3))} == {1, 3}  # type: ignore[union-attr]


def test_an_image_that_cannot_be_used_blames_no_gpu() -> None:
    chain, gpus = several(2)
    gpus[0].error = InputError("no breast")
    with pytest.raises(InputError, match=r"^no breast$"):
        start(chain, 0)()


def test_a_lost_gpu_ends_all() -> None:
    """What the others have begun is still their own."""
    chain, gpus = several(2)
    runs = [start(chain, view) for view in range(2)]
    gpus[1].error = GpuLost("cuStreamSynchronize failed")
    with pytest.raises(GpuLost, match=r"^GPU 3 \(GPU-1\): cuStreamSynchronize failed$"):
        runs[1]()
    with pytest.raises(GpuLost, match=r"GPU 3 .*failed.*Its other GPUs are not used any more either"):
        start(chain, 2)
    assert [gpu.started for gpu in gpus] == [[0], [1]]
    assert runs[0]().gpu == UsedGpu(index=1, uuid="GPU-0")


def test_a_start_that_fails_occupies_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    chain, gpus = several(2)
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise BackendRunError("no memory for a slot")

        patch.setattr(gpus[0], "start", full)
        with pytest.raises(BackendRunError, match=r"GPU 1 \(GPU-0\): no memory"):
            start(chain, 0)
    runs = [start(chain, view) for view in (1, 2, 3)]
    assert [gpu.started for gpu in gpus] == [[2], [1, 3]]
    assert all(run().gpu for run in runs)


def test_all_are_closed_also_if_one_fails() -> None:
    chain, gpus = several(3)
    gpus[2].error = BackendRunError("cannot be closed")
    with pytest.raises(BackendRunError, match="cannot be closed"):
        chain.close()
    assert [gpu.closed for gpu in gpus] == [1, 1, 1]
