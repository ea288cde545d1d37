"""Costs of one view on a CPU: import, preprocessing, what `run` adds to its graphs, a whole process."""

import io
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from glam_bench.clock import Runs, host_ms, timed
from glam_bench.images import TWELVE_MEGAPIXELS, phantom
from glam_bench.opening import open_engine, pipeline_of
from glam_bench.runner import Context, Options
from glam_deploy.bundle import open_bundle
from glam_deploy.cli.job import Job, ReadOptions, run_job
from glam_deploy.engines.base import OpenedEngines
from glam_deploy.outputs.writer import OutputOptions
from glam_deploy.preprocess import prepare
from glam_deploy.processes import python_command
from glam_deploy.records import NetworkInput, View
from glam_deploy.runtime import host_chain, patching

PAIRS = 9


def run(context: Context[Options]) -> None:
    """The part that the argument names: see `first_light.PARTS`."""
    bundle, folder = context.options.bundle, context.options.work / context.argument
    folder.mkdir()
    mammogram = phantom(0, View.L_MLO, shape=TWELVE_MEGAPIXELS)
    if context.argument == "import_ms":
        context.add(**import_time())
    elif context.argument == "prepare_12_megapixel_ms":
        context.add(**best_and_median(lambda: prepare(mammogram), 20))
    else:
        prepared, image = prepare(mammogram), folder / "input.npy"
        np.save(image, prepared.image)
        whole = context.argument == "whole_process"
        context.add(**(whole_process(bundle, image) if whole else run_cost(bundle, prepared, image)))


def best_and_median(call: Callable[[], object], runs: int) -> dict[str, float]:
    """Milliseconds of a call after one warm-up: best, median, number of runs."""
    times = host_ms(call, Runs.exactly(runs))
    return {"best": min(times), "median": median(times), "runs": runs}


def import_time() -> dict[str, float]:
    """Milliseconds of `import glam_deploy` in a fresh interpreter, less those of one that imports nothing."""
    codes = ("", "import glam_deploy")
    base, ours = (
        best_and_median(lambda code=code: subprocess.run(python_command("-c", code), check=True), PAIRS)["median"]  # type: ignore[misc]
        for code in codes
    )
    return {"median": ours - base, "runs": PAIRS}


def run_cost(bundle: Path, prepared: NetworkInput, image: Path) -> dict[str, Any]:
    """One preprocessed view through all that `run` does for it, against its three graphs called directly.

    The two take turns, so that a drift of the machine's speed affects both. `image`: an npy file of the view.
    """
    opened = open_engine("onnx", open_bundle(bundle))
    pipeline, graphs = pipeline_of(opened, 1), graphs_alone(opened, prepared)
    reading, writing = ReadOptions(standardized=True), OutputOptions()
    job = Job(stems={image: "result"}, out=image.parent, reading=reading, writing=writing)
    with redirect_stdout(io.StringIO()):
        pairs = [(timed(lambda: run_job(pipeline, job))[0], timed(graphs)[0]) for _ in range(PAIRS)]
    return {
        "run_ms": median(a for a, _ in pairs),
        "graphs_ms": median(b for _, b in pairs),
        "ratio": median(a / b for a, b in pairs),
        "pairs": len(pairs),
    }


def graphs_alone(opened: OpenedEngines, prepared: NetworkInput) -> Callable[[], None]:
    """A call that runs the three graphs one after the other, K = 1, on the inputs that they have for a view."""
    images = prepared.image[None, None]
    maps = host_chain.run_global(opened.engines["global"], images)
    patches = patching.select(images, maps, 1, opened.network)
    local = host_chain.run_local(opened.engines["local"], patches)
    fusion = host_chain.fusion_inputs(opened.engines["fusion"].contract, maps, patches, local)

    def graphs() -> None:
        opened.engines["global"].run({"image": images})
        opened.engines["local"].run({"patches": patches.pixels[0]})
        opened.engines["fusion"].run(fusion)

    return graphs


def whole_process(bundle: Path, image: Path) -> dict[str, Any]:
    """`glam-deploy run` on one preprocessed view as a process: wall time and peak memory, start-up included."""
    command = python_command("-m", "glam_deploy", "run", image, "--standardized", "--bundle", bundle)
    command += ["--out", str(image.parent / "whole"), "--json"]
    time_ms, _ = timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr))
    # the process of this measurement has no other child
    return {"wall_ms": time_ms, "peak_memory_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024}
