"""`glam-deploy bench`: the ladder, the roof, the files; then bench.json and bench.html."""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from glam_bench import machine
from glam_bench.bench import watch, windows
from glam_bench.bench.files import EXAM
from glam_bench.bench.gates import frontier, with_gates
from glam_bench.bench.images import SEED, demo_exam, image_name, standardized
from glam_bench.bench.ladder import Ladder, Start, Tell
from glam_bench.bench.notices import notices
from glam_bench.bench.roofline import roofline
from glam_bench.bench.rungs import plan
from glam_bench.bench.schema import SCHEMA_VERSION, Files, Load, Noise, Results, Roofline, Rung
from glam_bench.bench.settings import Settings
from glam_bench.bench.worker import Worker
from glam_bench.gpu_check.smi import snapshot
from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.registry import AUTO, OWNERS
from glam_deploy.engines.selection import check_asked, choose
from glam_deploy.errors import BackendError, BackendUnavailable

ENVIRONMENT = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENVINO_", "ORT_")
"""Beginnings of variables that change how fast libraries are."""
PEAKS_S, FILES_S = 300.0, 1800.0

T = TypeVar("T")


def bench(settings: Settings, tell: Tell, start: Start = Worker) -> Results:
    """Measure everything.

    Raises UsageError (no bundle), BundleError, BackendUnavailable where an engine that was asked for cannot run here,
    other BackendErrors where one fails, InputError for images that cannot be used.
    """
    bundle = open_bundle(settings.bundle)
    settings = _without_auto(settings, bundle)
    _check_engines(settings, bundle)
    before, ticks, slowed = watch.load(), watch.processor_time(), watch.throttled()
    with tempfile.TemporaryDirectory(prefix="glam-bench.") as folder:
        work = Path(folder)
        images = _images(settings, work, tell)
        made = standardized(images[: settings.pace.images], work)
        plans = plan(settings)
        rungs = Ladder(settings, made, work, start, tell, network=bundle.network).climb(plans)
        ladder = with_gates(rungs, plans, bundle)
        lost: list[str] = []
        roof = _or_none("roofline", lost, lambda: _roofline(settings, ladder, work, start, tell))
        files = _or_none("files", lost, lambda: _files(settings, images, work, start, tell)) if settings.files else None
    load = Load(before=before, after=watch.load(), stolen=watch.stolen(ticks, watch.processor_time()))
    return Results(
        schema=SCHEMA_VERSION,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine.facts() | ({"gpu": gpu} if (gpu := snapshot(0)) else {}),
        bundle=_bundle_facts(bundle),
        settings=_settings(settings, made),
        ladder=ladder,
        roofline=roof,
        files=files,
        frontier=frontier(bundle),
        noise=_noise(ladder),
        load=load,
        notices=[*notices(ladder, load, slowed=(slowed, watch.throttled())), *lost],
    )


def _without_auto(settings: Settings, bundle: Bundle) -> Settings:
    """With the engine that "auto" means for this bundle on this machine in its place."""
    if "auto" not in settings.engines:
        return settings
    options = EngineOptions(threads=settings.threads, flavour=settings.flavour)
    meant = choose(bundle, options).engine if bundle.gates else AUTO
    engines = (meant if name == "auto" else name for name in settings.engines)
    return replace(settings, engines=tuple(dict.fromkeys(engines)))


def _check_engines(settings: Settings, bundle: Bundle) -> None:
    """Raises what is known of the engines that were asked for before the exam is made and PyTorch runs."""
    for name in settings.engines:
        options = EngineOptions(threads=settings.threads, flavour=settings.flavour)
        flavour = settings.flavour if "flavour" in OWNERS[name].options else None
        try:
            check_asked(name, bundle, replace(options, flavour=flavour))
        except BackendUnavailable as error:
            raise BackendUnavailable(f"{name!r} cannot run here. {error}") from error


def write(results: Results, path: Path) -> None:
    """Replace the file as a whole, so that no one meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", "utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _images(settings: Settings, work: Path, tell: Tell) -> Sequence[Path]:
    if settings.images:
        return settings.images
    tell("making the demo exam: views of 12 megapixels, JPEG 2000 lossless")
    (work / "exam").mkdir()
    return demo_exam(work / "exam", EXAM if settings.files else settings.pace.images)


def _roofline(settings: Settings, ladder: Sequence[Rung], work: Path, start: Start, tell: Tell) -> Roofline:
    tell("peaks of this machine")
    pace = settings.pace
    with start(work / "peaks.log") as worker:
        peaks: Any = worker.ask("peaks", within_s=PEAKS_S, matrix_side=pace.matrix_side, copy_bytes=pace.copy_bytes)
        counted = worker.ask("arithmetic", within_s=PEAKS_S, bundle=str(settings.bundle))
    return roofline(ladder, counted, peaks, settings.patches)


def _files(settings: Settings, images: Sequence[Path], work: Path, start: Start, tell: Tell) -> dict[str, Files]:
    tell(f"from files to results with {settings.engines[0]}")
    with start(work / "files.log") as worker:
        return worker.ask(
            "files",
            within_s=FILES_S,
            bundle=str(settings.bundle),
            engine=settings.engines[0],
            flavour=settings.flavour,
            patches=settings.patches,
            threads=settings.threads,
            images=[str(image.resolve()) for image in images],
            out=str(work),
        )


def _or_none(what: str, lost: list[str], measure: Callable[[], T]) -> T | None:
    """What cannot be measured is told; the rest of the bench is worth as much without it."""
    try:
        return measure()
    except BackendError as error:
        lost.append(f"{what}: not measured, {error}")
        return None


def _noise(ladder: Sequence[Rung]) -> Noise:
    found = [rung["latency_ms"]["noise"] for rung in ladder if rung["latency_ms"]]
    return Noise(relative=max(found), how=windows.HOW)


def _bundle_facts(bundle: Bundle) -> dict[str, str]:
    return {"id": bundle.id, "folder": bundle.folder.name, "checkpoint": bundle.manifest.checkpoint.sha256}


def _settings(settings: Settings, made: Sequence[Path]) -> dict[str, Any]:
    return {
        "patches": settings.patches,
        "images": [image_name(path) for path in made],
        "exam": "named by the user" if settings.images else "phantom, 4096 x 3072, JPEG 2000 lossless",
        "engines": list(settings.engines),
        "threads": settings.threads,
        "windows": settings.pace.least_windows,
        "runs": settings.pace.least_runs,
        "seed": SEED,
        "environment": {k: v for k, v in os.environ.items() if k.startswith(ENVIRONMENT)},
    }
