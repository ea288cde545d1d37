"""`glam-deploy gate`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import click

from glam_deploy.agreement.limits import Limits, parse_limits
from glam_deploy.agreement.verdict import Verdict, judge
from glam_deploy.bundle import GateEntry, open_bundle
from glam_deploy.cli import console
from glam_deploy.cli.gate_images import ImageOptions, ImageSet, image_set, require_exam
from glam_deploy.cli.gate_table import show
from glam_deploy.cli.options import (
    DocumentedCommand,
    bundle_option,
    device_option,
    flavour_option,
    patches_option,
    threads_option,
)
from glam_deploy.engines.admission import REFERENCES, newest_gate
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.registry import OWNERS
from glam_deploy.errors import BackendRunError, Caller, InputError, NotForThisNetwork, UsageError
from glam_deploy.gate.metrics import trial_metrics
from glam_deploy.gate.pictures import picture
from glam_deploy.gate.trial import EnginePair, Examined, ImageTrial, check_pair, examine, open_pair
from glam_deploy.gate.verdict import GateVerdict, record, require_recordable
from glam_deploy.json_records import to_json
from glam_deploy.outputs.overlay import to_png
from glam_deploy.outputs.writer import require_writable
from glam_deploy.records import View

UNREADABLE, FAILED = 1, 4
"""Exit codes."""
WORST = 10
TIMED = 8
"""On the first so many images the engine "onnx" is timed beside the candidate, for `auto` to choose by."""
SCHEMA_VERSION = 1


@dataclass(kw_only=True)
class Outcomes:
    """The images so far: compared, or left out and why."""

    trials: list[ImageTrial] = field(default_factory=list)
    worst: list[Examined] = field(default_factory=list)
    """The worst first."""
    left_out: list[dict[str, str]] = field(default_factory=list)

    def count(self, status: str) -> int:
        return sum(entry["status"] == status for entry in self.left_out)

    def add(self, examined: Examined) -> None:
        self.trials.append(examined.trial)
        self.worst = sorted([*self.worst, examined], key=lambda one: one.trial.agreement.order)[:WORST]


@click.command("gate", cls=DocumentedCommand)
@bundle_option
@click.option(
    "--engine",
    type=click.Choice(list(OWNERS)),
    metavar="NAME",
    required=True,
    help=f"The candidate: {', '.join(OWNERS)}.",
)
@click.option("--reference", type=click.Choice(REFERENCES), help="[default: torch where it can run, else onnx]")
@click.option("--images", type=click.Path(path_type=Path), help="Images, a file or a folder [default: the demo exam].")
@click.option("--masks", type=click.Path(path_type=Path), help="Folder of outlines, PNG named like the images.")
@click.option("--limits", "limits_file", type=click.Path(path_type=Path), help="TOML with other limits.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for gate.json and pictures of the ten worst.")
@patches_option(None, "Patches that the local module looks at in a view, 1..6 [default: the bundle's].")
@click.option("--view", type=click.Choice([v.value for v in View]), help="The view of images that do not tell it.")
@click.option(
    "--standardized", is_flag=True, help="Images are cropped to 2944 x 1920 and mirrored, as for `run --standardized`."
)
@threads_option
@flavour_option
@device_option
def command(
    folder: Path,
    engine: str,
    reference: str | None,
    images: Path | None,
    masks: Path | None,
    limits_file: Path | None,
    out: Path | None,
    patches: int | None,
    view: str | None,
    standardized: bool,
    threads: int | None,
    flavour: str | None,
    device: int | None,
) -> int:
    """Compare an engine with the reference: does it find the same lesions? The verdict goes into the bundle.

    Compares maps, patches and scores, and names the part that a difference belongs to. Without a passed gate, `run` and
    `load` refuse the engine. docs/gate.md says what is compared, how, and why. Exit code 0: passed; 4: failed; 1:
    images that could not be read, and no other failure; 2: no image could be compared, and no verdict is stored.
    """
    limits = parse_limits(_text(limits_file)) if limits_file else Limits()
    bundle = open_bundle(folder)
    options = EngineOptions(threads=threads, flavour=flavour, device=device)
    taken = ImageOptions(images=images, masks=masks, view=View(view) if view else None, standardized=standardized)
    require_exam(folder, taken)
    check_pair(bundle, engine, reference=reference, options=options)
    require_recordable(bundle)
    if out:
        require_writable(out)
    with image_set(folder, taken) as images_of_gate:
        with console.working("opening the engines"):
            pair = open_pair(bundle, engine, reference=reference, patches=patches or bundle.patches, options=options)
        found = _compare(pair, images_of_gate, limits)
        sha256 = images_of_gate.sha256()
    _require_comparison(found)
    unreadable = found.count("unreadable")
    agreements = [trial.agreement for trial in found.trials]
    verdict = judge(agreements, limits, not_computed=found.count("not computed"), unreadable=unreadable)
    gate = _entry(engine, pair, found, verdict, sha256)
    code = _exit_code(verdict.failures, unreadable)
    standing = newest_gate(bundle, pair.candidate.identity)
    stored = not (code == UNREADABLE and standing and standing.passed)
    if stored:
        record(bundle, gate)
    if out:
        _write(out, gate, found)
    show(bundle, gate, out, stored=stored)
    return code


def _entry(engine: str, pair: EnginePair, found: Outcomes, verdict: Verdict, images_sha256: str) -> GateEntry:
    """The verdict as the manifest and gate.json hold it."""
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
    """Raises UsageError where no image reached the engines: there is nothing to judge, and earlier verdicts stand."""
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
                bar.update(task, description=path.name, refresh=True)
                _one(found, pair, images, limits, path)
                bar.advance(task)
        except KeyboardInterrupt:
            done = f"{len(found.trials)} of {len(images.images)} images were compared"
            console.err.print(f"{done}; no verdict is stored, and earlier ones stand", soft_wrap=True)
            raise
    return found


def _one(found: Outcomes, pair: EnginePair, images: ImageSet, limits: Limits, path: Path) -> None:
    """One bad image stops no other, and lets no engine pass."""
    try:
        found.add(examine(pair, *images.read(path), limits, timed=len(found.trials) < TIMED))
        return
    except NotForThisNetwork as error:
        status, message = "skipped", error.told(Caller.GATE)
    except InputError as error:
        status, message = "unreadable", error.told(Caller.GATE)
    except BackendRunError as error:
        status, message = "not computed", str(error)
    found.left_out.append({"image": path.name, "status": status, "message": message})
    console.err.print(f"{status}: {path.name}: {message}", soft_wrap=True)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the limits cannot be read ({type(error).__name__}); name a TOML file") from error


def _write(out: Path, gate: GateEntry, found: Outcomes) -> None:
    """Write gate.json with every image, and pictures of the ten worst."""
    rows = [trial.to_json() for trial in found.trials]
    content = {"schema": SCHEMA_VERSION, "gate": to_json(gate), "images": rows, "left_out": found.left_out}
    (out / "gate.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")
    place = out / "worst"
    place.mkdir(exist_ok=True)
    for old in place.glob("[0-9][0-9]_*.png"):
        old.unlink()
    for number, examined in enumerate(found.worst, start=1):
        stem = Path(examined.trial.image).stem
        (place / f"{number:02}_{stem}.png").write_bytes(to_png(picture(examined)))
