"""The first figures: import, preprocessing, what `run` adds to its graphs, memory.

    make bench      (or: python -m glam_bench.first_light --bundle demo/bundle)

Each figure is a ratio or a time with the machine, the versions and the number of runs beside it, written to
first_light.json in the current folder, or into the file of --out.
"""

import argparse
import io
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from glam_bench import machine
from glam_deploy.bundle import open_bundle
from glam_deploy.cli import main as command_line
from glam_deploy.cli.job import Job, ReadOptions
from glam_deploy.cli.run import run_job
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.registry import open_engines
from glam_deploy.outputs.writer import OutputOptions
from glam_deploy.patches import host
from glam_deploy.preprocess import prepare
from glam_deploy.processes import python_command
from glam_deploy.records import Mammogram, NetworkInput, View
from glam_deploy.runtime import host_chain
from glam_deploy.runtime.pipeline import Pipeline
from glam_export.demo.phantom import phantom_view

RESULTS = Path("first_light.json")
TWELVE_MEGAPIXELS = (4096, 3072)
PAIRS = 9


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("demo/bundle"))
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of the results [first_light.json]")
    options = parser.parse_args(arguments)
    pixels = phantom_view(0, View.L_MLO, shape=TWELVE_MEGAPIXELS).pixels
    mammogram = Mammogram(pixels=pixels, view=View.L_MLO)
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "input.npy"
        prepared = prepare(mammogram)
        np.save(image, prepared.image)
        figures = {
            "import_ms": import_time(),
            "prepare_12_megapixel_ms": timed(lambda: prepare(mammogram), 20),
            "run": run_cost(options.bundle, prepared, image),
            "whole_process": whole_process(options.bundle, image),
        }
    text = json.dumps({"machine": machine.facts(), "figures": figures}, indent=2)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text + "\n", "utf-8")
    sys.stdout.write(text + "\n")


def timed(call: Callable[[], object], runs: int) -> dict[str, float]:
    """Wall time of a call in milliseconds after one warm-up: best, median, runs."""
    call()
    times = [_once(call) for _ in range(runs)]
    return {"best": min(times), "median": median(times), "runs": runs}


def import_time() -> dict[str, float]:
    """`import glam_deploy` in a fresh interpreter, less an interpreter that imports nothing."""
    base = timed(lambda: subprocess.run(python_command("-c", ""), check=True), 9)["median"]
    ours = timed(lambda: subprocess.run(python_command("-c", "import glam_deploy"), check=True), 9)["median"]
    return {"median": ours - base, "runs": 9}


def run_cost(bundle: Path, prepared: NetworkInput, image: Path) -> dict[str, Any]:
    """One preprocessed view through all that `run` does for it, against its three graphs called directly.

    The two take turns, so that a drift of the machine's speed meets both.
    """
    opened_bundle = open_bundle(bundle)
    opened = open_engines("onnx", opened_bundle, EngineOptions())
    pipeline = Pipeline(opened, patches=1, provenance={})
    images = prepared.image[None, None]
    maps = host_chain.run_global(opened.engines["global"], images)
    patches = host.select(images, maps, 1, opened.network)
    local = host_chain.run_local(opened.engines["local"], patches)
    fusion = host_chain.fusion_inputs(opened.engines["fusion"].contract, maps, patches, local)
    reading, writing = ReadOptions(standardized=True), OutputOptions()
    job = Job(stems={image: "result"}, out=image.parent, reading=reading, writing=writing)

    def graphs() -> None:
        opened.engines["global"].run({"image": images})
        opened.engines["local"].run({"patches": patches.pixels[0]})
        opened.engines["fusion"].run(fusion)

    with redirect_stdout(io.StringIO()):
        pairs = [(_once(lambda: run_job(pipeline, job)), _once(graphs)) for _ in range(PAIRS)]
    return {
        "run_ms": median(a for a, _ in pairs),
        "graphs_ms": median(b for _, b in pairs),
        "ratio": median(a / b for a, b in pairs),
        "pairs": len(pairs),
    }


def whole_process(bundle: Path, image: Path) -> dict[str, Any]:
    """`glam-deploy run` on one preprocessed view as a process: wall time and peak memory, start-up included."""
    command = python_command("-m", "glam_deploy", "run", image, "--standardized", "--bundle", bundle)
    command += ["--out", str(image.parent / "whole"), "--json"]
    time_ms = _once(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    # of all children so far this one is by far the largest
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"wall_ms": time_ms, "peak_memory_mb": peak_mb}


def _once(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return (perf_counter() - start) * 1e3


if __name__ == "__main__":
    command_line.run(main)
