"""`glam-deploy verify`."""

from collections.abc import Sequence

import click

from glam_deploy.agreement.golden import check_golden, golden_patches
from glam_deploy.agreement.metrics import Comparison
from glam_deploy.bundle import Bundle, open_members
from glam_deploy.bundle.gate_rule import require_consistent_gates
from glam_deploy.cli import console
from glam_deploy.cli.options import (
    DocumentedCommand,
    EngineChoice,
    bundle_option,
    device_option,
    digest_option,
    engine_option,
    flavour_option,
    grouped,
    threads_option,
    trusted_key_option,
)
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.fusion_head import require_scores_of_graph, require_weights_of_graph
from glam_deploy.engines.selection import check_asked
from glam_deploy.errors import ParityError
from glam_deploy.runtime.session import pipeline_of


@click.command("verify", cls=DocumentedCommand)
@grouped(
    "choice",
    EngineChoice,
    bundle_option,
    engine_option,
    threads_option,
    flavour_option,
    device_option,
    trusted_key_option,
    digest_option,
)
def command(choice: EngineChoice) -> None:
    """Re-check a bundle's hashes and its parity on this machine.

    Hashes every file and compares the weights of the fusion head with those of the fusion graph. Then runs the golden
    case inside the bundle, preprocessing included, and compares with the result of the PyTorch reference at export.
    Exit code 4 if a hash, a weight or an output differs. Each model of an ensemble is checked.
    With --trusted-key the bundle must be signed (docs/security.md).
    """
    for bundle in open_members(choice.folder, choice.trust):
        verify_bundle(bundle, engine=choice.engine, options=choice.options)


def verify_bundle(bundle: Bundle, *, engine: str, options: EngineOptions | None = None) -> None:
    """Print the results of both checks.

    Raises BundleError (a changed file, a gate that contradicts itself), ParityError (outputs beyond limits).
    """
    if engine != "auto":
        check_asked(engine, bundle, options or EngineOptions())
    bundle.check()
    require_consistent_gates(bundle)
    if "fusion" in bundle.network.stages:
        require_weights_of_graph(bundle)
        require_scores_of_graph(bundle)
    console.out.print(f"{len(bundle.files)} files of {bundle.folder} are unchanged", soft_wrap=True)
    pipeline = pipeline_of(bundle, engine=engine, patches=golden_patches(bundle), options=options, ungated=True)
    with console.working("running the golden case"):
        rows = check_golden(bundle, pipeline)
    name = pipeline.identity.name
    title = f"Engine {name} ({pipeline.identity.library}) against the PyTorch reference"
    console.out.print(console.parity_table([row.as_row() for row in rows], title))
    _require(rows, name)


def _require(rows: Sequence[Comparison], engine: str) -> None:
    if missed := [row.name for row in rows if not row.passed]:
        raise ParityError(
            f"engine {engine!r} disagrees with the reference in {', '.join(missed)} on this machine. Do not use it "
            f"here: try another --engine, and report this with the table above."
        )
