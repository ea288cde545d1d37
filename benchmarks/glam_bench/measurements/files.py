"""From files to results on disk, with the first engine: each step by itself, then all of `glam-deploy run`."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from glam_bench.ladder.rungs import engine_name
from glam_bench.ladder.settings import EXAM, BenchContext
from glam_bench.opening import open_engine, pipeline_of
from glam_bench.schema import Files
from glam_deploy.bundle import open_bundle
from glam_deploy.cli.job import Job, ReadOptions, run_job
from glam_deploy.engines.base import Stopwatch
from glam_deploy.errors import BackendRunError, counted
from glam_deploy.outputs.writer import OutputOptions, unique_stems, write_result
from glam_deploy.preprocess import prepare
from glam_deploy.reading import in_file, read
from glam_deploy.runtime.pipeline import Pipeline

STEPS = ("decode", "preprocess", "network", "output")


def run(context: BenchContext) -> None:
    """Times of one view (the first), an exam (the first four, where there are so many) and a folder (those twice)."""
    settings, work = context.options, context.options.work
    name = engine_name(settings.engines[0], settings.flavour)
    opened = open_engine(name, open_bundle(settings.bundle), threads=settings.threads)
    pipeline, views = pipeline_of(opened, settings.patches), [path.resolve() for path in settings.images[:EXAM]]
    _steps(pipeline, views[0], work / "warm-up")
    steps = {path: _steps(pipeline, path, work / "steps") for path in views}
    kinds = {"one view": views[:1], "exam": views, "folder": [*views, *_twins(views, work / "twins")]}
    if len(views) < EXAM:
        del kinds["exam"]
    for kind, paths in kinds.items():
        context.add(
            **{kind: _files([steps[path.resolve()] for path in paths], _total_ms(pipeline, paths, work / kind))}
        )


def _steps(pipeline: Pipeline, path: Path, out: Path) -> dict[str, float]:
    """Milliseconds of each step of one file."""
    clock = Stopwatch()
    with in_file(path):
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
        raise BackendRunError(f"`run` over {counted(len(paths), 'file')} ended with {code}: see the reports in {out}")
    return (perf_counter() - start) * 1e3


def _twins(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Links to the same files in another folder, under the same names, which contain the view."""
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
