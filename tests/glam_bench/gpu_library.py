"""The step `library` with a made-up library, on the fake GPU: what is as expected, and what is named. Run by
test_library.py."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_cuda.control import FakeDriver
from support.tensorrt_runtime import CudaEngine, Faults
from support.tensorrt_runtime import library as made_up

from glam_bench.gpu import contract
from glam_bench.gpu.plan import GpuContext, GpuOptions
from glam_bench.measurements import library
from glam_bench.measurements.library import CHANNELS, KERNELS, PROFILE, SIDE, TYPES, example
from glam_bench.record import Record
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.engines.tensorrt.flavours import Library


class TinyEngine(CudaEngine):
    """The convolution, computed as `example` does; `off` is added."""

    def __init__(self, log: Any, world: Any, precision: Any, *, off: float, tells: bool) -> None:
        self.log, self.world, self.precision, self.off, self.tells = log, world, precision, off, tells
        dtype = np.dtype(TYPES[precision][1]).name
        self.profiles = [{"x": [[batch, CHANNELS, SIDE, SIDE] for batch in PROFILE]}]
        shapes = {"x": [-1, CHANNELS, SIDE, SIDE], "y": [-1, KERNELS, SIDE, SIDE]}
        self.tensors = {name: (dtype, shape) for name, shape in shapes.items()}
        self.inputs = {"x"}
        self.computing = SimpleNamespace(_run=self._convolve)  # type: ignore[assignment]

    def _convolve(self, inputs: Any) -> Any:
        _, expected = example(self.precision, len(inputs["x"]))
        return {"y": expected + self.off}

    def create_engine_inspector(self) -> Any:
        """Types only with a context, as with TensorRT 10."""
        inspector = SimpleNamespace(execution_context=None)
        words = TYPES[self.precision][2][0]

        def information(form: str) -> str:
            told = words if inspector.execution_context and self.tells else "N/A due to dynamic shapes"
            return json.dumps({"Layers": [{"Name": "conv", "Outputs": [{"Format/Datatype": told}]}]})

        inspector.get_engine_information = information
        return inspector


@pytest.fixture
def run(gpu: Gpu, driver: FakeDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The step with a library that behaves so; the record's results."""

    def go(*faults: str, off: float = 0.0, tells: bool = True, layers: str = "Layers: conv") -> dict[str, Any]:
        lib = made_up("tensorrt", gpu, driver, Faults(*faults))
        world = SimpleNamespace(trt=lib.trt, rtx=False, gpu=gpu, driver=driver, faults=Faults(*faults))
        lib.trt.LayerInformationFormat = SimpleNamespace(JSON="JSON")
        monkeypatch.setattr(library.flavours, "find", lambda name: None)
        monkeypatch.setattr(library.flavours, "load", lambda _: lib)
        monkeypatch.setattr(contract, "differences", lambda trt, rtx: ["Runtime.x() -> None: found nothing"])

        def built(self: Any) -> bytes:
            self.log.log(lib.trt.ILogger.VERBOSE, layers)
            return str(self.precision).encode()

        def opened(self: Any, plan: bytes) -> TinyEngine:
            return TinyEngine(self.log, world, plan.decode(), off=off, tells=tells)

        monkeypatch.setattr(library.Trial, "built", built)
        monkeypatch.setattr(library.Trial, "_opened", opened)
        options = GpuOptions(bundle=tmp_path, work=tmp_path)
        record = Record.create(tmp_path / "gpu.json", options=options.as_json())
        library.run(GpuContext(options=options, record=record, name="library:tensorrt", argument="tensorrt"))
        return record.results("library:tensorrt")

    return go


BINDINGS = "bindings: Runtime.x() -> None: found nothing"


def test_all_as_expected(run: Any, tmp_path: Path) -> None:
    found = run()
    assert found["differs"] == [BINDINGS]
    assert found["library"].startswith("TensorRT 11")
    for precision in ("fp16", "fp32"):
        assert found[precision]["batch 1"]["recording"] == "recorded"
        assert found[precision]["batch 4"]["scratch_bytes"] > found[precision]["batch 1"]["scratch_bytes"]
        log, layers, plain, shaped = ((tmp_path / name).read_text() for name in found[precision]["files"])
        assert "[VERBOSE] Layers: conv" in log
        assert layers == "Layers: conv"
        assert "N/A due to dynamic shapes" in plain
        assert TYPES[precision][2][0] in shaped


@pytest.mark.parametrize(
    ("faults", "behaviour", "words"),
    [
        (
            ("graph",),
            {},
            "fp16: a batch of 1 cannot be recorded: a batch of 1 does not run: Error Code 1: Cuda Runtime",
        ),
        ((), {"off": 0.1}, "fp32: a batch of 4 is 0.1 from numpy, 0.0001 expected"),
        ((), {"tells": False}, "fp16: inspector-with-shapes.json does not tell Half or FP16"),
        ((), {"layers": "Building"}, "fp16: the builder's log has no message that begins with 'Layers:'"),
        (("run",), {}, "fp16: a batch of 1 does not run: Error Code 1: Cuda Runtime"),
        (("context",), {}, "fp16: no context for a batch of 2: Error Code 2: OutOfMemory"),
    ],
)
def test_what_differs_is_named(run: Any, faults: tuple[str, ...], behaviour: dict[str, Any], words: str) -> None:
    found = run(*faults, **behaviour)
    assert any(line.startswith(words) for line in found["differs"]), found["differs"]
    assert found["fp16"]["files"] and found["fp32"]["files"], "one precision does not hide the other, and all is kept"


def test_the_made_up_module_is_a_library(gpu: Gpu, driver: FakeDriver) -> None:
    assert isinstance(made_up("tensorrt", gpu, driver), Library)
