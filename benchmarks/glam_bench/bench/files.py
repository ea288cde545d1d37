"""From files to results on disk, with one engine: each step by itself, then all of `glam-deploy run`."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from glam_bench.bench.schema import Files
from glam_deploy.bundle import open_bundle
from glam_deploy.cli.job import Job, ReadOptions
from glam_deploy.cli.run import run_job
from glam_deploy.engines.base import EngineOptions, Stopwatch
from glam_deploy.engines.registry import open_engines
from glam_deploy.errors import BackendRunError
from glam_deploy.outputs.writer import OutputOptions, unique_stems, write_result
from glam_deploy.preprocess import prepare
from glam_deploy.reading import read
from glam_deploy.runtime.pipeline import Pipeline

EXAM = 4
STEPS = ("decode", "preprocess", "network", "output")


def measure(
    *,
    bundle: str,
    engine: str,
    flavour: str | None,
    patches: int,
    threads: int | None,
    images: list[str],
    out: str,
) -> dict[str, Any]:
    """ "one view" (the first), "exam" (the first four, where there are so many) and "folder" (those twice) -> Files."""
    options = EngineOptions(threads=threads, flavour=flavour)
    opened = open_engines(engine, open_bundle(Path(bundle)), options)
    pipeline, room = Pipeline(opened, patches=patches, provenance={}), Path(out)
    views = [Path(image) for image in images[:EXAM]]
    _steps(pipeline, views[0], room / "warm-up")
    steps = {path: _steps(pipeline, path, room / "steps") for path in views}
    kinds = {"one view": views[:1], "exam": views, "folder": [*views, *_twins(views, room / "twins")]}
    if len(views) < EXAM:
        del kinds["exam"]
    return {
        name: _files([steps[path.resolve()] for path in paths], _total_ms(pipeline, paths, room / name))
        for name, paths in kinds.items()
    }


def _steps(pipeline: Pipeline, path: Path, out: Path) -> dict[str, float]:
    """Milliseconds of each step of one file."""
    clock = Stopwatch()
    with clock("decode"):
        mammogram = read(path)
    with clock("preprocess"):
        prepared = prepare(mammogram)
    with clock("network"):
        result = pipeline(prepared)
    with clock("output"):
        write_result(out, path.stem, mammogram.pixels, result, OutputOptions())
    return clock.times_ms


def _total_ms(pipeline: Pipeline, paths: Sequence[Path], out: Path) -> float:
    job = Job(stems=unique_stems(paths), out=out, reading=ReadOptions(), writing=OutputOptions())
    start = perf_counter()
    code = run_job(pipeline, job)
    if code != 0:
        raise BackendRunError(f"`run` over {len(paths)} files ended with {code}: see the reports in {out}")
    return (perf_counter() - start) * 1e3


def _twins(paths: Sequence[Path], folder: Path) -> list[Path]:
    """The same files under other names, which still tell their view."""
    folder.mkdir()
    twins = [folder / path.name for path in paths]
    for twin, path in zip(twins, paths, strict=True):
        twin.symlink_to(path)
    return twins


def _files(steps: Sequence[dict[str, float]], total_ms: float) -> Files:
    decode, preprocess, network, output = (sum(row[step] for row in steps) for step in STEPS)
    slowest = max(decode, network)
    return Files(
        views=len(steps),
        decode_ms=decode,
        preprocess_ms=preprocess,
        network_ms=network,
        output_ms=output,
        total_ms=total_ms,
        slowest_ms=slowest,
        ratio=total_ms / slowest,
    )
