"""Effects of half precision on results: the fp16 and bf16 graphs on a CPU, rounded tensor by tensor, against fp32.

    python -m glam_bench.half_parity demo --bundle demo/bundle demo/exam

Each view goes through the fp32 graphs and through the half graphs with FP32 sums (precision/half.py). The results say,
for each precision and K, whether the gate would pass, how many views keep their patches, Dice of the fused map at 0.5,
the largest differences, and which part they belong to where a view is not within the gate's limits. They go into
half_parity.json in the current folder, or into the file of --out; earlier results of the same name are replaced.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from glam_bench import machine
from glam_bench.opening import pipeline_of
from glam_bench.parity import case, summary
from glam_deploy.agreement.answers import answer
from glam_deploy.bundle import Bundle, graph_file, open_bundle
from glam_deploy.cli import main as command_line
from glam_deploy.durable import write_whole
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.engines.registry import open_engines
from glam_deploy.input_files import find_inputs
from glam_deploy.installation import require
from glam_deploy.precision import PRECISIONS, Precision
from glam_deploy.preprocess import from_standardized, prepare
from glam_deploy.reading import in_file, read
from glam_deploy.records import NetworkInput, Source

RESULTS = Path("half_parity.json")


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute, print and write."""
    options = _options(arguments)
    require("export", user="half_parity")
    bundle, views = open_bundle(options.bundle), [_view(path, options) for path in find_inputs(options.images)]
    rows = {f"k={k}": parity(bundle, views, k) for k in options.patches}
    known = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    known[options.name] = {"machine": machine.facts(), "weights": bundle.manifest.checkpoint.sha256, **rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.out, f"{json.dumps(known, indent=2)}\n".encode())
    for k, row in rows.items():
        sys.stdout.writelines(_line(k, precision, found) for precision, found in row.items())


def parity(bundle: Bundle, views: Sequence[NetworkInput], patches: int) -> dict[Precision, dict[str, Any]]:
    """Each half precision of the bundle's graphs against fp32, on the same views."""
    from glam_export.precision.half import rounded_engines

    reference = open_engines("onnx", bundle, EngineOptions())
    expected = [answer(pipeline_of(reference, patches)(view)) for view in views]
    found = {}
    for precision in _halves(bundle):
        opened = OpenedEngines(
            engines={**reference.engines, **rounded_engines(bundle, precision)},
            identity=replace(reference.identity, name=precision),
        )
        pipeline = pipeline_of(opened, patches)
        local = opened.engines["local"]
        pairs = zip(views, expected, strict=True)
        found[precision] = summary([case(pipeline, local, v, e, bundle.network) for v, e in pairs])
    return found


def _halves(bundle: Bundle) -> list[Precision]:
    return [p for p in PRECISIONS if p != "fp32" and graph_file("local", p) in bundle.files]


def _view(path: Path, options: argparse.Namespace) -> NetworkInput:
    if options.standardized:
        return from_standardized(np.load(path), source=Source(name=path.name, kind="npy"))
    with in_file(path):
        return prepare(read(path, view=options.view))


def _line(k: str, precision: str, found: Mapping[str, Any]) -> str:
    dice = ", ".join(
        f"{name} {'-' if value is None else f'{value:.4f}'}" for name, value in found["worst_dice"].items()
    )
    views = len(found["cases"])
    return f"{k} {precision}: same patches {found['same_patches']} of {views}, worst Dice {dice}\n"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m glam_bench.half_parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help="key of these weights and views in the file of results")
    parser.add_argument("images", type=Path, nargs="+", help="images or folders of them")
    parser.add_argument("--bundle", type=Path, default=Path("demo/bundle"), help="folder of the bundle [demo/bundle]")
    parser.add_argument("--patches", type=int, nargs="+", default=[1], metavar="K", help="patches of a view, 1..6 [1]")
    parser.add_argument("--view", help="of images whose names contain none")
    parser.add_argument("--standardized", action="store_true", help="npy files that are the network's input already")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of the results [half_parity.json]")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    command_line.run(main)
