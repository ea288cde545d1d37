"""Checkpoint -> bundle: graphs, weights, golden case, parity table; all of it or nothing."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import onnx
import onnxruntime
import torch

from glam_deploy import __version__
from glam_deploy.agreement.golden import GOLDEN_FILE, check_golden, write_golden
from glam_deploy.agreement.graphs import Engines, compare_graphs, reference_examples
from glam_deploy.agreement.limits import Limits
from glam_deploy.agreement.metrics import Comparison
from glam_deploy.bundle import (
    CHECKPOINT_FILE,
    WINOGRAD_FILE,
    Bundle,
    CheckpointEntry,
    Golden,
    GraphEntry,
    Manifest,
    NetworkEntry,
    TensorEntry,
    graph_file,
    open_bundle,
    staged_bundle,
    write_manifest,
)
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.engines.registry import open_engines
from glam_deploy.errors import ParityError, UsageError
from glam_deploy.networks import GLAM, STAGES, NetworkSpec, Stage
from glam_deploy.precision import GRAPH_PRECISIONS, PRECISIONS, WINOGRAD, Precision
from glam_deploy.records import Float32, Mammogram, NetworkInput, Source, View
from glam_deploy.runtime.pipeline import Pipeline
from glam_export.calibration import JUDGED, calibration, images_in, phantoms
from glam_export.checkpoint import Checkpoint, load_checkpoint, save_weights
from glam_export.demo.phantom import phantom_view
from glam_export.frontier import frontier_svg
from glam_export.graphs import graph_modules, in_precision
from glam_export.half import rounded_engines
from glam_export.memoized import MemoizedEngine
from glam_export.onnx_file import write_graph
from glam_export.quantize import int8_engines, quantized, require_nncf
from glam_export.search import Found, search, searches
from glam_export.torch_engine import network_engines, torch_identity
from glam_export.winograd import winograd

WINOGRAD_ROWS = "winograd."
"""What names of outputs begin with in the parity table, where Winograd's form made them."""

FRONTIER_FILE = "frontier.svg"
GOLDEN_SEED = 3
GOLDEN_VIEW = View.R_MLO

LICENCE = (
    "This bundle is a derivative of the weights it was made from and carries their licence. The weights published "
    "with the GLAM paper are for research only and may not be passed on; their README and LICENSE contradict each "
    "other. glam-deploy ships no weights."
)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to make of a checkpoint."""

    patches: int = 1
    """Patches that the runtime takes where nobody says otherwise, 1..6; the graphs serve every number."""
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    """What there shall be graphs in, of GRAPH_PRECISIONS; fp32 always."""
    calibration: Path | None = None
    """Folder of mammograms that int8 graphs are calibrated on; None takes phantoms."""
    search: bool = False
    """Whether to search for the fastest mixture that keeps `limits`; its int8 graphs take the place of plain ones, and
    the local graph is there in Winograd's form where the mixture has it."""
    limits: Limits = field(default_factory=Limits)
    """What the mixture must keep."""
    winograd: bool = False
    """Whether the local graph shall be there in Winograd's form too, which is faster on CPUs without matrix units."""
    keep_checkpoint: bool = True
    """Whether the bundle holds the weights too, which the engine "torch" needs."""
    key: str | None = None
    """Which of several networks in the checkpoint, for instance "ema"."""
    ignore_keys: tuple[str, ...] = ()
    """Shell patterns of checkpoint keys to leave out."""


def export_bundle(
    weights: Path, out: Path, options: ExportOptions, report: Callable[[str], None] = lambda step: None
) -> Bundle:
    """Make the bundle `out` from the checkpoint `weights`; `report` is told each step as it begins.

    Raises CheckpointError, UsageError (`out` is in the way), BackendBuildError, and ParityError where a graph
    disagrees with the reference: then nothing is left behind.
    """
    if options.patches not in range(1, GLAM.patches.slots + 1):
        raise UsageError(f"patches = {options.patches}: expected a whole number from 1 to {GLAM.patches.slots}")
    options = replace(options, precisions=_precisions(options))
    if "int8" in options.precisions:
        require_nncf()  # before the minutes of an export
    elif options.calibration:
        raise UsageError(
            f"{options.calibration}: calibration images are for graphs in 8 bits, and none are asked for. Add "
            f"--precision int8 or --precision auto, or leave --calibration out."
        )
    report(f"reading {weights.name}")
    checkpoint = load_checkpoint(weights, key=options.key, ignore=options.ignore_keys)
    for note in checkpoint.notes:
        report(f"{weights.name}: {note}")
    narrow = "int8" in options.precisions
    with staged_bundle(out) as folder:
        # images that cannot be read are known before the rest is made
        images = _calibration_images(options, report) if narrow else None
        _write_graphs(checkpoint, folder, options.precisions, report)
        found = _write_narrow_graphs(checkpoint, folder, options, report, images) if narrow else None
        if options.winograd or (found and WINOGRAD in found.mixture.values()):
            report("writing the local graph in Winograd's form")
            (folder / WINOGRAD_FILE).write_bytes(winograd((folder / graph_file("local")).read_bytes()))
        if options.keep_checkpoint:
            save_weights(checkpoint.network, folder / CHECKPOINT_FILE)
        report("running the reference on the golden case")
        reference = {stage: MemoizedEngine(engine) for stage, engine in network_engines(checkpoint.network).items()}
        prepared = _write_golden_case(reference, folder, options.patches)
        manifest = _manifest(checkpoint, options)
        if found:
            manifest = replace(manifest, mixture=found.mixture, frontier=found.frontier)
        write_manifest(folder, manifest)
        report("comparing every graph with the reference")
        table = _parity(reference, open_bundle(folder), options.precisions, prepared)
        write_manifest(folder, replace(manifest, parity=tuple(row.as_row() for row in table)))
        _require(table)
    return open_bundle(out)


def _precisions(options: ExportOptions) -> tuple[Precision, ...]:
    """Those asked for and fp32, in the order of GRAPH_PRECISIONS."""
    if unknown := set(options.precisions) - set(GRAPH_PRECISIONS):
        raise UsageError(f"precision {', '.join(sorted(unknown))}: expected one of {', '.join(GRAPH_PRECISIONS)}")
    return tuple(p for p in GRAPH_PRECISIONS if p in {"fp32", *options.precisions})


def _write_graphs(
    checkpoint: Checkpoint, folder: Path, precisions: Sequence[Precision], report: Callable[[str], None]
) -> None:
    (folder / "graphs").mkdir()
    network = checkpoint.network.spec
    modules = graph_modules(checkpoint.network)
    for precision in (p for p in precisions if p in PRECISIONS):
        for stage, module in modules.items():
            path = folder / graph_file(stage, precision)
            if not path.exists():  # one fusion graph serves all
                report(f"writing the {stage} graph in {precision}")
                write_graph(in_precision(module, precision), stage, path, network=network, precision=precision)


def _calibration_images(options: ExportOptions, report: Callable[[str], None]) -> Sequence[Float32]:
    report("preparing the calibration images")
    return images_in(options.calibration) if options.calibration else phantoms()


def _write_narrow_graphs(
    checkpoint: Checkpoint,
    folder: Path,
    options: ExportOptions,
    report: Callable[[str], None],
    images: Sequence[Float32] | None = None,
) -> Found | None:
    """Calibrated graphs, all in 8 bits; with a search those that it chose, its table and its plot.

    `images`: what they are calibrated on; None prepares those of `options`.
    """
    images = _calibration_images(options, report) if images is None else images
    wide = {stage: (folder / graph_file(stage)).read_bytes() for stage in STAGES}
    graphs: dict[Stage, bytes] = {}
    for stage, inputs in calibration(network_engines(checkpoint.network)["global"], images).items():
        report(f"calibrating the {stage} graph in int8")
        graphs[stage] = quantized(wide[stage], inputs)
    found = None
    if options.search:
        judged = images if options.calibration else phantoms(JUDGED)
        network = checkpoint.network.spec
        stages = searches(
            wide, graphs, judged, limits=options.limits, patches=options.patches, network=network, report=report
        )
        found = search(stages, report)
        graphs |= found.graphs
        (folder / FRONTIER_FILE).write_text(frontier_svg(found.frontier), "utf-8")
    for stage, graph in graphs.items():
        (folder / graph_file(stage, "int8")).write_bytes(graph)
    return found


def _write_golden_case(reference: Engines, folder: Path, patches: int) -> NetworkInput:
    pixels = phantom_view(GOLDEN_SEED, GOLDEN_VIEW).pixels
    mammogram = Mammogram(pixels=pixels, view=GOLDEN_VIEW, source=Source(name="golden case", kind="array"))
    opened = OpenedEngines(engines=reference, identity=torch_identity({}))
    expected = Pipeline(opened, patches=patches, provenance={})(mammogram)
    write_golden(folder / GOLDEN_FILE, mammogram, expected)
    return expected.network_input


def _parity(
    reference: Engines, bundle: Bundle, precisions: Sequence[Precision], prepared: NetworkInput
) -> list[Comparison]:
    opened = open_engines("onnx", bundle, EngineOptions())
    examples = reference_examples(reference, prepared.image, bundle.network)
    table = compare_graphs(examples, opened.engines)
    if WINOGRAD_FILE in bundle.files:
        local = open_engines("onnx-winograd", bundle, EngineOptions()).engines["local"]
        table += _named(WINOGRAD_ROWS, compare_graphs(examples, {"local": local}))
    chain = check_golden(bundle, Pipeline(opened, patches=bundle.patches, provenance={}))
    table += _named("chain.", chain)
    for narrow in precisions[1:]:
        engines = int8_engines(bundle) if narrow == "int8" else rounded_engines(bundle, narrow)
        table += compare_graphs(examples, engines, precision=narrow)
    return table


def _named(prefix: str, rows: Sequence[Comparison]) -> list[Comparison]:
    return [replace(row, name=f"{prefix}{row.name}") for row in rows]


def _require(table: Sequence[Comparison]) -> None:
    if missed := [row for row in table if not row.passed]:
        rows = "\n".join(f"  {_difference(row)}, limit {row.limit:.3g}" for row in missed)
        raise ParityError(
            f"{len(missed)} of {len(table)} outputs disagree with the PyTorch reference; no bundle was written:\n"
            f"{rows}\n{_remedy(table)}"
        )


def _difference(row: Comparison) -> str:
    if row.precision == "fp32":
        return f"{row.name}: differs by {row.max_abs:.3g}"
    return f"{row.name} in {row.precision}: differs by {row.mean_abs:.3g} on average"


def _remedy(table: Sequence[Comparison]) -> str:
    missed = list(dict.fromkeys(row.precision for row in table if not row.passed))
    if all(row.passed or row.name.startswith(WINOGRAD_ROWS) for row in table):
        return (
            "These weights lose too much in Winograd's form: export without --winograd, and without --precision auto."
        )
    if "fp32" in missed:
        return "Weights with extreme values lose precision in float32; please report this with the table."
    rest = [precision for precision in dict.fromkeys(row.precision for row in table) if precision not in missed]
    options = " ".join(f"--precision {precision}" for precision in rest[1:] or rest)
    return f"These weights lose too much in {' and '.join(missed)}: export without it, with {options}."


def _manifest(checkpoint: Checkpoint, options: ExportOptions) -> Manifest:
    """Of a bundle whose graphs have not been compared with the reference yet."""
    network = checkpoint.network.spec
    return Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        licence=LICENCE,
        network=NetworkEntry(
            name=network.name,
            aggregation=network.aggregation,
            patches=options.patches,
            precisions=options.precisions,
        ),
        checkpoint=CheckpointEntry(
            name=checkpoint.path.name,
            sha256=checkpoint.sha256,
            parameters=checkpoint.parameters,
            ignored_keys=tuple(checkpoint.ignored),
            key=checkpoint.key or None,
        ),
        graphs={stage: _graph_entry(stage, network, options.precisions) for stage in STAGES},
        versions=_versions(),
        golden=Golden(file=GOLDEN_FILE, patches=options.patches),
        parity=(),
        files={},
    )


def _graph_entry(stage: Stage, network: NetworkSpec, precisions: Sequence[Precision]) -> GraphEntry:
    contract = network.contract(stage)
    inputs, outputs = (
        {name: TensorEntry(dtype=t.dtype, shape=("batch", *t.shape)) for name, t in tensors.items()}
        for tensors in (contract.inputs, contract.outputs)
    )
    return GraphEntry(files={p: graph_file(stage, p) for p in precisions}, inputs=inputs, outputs=outputs)


def _versions() -> dict[str, str]:
    return {
        "glam_deploy": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
