"""The profile `bench`: what each way of running a bundle costs on this machine, and what it changes in the results.

Run by `glam-deploy bench`, which writes bench.json and bench.html.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from glam_bench import machine, meters, runner
from glam_bench.images import SEED, demo_exam
from glam_bench.ladder import rungs, windows
from glam_bench.ladder.roofline import roofline
from glam_bench.ladder.settings import EXAM, Settings
from glam_bench.ladder.verdicts import frontier, notices, with_gates
from glam_bench.record import Record, write_json
from glam_bench.runner import Measurement, Profile
from glam_bench.schema import SCHEMA_VERSION, Load, Noise, Results, Roofline, Rung
from glam_bench.smi import snapshot
from glam_bench.worker import Start, Tell, Worker
from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.registry import AUTO, OWNERS
from glam_deploy.engines.selection import check_asked, choose
from glam_deploy.errors import BackendUnavailable

ENVIRONMENT = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENVINO_", "ORT_")
"""Beginnings of variables that change how fast libraries are."""
PEAKS_S, FILES_S = 600.0, 1800.0


def plan(settings: Settings, record: Record) -> Iterator[Measurement]:
    """The ladder, the peaks of the machine, then from files to results."""
    yield Measurement(module="ladder", apart=False, required=True, title="the ladder")
    yield Measurement(module="peaks", limit_s=PEAKS_S, title="peaks of this machine")
    if settings.files:
        yield Measurement(module="files", limit_s=FILES_S, title=f"from files to results with {settings.engines[0]}")


PROFILE = Profile(module="glam_bench.bench", options=Settings, plan=plan)


def bench(settings: Settings, tell: Tell, start: Start = Worker) -> Results:
    """Run the profile; returns the content of bench.json.

    Raises UsageError (no bundle), BundleError, BackendUnavailable where an engine that was asked for cannot run here,
    other BackendErrors where one fails, InputError for images that cannot be used.
    """
    bundle = open_bundle(settings.bundle)
    asked = _without_auto(settings, bundle)
    _check_engines(asked, bundle)
    before, ticks, slowed = meters.load(), meters.processor_time(), meters.throttled()
    with tempfile.TemporaryDirectory(prefix="glam-bench.") as folder:
        options = replace(asked, work=Path(folder), images=_images(asked, Path(folder), tell))
        record = Record.create(options.work / "record.json", options=options.as_json())
        for _ in runner.run(PROFILE, options, record, tell=tell, start=start):
            pass
    load = Load(before=before, after=meters.load(), stolen=meters.stolen(ticks, meters.processor_time()))
    ladder = with_gates(record.results("ladder")["rungs"], rungs.plan(asked), bundle)
    return Results(
        schema=SCHEMA_VERSION,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine.facts() | ({"gpu": gpu} if (gpu := snapshot(0)) else {}),
        bundle=_bundle_facts(bundle),
        settings=_settings(asked, record.results("ladder")["images"]),
        ladder=ladder,
        roofline=_roofline(record, ladder, asked.patches),
        files=dict(record.results("files")) if _is_done(record, "files") else None,
        frontier=frontier(bundle),
        noise=_noise(ladder),
        load=load,
        notices=[*notices(ladder, load, slowed=(slowed, meters.throttled())), *_not_measured(record)],
    )


def write(results: Results, path: Path) -> None:
    """Write bench.json as a whole."""
    write_json(path, results)


def _without_auto(settings: Settings, bundle: Bundle) -> Settings:
    """The settings with "auto" replaced by the engine that it chooses for this bundle on this machine."""
    if "auto" not in settings.engines:
        return settings
    options = EngineOptions(threads=settings.threads, flavour=settings.flavour)
    meant = choose(bundle, options).engine if bundle.gates else AUTO
    engines = (meant if name == "auto" else name for name in settings.engines)
    return replace(settings, engines=tuple(dict.fromkeys(engines)))


def _check_engines(settings: Settings, bundle: Bundle) -> None:
    """Raises BackendUnavailable or BundleError for an engine that cannot run, before anything is made."""
    for name in settings.engines:
        options = EngineOptions(threads=settings.threads, flavour=settings.flavour)
        flavour = settings.flavour if "flavour" in OWNERS[name].options else None
        try:
            check_asked(name, bundle, replace(options, flavour=flavour))
        except BackendUnavailable as error:
            raise BackendUnavailable(f"{name!r} cannot run here: {error}") from error


def _images(settings: Settings, work: Path, tell: Tell) -> tuple[Path, ...]:
    if settings.images:
        return tuple(path.resolve() for path in settings.images)
    tell("making the demo exam: views of 12 megapixels, JPEG 2000 lossless")
    (work / "exam").mkdir()
    return tuple(demo_exam(work / "exam", EXAM if settings.files else settings.pace.images))


def _roofline(record: Record, ladder: Sequence[Rung], patches: int) -> Roofline | None:
    found: Any = record.results("peaks")
    return roofline(ladder, found["arithmetic"], found["peaks"], patches) if _is_done(record, "peaks") else None


def _is_done(record: Record, step: str) -> bool:
    return step in record.steps and record.steps[step]["status"] == "done"


def _not_measured(record: Record) -> Iterator[str]:
    """A notice for each part of the results that is missing because its measurement failed."""
    for step, part in (("peaks", "roofline"), ("files", "files")):
        if step in record.steps and not _is_done(record, step):
            yield f"{part}: not measured, {record.reason(step)}"


def _noise(ladder: Sequence[Rung]) -> Noise:
    found = [rung["latency_ms"]["noise"] for rung in ladder if rung["latency_ms"]]
    return Noise(relative=max(found), how=windows.HOW)


def _bundle_facts(bundle: Bundle) -> dict[str, str]:
    return {"id": bundle.id, "folder": bundle.folder.name, "checkpoint": bundle.manifest.checkpoint.sha256}


def _settings(settings: Settings, images: Sequence[str]) -> dict[str, Any]:
    return {
        "patches": settings.patches,
        "images": list(images),
        "exam": "named by the user" if settings.images else "phantom, 4096 x 3072, JPEG 2000 lossless",
        "engines": list(settings.engines),
        "threads": settings.threads,
        "windows": settings.pace.least_windows,
        "runs": settings.pace.least_runs,
        "seed": SEED,
        "environment": {k: v for k, v in os.environ.items() if k.startswith(ENVIRONMENT)},
    }
