"""`glam-deploy archive`."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import Progress

from glam_deploy.bundle import Trust
from glam_deploy.cli import console
from glam_deploy.cli.inputs import print_passed_over
from glam_deploy.cli.options import (
    Decorator,
    DocumentedCommand,
    EngineChoice,
    FilePath,
    bundle_option,
    digest_option,
    engine_option,
    flavour_option,
    for_processing_option,
    grouped,
    out_option,
    patches_of_view_option,
    threads_option,
    trusted_key_option,
    ungated_option,
)
from glam_deploy.cli.progress import KEPT, Tally
from glam_deploy.errors import UsageError, counted
from glam_deploy.installation import page, require

if TYPE_CHECKING:
    from glam_deploy.archive.driver import Driver
    from glam_deploy.archive.plan import RunPlan
    from glam_deploy.archive.sources.base import Source

OUTCOMES = ("done", "skipped", "failed", "duplicate", "excluded", "unreadable", KEPT)
"""The order of the counts in the last line."""

MOST_READERS = 64
"""Largest number of reading processes for a pipeline. Each takes about 0.5 GB, with its decoder and the two views that
it may hold, and 64 decode more views in a second than a GPU computes."""


@dataclass(frozen=True, kw_only=True)
class ArchiveOptions:
    """Options of the command alone."""

    ray_address: str | None = None
    write: tuple[str, ...] = ()
    readers: int | None = None
    limit: int | None = None
    retry_failed: bool = False
    for_processing: bool = False
    where: tuple[str, ...] = ()
    pseudonyms: Path | None = None
    modalities: tuple[str, ...] = ()
    authority: Path | None = None

    @property
    def objects(self) -> list[str]:
        """Kinds of DICOM objects among `write`."""
        return [kind for kind in ("seg", "sr") if kind in self.write]


archive_options: Decorator = grouped(
    "options",
    ArchiveOptions,
    click.option("--ray", "ray_address", metavar="ADDRESS", help="Join the Ray cluster whose head is at host:port."),
    click.option(
        "--write",
        type=click.Choice(["npz", "png", "seg", "sr"]),
        multiple=True,
        help="Write a file for each instance with a result too: arrays (npz), overlay (png), DICOM Segmentation (seg), "
        "Measurement Report (sr). May be repeated.",
    ),
    click.option(
        "--readers",
        type=click.IntRange(min=1, max=MOST_READERS),
        help="Reading processes for each pipeline [default: 1 on a CPU, 8 on a GPU].",
    ),
    click.option("--limit", type=click.IntRange(min=1), help="Try at most so many entries that have no row yet."),
    click.option("--retry-failed", is_flag=True, help="Try again what failed or could not be read in earlier runs."),
    for_processing_option,
    click.option(
        "--where",
        metavar="CONDITION",
        multiple=True,
        help="Only images whose header fulfils it, such as Manufacturer=HOLOGIC* or StudyDate>=2020. May be repeated.",
    ),
    click.option(
        "--pseudonyms",
        type=FilePath(),
        metavar="KEYFILE",
        help="Identifiers as pseudonyms made with the key in this file.",
    ),
    click.option(
        "--modality",
        "modalities",
        multiple=True,
        help="Series of a DICOMweb server with this modality [default: MG]. May be repeated.",
    ),
    click.option(
        "--authority",
        type=FilePath(),
        metavar="PEM",
        help="CA certificates for a DICOMweb server [default: those of this machine].",
    ),
)
choice_options: Decorator = grouped(
    "choice",
    EngineChoice,
    bundle_option,
    engine_option,
    patches_of_view_option,
    threads_option,
    flavour_option,
    ungated_option,
    trusted_key_option,
    digest_option,
)


@click.command("archive", cls=DocumentedCommand)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@choice_options
@out_option(Path("archive"), "Folder of the tables.")
@archive_options
@click.option("--dry-run", is_flag=True, help="Count what is new and what has a row; compute nothing.")
def command(sources: tuple[str, ...], out: Path, choice: EngineChoice, options: ArchiveOptions, dry_run: bool) -> int:
    """Find lesions in all images of an archive, on one machine or a Ray cluster, into Parquet tables.

    A SOURCE is a folder, a file, a zip or tar file, a list of paths (.csv, .parquet, .txt), a URL such as s3://... or a
    DICOMweb server (dicomweb+https://...). One row for each distinct image in views/, one for each file in files/. The
    same command continues after an interruption, and does nothing if all is done. docs/archive.md explains tables,
    resumption and clusters, docs/sources.md the sources.
    """
    _require_identifiers(options)
    require("ray", *(["dicom"] if options.objects else []))
    from glam_deploy.archive.sources import open_source

    source = open_source(sources, modalities=options.modalities, authority=options.authority, results=out)
    if next(iter(source.entries()), None) is None:
        raise UsageError(f"{' '.join(sources)} has no images: check the source")
    plan = _plan(source, out, choice, options)
    return _dry_run(plan) if dry_run else _run(plan, options.ray_address)


def _require_identifiers(options: ArchiveOptions) -> None:
    """Raises UsageError for DICOM objects, which belong to a patient, together with pseudonyms."""
    if options.objects and options.pseudonyms is not None:
        raise UsageError(
            f"--write {options.objects[0]} copies name and ID of the patient from the image, which --pseudonyms hides: "
            "leave out one of them, or give images that were de-identified before"
        )


def _plan(source: "Source", out: Path, choice: EngineChoice, options: ArchiveOptions) -> "RunPlan":
    """The plan of the run, before Ray is started. Raises as `bundle.open_members`."""
    from glam_deploy.archive.actors import EnginePlan
    from glam_deploy.archive.identifiers import Identifiers, read_key
    from glam_deploy.archive.plan import RunPlan
    from glam_deploy.archive.reader import EntryReader
    from glam_deploy.archive.shipping import shipped
    from glam_deploy.archive.where import parse_where
    from glam_deploy.engines.registry import OWNERS

    trust = choice.trust
    bundle = shipped(choice.folder, trust)
    engine = EnginePlan(
        engine=choice.engine,
        patches=choice.patches,
        threads=choice.threads,
        flavour=choice.flavour,
        ungated=choice.ungated,
        trust=Trust(keys=trust.keys, digest=bundle.id),
    )
    owner = OWNERS.get(choice.engine)
    return RunPlan(
        source=source,
        dest=out.absolute(),
        bundle=bundle,
        engine=engine,
        reader=EntryReader(
            source=source,
            for_processing=options.for_processing,
            where=parse_where(options.where) if options.where else None,
            patients=options.pseudonyms is not None,
            headers=bool(options.objects),
        ),
        identifiers=Identifiers() if options.pseudonyms is None else read_key(options.pseudonyms),
        readers=options.readers,
        use_gpus=owner is None or owner.gpu,
        write=frozenset(options.write),
        limit=options.limit,
        retry_failed=options.retry_failed,
    )


def _dry_run(plan: "RunPlan") -> int:
    """Print how many entries are new."""
    from glam_deploy.archive.plan import PASSED_OVER, REPEATED, survey

    with console.working("counting"):
        counts = survey(plan)
    noun = "entry" if counts["new"] == 1 else "entries"
    again = f", {counts[REPEATED]} named again" if counts[REPEATED] else ""
    print_passed_over(counts[PASSED_OVER], "of the source")
    console.out.print(f"{counts['new']} {noun} to try, {counts[KEPT]} with a row{again}; nothing was computed")
    return 0


def _run(plan: "RunPlan", address: str | None) -> int:
    from glam_deploy.archive.cluster import joined_cluster, local_cluster
    from glam_deploy.archive.dataset import make_folder
    from glam_deploy.archive.driver import Driver
    from glam_deploy.archive.summary import write_summary

    make_folder(plan.dest)  # before Ray, which takes seconds to start
    with ExitStack() as stack:
        with console.working("starting Ray"):
            ray = stack.enter_context(joined_cluster(address) if address else local_cluster())
        bar = stack.enter_context(console.progress(rate=True))
        driver = Driver(ray, plan, shared=address is not None, progress=_Display(bar))
        try:
            counts = driver.run()
        except BaseException:
            if driver.counts:
                click.echo(f"{_summary(driver.counts)}; to go on, give the same command again", err=True)
            raise
        finally:
            _tell_damage(driver, plan.dest)
            _tell_ambiguous(driver.ambiguous)
    summary = write_summary(plan.dest)
    print_passed_over(driver.passed_over, "of the source")
    if driver.unlimited:
        reason = f"decoders of a node have {driver.unlimited}"
        console.err.print(f"{reason}: see {page('security.md')}, Decoders", soft_wrap=True)
    if driver.without_objects:
        noun = "image has" if driver.without_objects == 1 else "images have"
        console.err.print(
            f"{driver.without_objects} {noun} a result, but no SEG or SR: reasons in views, with no-dicom-object",
            soft_wrap=True,
        )
    if not console.is_quiet():
        text = f"{_summary(counts)}; tables in {plan.dest}/*/bundle={driver.partition}, summary in {summary}"
        console.out.print(text, soft_wrap=True)
    return 1 if counts["failed"] or counts["unreadable"] or driver.lost or not counts.total() else 0


def _tell_damage(driver: "Driver", dest: Path) -> None:
    """Print which parts were damaged, and how many of their rows are still to be computed; with --quiet too."""
    for part in driver.repaired:
        click.echo(
            f"{dest / part} is missing or damaged: its rows are computed again as far as the sources of this run have "
            "them. A damaged file was renamed to .damaged-...; delete it, and check the disk",
            err=True,
        )
    if driver.lost:
        entries = "1 entry has" if driver.lost == 1 else f"{driver.lost} entries have"
        click.echo(
            f"{entries} no row, because a part was missing or damaged, and this run did not compute them: give all "
            "sources of the earlier runs, without --limit. If they do not exist any more, delete "
            f"{dest}/ledger-{driver.partition}.db to accept the loss",
            err=True,
        )


def _tell_ambiguous(images: int) -> None:
    """Print how many images of the data set have the UID of another one; with --quiet too."""
    if images:
        click.echo(
            f"{counted(images, 'image')} with the SOPInstanceUID of another image with another result, and without SEG "
            "and SR: see ambiguous-uid in views. Give each image a UID of its own at the source, or leave out the "
            "wrong one, and use another --out",
            err=True,
        )


def _summary(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts.get(name, 0)} {name}" for name in OUTCOMES)


class _Display:
    """The bar on a terminal, and plain lines without one."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._shown_at = bar, 0.0
        self._task = bar.add_task("", total=None, pace="")
        self._tally = Tally(total=0)

    def __call__(self, driver: "Driver") -> None:
        """Show the counts of a run, at most five times a second."""
        if time.monotonic() - self._shown_at < 0.2:
            return
        self._shown_at, tally = time.monotonic(), self._tally
        tally.begin()
        tally.counts, total = driver.counts, driver.total
        tally.total = tally.finished if total is None else total
        pace = tally.pace if total is not None else "counting"
        self._bar.update(self._task, completed=tally.finished, total=total, pace=pace)
        if not console.err.is_interactive and (line := tally.plain_line()):
            console.err.print(f"{line}; {_summary(tally.counts)}", soft_wrap=True)
