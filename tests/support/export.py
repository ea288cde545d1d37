"""An exporter on engines that cost nothing, in place of the network and of what runs its graphs."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from glam_deploy.bundle import graph_file
from glam_deploy.engines.base import Engine, OpenedEngines
from glam_deploy.errors import GlamError
from glam_deploy.networks import GLAM_CONCATENATION, STAGES, Stage
from glam_deploy.precision import PRECISIONS, Precision
from glam_export.checkpoint import Checkpoint
from glam_export.exporter import ExportOptions, export_bundle
from glam_export.steps import compare, load, write
from support.bundles import snapshot
from support.engines import fake_engines, fake_identity, small_view

WEIGHTS = Path("weights.pt")
CHAIN = ("patch_locations", "y_global", "y_scale", "y_local", "saliency_global", "saliency_patches")

Half = Literal["fp16", "bf16"]
Form = Precision | Literal["winograd"]


class Wrong:
    """What is added to outputs of the exported graphs, by precision or form and name."""

    def __init__(self) -> None:
        self.offsets: dict[Form, dict[str, float]] = {form: {} for form in (*PRECISIONS, "winograd")}

    def __call__(self, output: str, offset: float, form: Form = "fp32") -> None:
        self.offsets[form][output] = offset

    def engines(self, form: Form) -> dict[Stage, Engine]:
        return fake_engines(wrong=self.offsets[form])

    def open_engines(self, name: str, *ignored: object) -> OpenedEngines:
        return OpenedEngines(
            engines=self.engines("winograd" if name == "onnx-winograd" else "fp32"), identity=fake_identity(name)
        )

    def half_engines(self, precision: Half) -> dict[Stage, Engine]:
        return {stage: engine for stage, engine in self.engines(precision).items() if stage != "fusion"}


def write_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def load_stub(path: Path, *, key: str | None, ignore: tuple[str, ...], network: str | None = None) -> Checkpoint:
    stub: Any = SimpleNamespace(spec=GLAM_CONCATENATION)
    return Checkpoint(network=stub, path=path, sha256="ab" * 32, parameters=7, ignored=ignore, key=key or "", notes=())


def replace_parts(monkeypatch: pytest.MonkeyPatch, faults: Wrong) -> None:
    """Put engines and files that cost nothing into the steps of an export."""
    replaced: Mapping[Any, Mapping[str, Any]] = {
        load: {"load_checkpoint": load_stub},
        write: {
            "graph_modules": lambda net: dict.fromkeys(STAGES),
            "in_precision": lambda module, precision: precision,
            "write_graph": lambda module, stage, path, **options: write_file(path, f"{stage} {module}".encode()),
            "save_weights": lambda net, path: write_file(path, b"weights"),
            "winograd": lambda graph: b"fast " + graph,
        },
        compare: {
            "network_engines": lambda net: fake_engines(),
            "open_engines": faults.open_engines,
            "rounded_engines": lambda bundle, precision: faults.half_engines(precision),
            "phantom_view": lambda seed, view: SimpleNamespace(pixels=small_view().pixels[:, ::-1]),
        },
    }
    for module, names in replaced.items():
        for name, substitute in names.items():
            monkeypatch.setattr(module, name, substitute)


def assert_fails(place: Path, error: type[GlamError], options: ExportOptions | None = None) -> str:
    """The message of a failed export, which left the folder around `place` as it was."""
    before = snapshot(place.parent), sorted(place.parent.rglob("*"))
    with pytest.raises(error) as caught:
        export_bundle(WEIGHTS, place, options or ExportOptions())
    assert (snapshot(place.parent), sorted(place.parent.rglob("*"))) == before
    return str(caught.value)


def graph_files(*precisions: Precision) -> set[str]:
    return {graph_file(stage, precision) for stage in STAGES for precision in precisions}
