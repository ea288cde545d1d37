"""`glam-deploy gate`."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import click

from glam_deploy.agreement.limits import Limits, parse_limits
from glam_deploy.agreement.verdict import Verdict, judge
from glam_deploy.bundle import Bundle, GateEntry, open_members
from glam_deploy.cli import console
from glam_deploy.cli.gate_images import ImageOptions, ImageSet, image_set, require_exam
from glam_deploy.cli.gate_table import show
from glam_deploy.cli.options import (
    DocumentedCommand,
    EngineChoice,
    FilePath,
    bundle_option,
    candidate_option,
    dataset_option,
    device_option,
    flavour_option,
    grouped,
    out_option,
    patches_of_view_option,
    split_option,
    standardized_option,
    threads_option,
    view_option,
)
from glam_deploy.cli.sign import remark_on_signature
from glam_deploy.durable import write_whole
from glam_deploy.engines.admission import REFERENCES, newest_gate
from glam_deploy.errors import BackendRunError, Caller, InputError, NotForThisNetwork, UsageError, disk_reason
from glam_deploy.gate.metrics import trial_metrics
from glam_deploy.gate.pictures import picture
from glam_deploy.gate.trial import EnginePair, Examined, ImageTrial, check_pair, examine, open_pair
from glam_deploy.gate.verdict import GateVerdict, record, require_recordable
from glam_deploy.json_records import to_json
from glam_deploy.outputs.overlay import to_png
from glam_deploy.outputs.writer import require_writable
from glam_deploy.toml_text import TomlFault, read_toml

UNREADABLE, FAILED = 1, 4
"""Exit codes."""
WORST = 10
TIMED = 8
"""Number of images on which the engine "onnx" is timed in turns with the candidate; `auto` chooses by the ratio."""
SCHEMA_VERSION = 1


@dataclass(kw_only=True)
class Outcomes:
    """Images that were compared, and those that were left out, with the reason."""

    trials: list[ImageTrial] = field(default_factory=list)
    worst: list[Examined] = field(default_factory=list)
    """At most WORST images, the worst first."""
    left_out: list[dict[str, str]] = field(default_factory=list)

    def count(self, status: str) -> int:
        return sum(entry["status"] == status for entry in self.left_out)

    def add(self, examined: Examined) -> None:
        self.trials.append(examined.trial)
        self.worst = sorted([*self.worst, examined], key=lambda one: one.trial.agreement.order)[:WORST]


@click.command("gate", cls=DocumentedCommand)
@grouped(
    "choice",
    EngineChoice,
    bundle_option,
    candidate_option,
    patches_of_view_option,
    threads_option,
    flavour_option,
    device_option,
)
@click.option("--reference", type=click.Choice(REFERENCES), help="[default: torch if it can run, else onnx]")
@grouped(
    "taken",
    ImageOptions,
    click.option("--images", type=FilePath(), help="Image file or folder [default: the demo exam]."),
    click.option("--masks", type=FilePath(), help="Folder of outlines, PNG named like the images."),
    dataset_option,
    split_option,
    view_option,
    standardized_option("Images are cropped to 2944 x 1920 and mirrored, as for `run --standardized`."),
)
@click.option("--limits", "limits_file", type=FilePath(), help="TOML with other limits.")
@out_option(None, "Folder for gate.json and pictures of the ten worst.")
def command(
    reference: str | None, limits_file: Path | None, out: Path | None, choice: EngineChoice, taken: ImageOptions
) -> int:
    """Compare an engine with the reference: does it find the same lesions? The verdict goes into the bundle.

    Compares maps, patches and scores, and names the part that a difference belongs to. Without a passed gate, `run` and
    `load` refuse the engine. docs/gate.md says what is compared, how, and why. Exit code 0: passed; 4: failed; 1:
    images that could not be read, and no other failure; 2: no image could be compared, and no verdict is stored. Each
    model of an ensemble has a gate of its own.
    """
    limits = _limits(limits_file) if limits_file else Limits()
    bundles = open_members(choice.folder)
    require_exam(choice.folder, taken)
    for bundle in bundles:
        check_pair(bundle, choice.engine, reference=reference, options=choice.options)
        require_recordable(bundle)
    if out:
        require_writable(out)
    with image_set(choice.folder, taken) as images:
        places = [out] if len(bundles) == 1 else [out and out / bundle.folder.name for bundle in bundles]
        images_sha256 = cache(images.sha256)  # of all images: once, also for several models
        return max(
            _gate(bundle, choice, reference, images, images_sha256, limits, place)
            for bundle, place in zip(bundles, places, strict=True)
        )


def _gate(
    bundle: Bundle,
    choice: EngineChoice,
    reference: str | None,
    images: ImageSet,
    images_sha256: Callable[[], str],
    limits: Limits,
    out: Path | None,
) -> int:
    """The gate of one bundle; the exit code."""
    with console.working("opening the engines"):
        patches = choice.patches or bundle.patches
        pair = open_pair(bundle, choice.engine, reference=reference, patches=patches, options=choice.options)
    found = _compare(pair, images, limits)
    _require_comparison(found)
    unreadable = found.count("unreadable")
    agreements = [trial.agreement for trial in found.trials]
    verdict = judge(agreements, limits, not_computed=found.count("not computed"), unreadable=unreadable)
    gate = _entry(choice.engine, pair, found, verdict, images_sha256())
    code = _exit_code(verdict.failures, unreadable)
    standing = newest_gate(bundle, pair.candidate.identity)
    stored = not (code == UNREADABLE and standing and standing.passed)
    if stored:
        bundle = record(bundle, gate)
    if out:
        _write(out, gate, found)
    show(bundle, gate, out, stored=stored)
    remark_on_signature(bundle)
    return code


def _entry(engine: str, pair: EnginePair, found: Outcomes, verdict: Verdict, images_sha256: str) -> GateEntry:
    """The verdict as in the manifest and in gate.json."""
    return GateVerdict(
        engine=engine,
        identity=pair.candidate.identity,
        reference=pair.reference.identity.name,
        patches=pair.candidate.patches,
        images_sha256=images_sha256,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        verdict=verdict,
        metrics=trial_metrics(found.trials) if found.trials else None,
    ).entry()


def _require_comparison(found: Outcomes) -> None:
    """Raises UsageError if no image reached the engines: then there is no verdict, and earlier ones stay valid."""
    if found.trials or found.count("not computed"):
        return
    first = found.left_out[0]
    raise UsageError(
        f"no image was compared: {found.count('unreadable')} could not be read, {found.count('skipped')} are not for "
        f"this network; the first, {first['image']}: {first['message'].rstrip('.')}. No verdict is stored, and earlier "
        f"ones stand. Check --images, --view and --masks."
    )


def _exit_code(failures: Sequence[str], unreadable: int) -> int:
    if unreadable and len(failures) == 1:
        return UNREADABLE
    return FAILED if failures else 0


def _compare(pair: EnginePair, images: ImageSet, limits: Limits) -> Outcomes:
    found = Outcomes()
    with console.progress() as bar:
        task = bar.add_task("", total=len(images.images))
        try:
            for path in images.images:
                bar.update(task, description=images.name(path), refresh=True)
                _one(found, pair, images, limits, path)
                bar.advance(task)
        except KeyboardInterrupt:
            done = f"{len(found.trials)} of {len(images.images)} images were compared"
            console.err.print(f"{done}; no verdict is stored, and earlier ones stand", soft_wrap=True)
            raise
    return found


def _one(found: Outcomes, pair: EnginePair, images: ImageSet, limits: Limits, path: Path) -> None:
    """Compare one image. An error is counted and printed; the other images go on, and the engine cannot pass."""
    try:
        found.add(examine(pair, *images.read(path), limits, timed=len(found.trials) < TIMED))
        return
    except NotForThisNetwork as error:
        status, message = "skipped", error.message_for(Caller.GATE)
    except InputError as error:
        status, message = "unreadable", error.message_for(Caller.GATE)
    except BackendRunError as error:
        status, message = "not computed", str(error)
    name = images.name(path)
    found.left_out.append({"image": name, "status": status, "message": message})
    console.err.print(f"{status}: {name}: {message}", soft_wrap=True)


def _limits(path: Path) -> Limits:
    try:
        return parse_limits(read_toml(path))
    except TomlFault as error:
        raise UsageError(f"{path}: the limits are not valid TOML: {error}") from error
    except OSError as error:
        raise UsageError(f"{path}: the limits cannot be read ({disk_reason(error)}); name a TOML file") from error


def _write(out: Path, gate: GateEntry, found: Outcomes) -> None:
    """Write gate.json with every image, and pictures of the ten worst."""
    out.mkdir(exist_ok=True)
    rows = [trial.to_json() for trial in found.trials]
    content = {"schema": SCHEMA_VERSION, "gate": to_json(gate), "images": rows, "left_out": found.left_out}
    write_whole(out / "gate.json", f"{json.dumps(content, indent=1, allow_nan=False)}\n".encode())
    place = out / "worst"
    place.mkdir(exist_ok=True)
    for old in place.glob("[0-9][0-9]_*.png"):
        old.unlink()
    for number, examined in enumerate(found.worst, start=1):
        stem = Path(examined.trial.image).stem
        write_whole(place / f"{number:02}_{stem}.png", to_png(picture(examined)))
