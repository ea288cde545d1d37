"""`glam-deploy demo`."""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import click
from rich.table import Table

from glam_deploy.cli import console
from glam_deploy.cli.export import make_bundle
from glam_deploy.cli.inputs import plan
from glam_deploy.cli.inspect import show_bundle
from glam_deploy.cli.job import Job, ReadOptions, run_job
from glam_deploy.cli.options import export_module, network_option, out_option
from glam_deploy.cli.verify import verify_bundle
from glam_deploy.errors import UsageError
from glam_deploy.installation import quoted
from glam_deploy.outputs.writer import OutputOptions, require_writable
from glam_deploy.runtime.result import Result
from glam_deploy.runtime.session import pipeline_of

EXAM_SEED = 0
MADE = ("weights.safetensors", "bundle", "exam", "masks", "results")
"""Files and folders that a demo makes, in this order."""


@click.command("demo")
@out_option(Path("demo"), "Folder to fill.")
@network_option("glam", "Network to show.")
@click.option("--seed", type=click.IntRange(min=0), default=EXAM_SEED, show_default=True, help="Which phantom exam.")
def command(out: Path, network: str, seed: int) -> int:
    """Make weights and images, then do all that glam-deploy does with them.

    The weights are set by hand to find bright blobs and grains, the images are phantoms: this shows that the software
    works, and nothing about patients.
    """
    material = export_module("demo.material", "dicom")
    _require_free(out)
    weights, bundle_folder, exam, masks, results = (out / name for name in MADE)
    _step(f"1. demo weights of {network} -> {weights}")
    material.write_checkpoint(weights, network)
    _step(f"2. glam-deploy export --weights {quoted(weights)} --out {quoted(bundle_folder)}")
    bundle = make_bundle(weights, bundle_folder)
    _step(f"3. glam-deploy inspect --bundle {quoted(bundle_folder)}")
    show_bundle(bundle)
    _step(f"4. a phantom exam as DICOM, outlines of its lesions in {masks} -> {exam}")
    truth = material.write_exam(exam, masks, seed)
    _step(f"5. glam-deploy run {quoted(exam)}/*.dcm --bundle {quoted(bundle_folder)} --out {quoted(results)}")
    judgements: dict[Path, Any] = {}

    def judge(path: Path, result: Result) -> None:
        judgements[path] = material.judge(truth[path], result)

    job = Job(
        stems=plan(list(truth), results), out=results, reading=ReadOptions(), writing=OutputOptions(), on_result=judge
    )
    code = run_job(pipeline_of(bundle, engine="auto", patches=None), job)
    console.out.print(_table(judgements, material.THRESHOLD))
    _step(f"6. glam-deploy verify --bundle {quoted(bundle_folder)}")
    verify_bundle(bundle, engine="auto")
    console.out.print(f"Look at {results}/*.png", markup=False)
    return code


def _require_free(out: Path) -> None:
    """Raises UsageError if `out` has other files than an earlier demo, because files of the user are never replaced."""
    require_writable(out)
    there = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    if there and not {MADE[0]} <= there <= set(MADE):
        raise UsageError(
            f"{out} holds other files than an earlier demo ({', '.join(sorted(there)[:3])}); nothing was written. "
            f"Name a new folder with --out."
        )


def _step(text: str) -> None:
    console.out.print(text, style="bold", markup=False, soft_wrap=True)


def _table(judgements: Mapping[Path, Any], threshold: float) -> Table:
    table = Table(title=f"Saliency over {threshold} against the outlines", title_justify="left")
    for name in ("view", "lesion", "patch on it", "Dice"):
        table.add_column(name)
    scores = []
    for path, judgement in judgements.items():
        score = judgement.dice.get(judgement.lesion)
        hit = {True: "yes", False: "no", None: "-"}[judgement.patch_on_lesion]
        table.add_row(path.stem, judgement.lesion or "none", hit, "-" if score is None else f"{score:.2f}")
        scores += [score] if judgement.lesion else []
    table.add_section()
    table.add_row("mean", "", "", f"{mean(scores):.2f}" if scores else "-")
    return table
