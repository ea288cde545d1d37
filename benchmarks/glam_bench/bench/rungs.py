"""The ladder: every way to run the network that is measured, and who opens it. Imports nothing that a rung needs."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from glam_bench.bench.settings import Settings
from glam_deploy.engines.registry import OWNERS
from glam_deploy.gpu.engines.tensorrt.flavours import FLAVOURS

PUBLISHED = "published"
"""Key of the rung that all others are compared with, in speed and in answers."""
INDUCTOR = "inductor"
"""torch.compile's own backend."""
DEFAULT_OPENVINO = "openvino-default"
BASELINES = (PUBLISHED, DEFAULT_OPENVINO)
"""What ratios are told to, where they ran."""


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
    """What the opener is told; JSON-ready."""
    asked: bool = False
    """The user named it: where it cannot run, there is no bench."""
    open_s: float = 120.0
    """How long its first result may take, on a slow machine too."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


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
    titles = {"onnx": "ONNX Runtime", "torch": "the PyTorch engine", "onnx-cuda": "ONNX Runtime CUDA"}
    title = titles.get(name, name)
    options = {"engine": name, "flavour": flavour if "flavour" in OWNERS[name].options else None}
    return RungPlan(key=name, name=title, opener="engine", options=options, asked=asked)


def _tensorrt(precision: str, flavour: str) -> RungPlan:
    name = f"{flavour} {precision}".replace("tensorrt", "TensorRT").replace("-rtx", "-RTX")
    options = {"engine": precision, "flavour": flavour}
    return RungPlan(key=f"{precision}@{flavour}", name=name, opener="engine", options=options)
