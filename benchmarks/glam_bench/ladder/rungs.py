"""The rungs of the ladder: each way to run the network that is measured. Imports nothing that a rung needs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from glam_bench.ladder.settings import Settings
from glam_deploy.agreement.answers import Answer
from glam_deploy.engines.base import EngineIdentity
from glam_deploy.engines.registry import OWNERS
from glam_deploy.gpu.engines.tensorrt.flavours import FLAVOURS
from glam_deploy.records import NetworkInput

PUBLISHED = "published"
"""Key of the rung that all others are compared with, in speed and in answers."""
INDUCTOR = "inductor"
"""torch.compile's own backend."""
DEFAULT_OPENVINO = "openvino-default"
BASELINES = (PUBLISHED, DEFAULT_OPENVINO)
"""The rungs whose times are divided by those of each rung, where they ran."""


@dataclass(frozen=True, kw_only=True)
class RungPlan:
    """One rung before it is opened."""

    key: str
    name: str
    opener: str
    """"torch" (`torch_rungs`), "openvino" (as converted by default) or "engine" (the registry)."""
    needs: tuple[str, ...] = ()
    """Packages, by import name; engines of the registry know theirs."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the opener, as JSON has them. Of "engine": its name as `opening.open_engine` takes it."""
    asked: bool = False
    """The user named it: where it cannot run, the bench ends."""
    open_s: float = 120.0
    """Seconds that its first result may take, on a slow machine too."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Run:
    """The result for one image, and the times of the steps to it."""

    answer: Answer
    stages_ms: Mapping[str, float]


class Runner(Protocol):
    """An opened rung: from a standardized image to predictions and the fused map at full size, both on the host."""

    identity: EngineIdentity
    build_s: float | None

    def __call__(self, view: NetworkInput) -> Run: ...


def plan(settings: Settings) -> list[RungPlan]:
    """All rungs in the order in which they are shown and run, each once."""
    rungs = list(_baselines(settings.engines)) if settings.baselines else [_published()]
    there = {rung.key for rung in rungs}
    rungs += [_engine(name, settings.flavour, asked=True) for name in settings.engines if name not in there]
    return rungs


def _published() -> RungPlan:
    return _torch(PUBLISHED, "PyTorch as published", host_crops=True)


def _baselines(asked: Sequence[str]) -> Iterator[RungPlan]:
    yield _published()
    yield _torch("eager", "PyTorch, channels_last")
    yield _torch("autocast", "PyTorch, autocast", half=True)
    yield _torch("compile", "torch.compile", backend=INDUCTOR)
    yield _torch("compile-half", "torch.compile, autocast", backend=INDUCTOR, half=True)
    yield _engine("onnx", asked="onnx" in asked)
    yield RungPlan(key=DEFAULT_OPENVINO, name="OpenVINO as converted", opener="openvino", needs=("openvino",))
    yield _engine("onnx-cuda-fp16", asked="onnx-cuda-fp16" in asked)
    for flavour in FLAVOURS:
        for precision in ("fp32", "fp16"):
            yield _tensorrt(precision, flavour)
    yield _torch("torch-tensorrt", "Torch-TensorRT", backend="torch_tensorrt")


def _torch(key: str, name: str, *, backend: str | None = None, **options: bool) -> RungPlan:
    extra = (backend,) if backend not in (None, INDUCTOR) else ()
    return RungPlan(
        key=key,
        name=name,
        opener="torch",
        needs=("torch", "safetensors", *extra),
        options={**options, "backend": backend},
        open_s=300 if backend else 120,
    )


def _engine(name: str, flavour: str | None = None, *, asked: bool = False) -> RungPlan:
    titles = {
        "onnx": "ONNX Runtime",
        "torch": "the PyTorch engine",
        "onnx-cuda": "ONNX Runtime CUDA",
        "onnx-cuda-fp16": "ONNX Runtime CUDA fp16",
    }
    title = titles.get(name, name)
    options = {"engine": engine_name(name, flavour)}
    return RungPlan(key=name, name=title, opener="engine", options=options, asked=asked)


def engine_name(name: str, flavour: str | None) -> str:
    """An engine of the registry as `opening.open_engine` takes it: with the TensorRT flavour where it has flavours."""
    return f"{name}@{flavour}" if flavour and "flavour" in OWNERS[name].options else name


def _tensorrt(precision: str, flavour: str) -> RungPlan:
    name = f"{flavour} {precision}".replace("tensorrt", "TensorRT").replace("-rtx", "-RTX")
    key = f"{precision}@{flavour}"
    return RungPlan(key=key, name=name, opener="engine", options={"engine": key})
