"""The outputs of the PyTorch reference for each case, on the GPU in full FP32, which engines are compared with."""

from pathlib import Path

import numpy as np
import torch

from glam_bench.gpu.plan import GpuContext, GpuOptions
from glam_bench.gpu.torch_engine import load_network, tf32
from glam_bench.images import phantoms
from glam_bench.opening import pipeline_of
from glam_deploy.agreement.answers import Answer, answer
from glam_deploy.agreement.golden import check_golden, golden_patches, read_golden
from glam_deploy.bundle import open_bundle
from glam_deploy.engines.base import OpenedEngines
from glam_deploy.json_records import to_json
from glam_deploy.records import Mammogram, Source, View
from glam_export.torch_engine import network_engines, torch_identity

DEPTHS = (1, 3, 6)
EXAMS = 2


def run(context: GpuContext) -> None:
    """The reference's outputs for the golden case, compared with those of the export on a CPU, then for all cases."""
    device = torch.device("cuda", context.options.device)
    tf32(allowed=False)
    torch.backends.cudnn.deterministic = True
    bundle = open_bundle(context.options.bundle)
    engines = network_engines(load_network(bundle).to(device))
    opened = OpenedEngines(engines=engines, identity=torch_identity({}))
    rows = check_golden(bundle, pipeline_of(opened, golden_patches(bundle)))
    context.add(golden=[to_json(row.as_row()) for row in rows], torch=torch.__version__)
    views = [read_golden(bundle)[0], *phantoms(range(1 if context.options.quick else EXAMS))]
    folder(context.options).mkdir(exist_ok=True)
    for k in DEPTHS[:1] if context.options.quick else DEPTHS:
        pipeline = pipeline_of(opened, k)
        for number, view in enumerate(views):
            arrays = answer(pipeline(view))
            path = folder(context.options) / f"{number:03}.k{k}.npz"
            case = {"case_name": view.source.name, "case_view": view.view.value, "case_pixels": view.pixels}
            np.savez(path, **case, **arrays)  # type: ignore[arg-type]  # its stub takes a bool first
        context.add(**{f"k={k}": {"cases": len(views)}})


def folder(options: GpuOptions) -> Path:
    """One file for each case and K: the view and the arrays of `answers.answer`."""
    return options.work / "reference"


def read(path: Path) -> tuple[Mammogram, Answer]:
    """A case as `run` has written it: the view and the outputs of the reference for it."""
    with np.load(path, allow_pickle=False) as file:
        values = dict(file)
    name, view, pixels = (values.pop(f"case_{key}") for key in ("name", "view", "pixels"))
    source = Source(name=str(name), kind="array")
    return Mammogram(pixels=pixels, view=View(str(view)), source=source), values
