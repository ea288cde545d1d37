"""Steps that run the reference on the golden case and compare every graph with it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from glam_deploy.agreement.golden import (
    GOLDEN_FILE,
    Engines,
    check_golden,
    compare_graphs,
    reference_examples,
    write_golden,
)
from glam_deploy.agreement.metrics import Comparison
from glam_deploy.bundle import WINOGRAD_FILE, Bundle, graph_file, open_bundle, write_manifest
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.engines.fusion_head import FusionHead, read_fusion_weights, require_weights_of_graph
from glam_deploy.engines.onnxruntime import OnnxRuntimeEngine
from glam_deploy.engines.registry import open_engines
from glam_deploy.errors import BackendRunError, CheckpointError, ParityError
from glam_deploy.precision import Precision
from glam_deploy.records import Mammogram, Source, View
from glam_deploy.runtime.pipeline import Pipeline
from glam_export.demo.phantom import phantom_view
from glam_export.precision.half import rounded_engines
from glam_export.steps.base import Draft, GoldenRun, Report, Step
from glam_export.torch_engine import MemoizedEngine, network_engines, torch_identity

WINOGRAD_ROWS = "winograd."
"""Prefix in the parity table of the outputs of Winograd's form."""
HEAD_ROWS = "head."
"""Prefix of the outputs of the fusion head, which computes them from weights in a file of their own."""
CHAIN_ROWS = "chain."
"""Prefix of the outputs of the whole pipeline on the golden case."""

GOLDEN_SEED = 3
GOLDEN_VIEW = View.R_MLO


@dataclass(frozen=True, kw_only=True)
class RunGoldenCase(Step):
    """Run the reference on a phantom view, and write both as the golden case."""

    @property
    def title(self) -> str:
        return "running the reference on the golden case"

    def run(self, draft: Draft, report: Report) -> Draft:
        """Raises CheckpointError if the network's outputs are not finite."""
        engines = network_engines(draft.checkpoint.network)
        reference = {stage: MemoizedEngine(engine) for stage, engine in engines.items()}
        pixels = phantom_view(GOLDEN_SEED, GOLDEN_VIEW).pixels
        mammogram = Mammogram(pixels=pixels, view=GOLDEN_VIEW, source=Source(name="golden case", kind="array"))
        opened = OpenedEngines(engines=reference, identity=torch_identity({}))
        try:
            expected = Pipeline(opened, patches=draft.manifest.network.patches, provenance={})(mammogram)
        except BackendRunError as error:
            cause = str(error).partition(". ")[0]
            raise CheckpointError(
                f"{draft.checkpoint.path}: no finite outputs for a phantom ({cause}). The weights are too large for "
                f"float32, or the file is damaged: compare it with its source."
            ) from error
        write_golden(draft.folder / GOLDEN_FILE, mammogram, expected)
        return replace(draft, golden=GoldenRun(reference=reference, network_input=expected.network_input))


@dataclass(frozen=True, kw_only=True)
class CompareGraphs(Step):
    """Compare every graph and the pipeline with the reference; the table goes into the manifest, which is rewritten."""

    precisions: tuple[Precision, ...]

    @property
    def title(self) -> str:
        return "comparing every graph with the reference"

    def run(self, draft: Draft, report: Report) -> Draft:
        """Raises ParityError for outputs beyond their limits."""
        assert draft.golden, "RunGoldenCase comes before CompareGraphs"
        table = _parity_table(draft.golden, open_bundle(draft.folder), self.precisions)
        require_parity(table)
        manifest = replace(draft.manifest, parity=tuple(row.as_row() for row in table))
        write_manifest(draft.folder, manifest)
        return replace(draft, manifest=manifest)


def _parity_table(golden: GoldenRun, bundle: Bundle, precisions: Sequence[Precision]) -> list[Comparison]:
    opened = open_engines("onnx", bundle, EngineOptions())
    examples = reference_examples(golden.reference, golden.network_input.image, bundle.network)
    table = compare_graphs(examples, opened.engines)
    if WINOGRAD_FILE in bundle.files:
        local = open_engines("onnx-winograd", bundle, EngineOptions()).engines["local"]
        table += _with_prefix(WINOGRAD_ROWS, compare_graphs(examples, {"local": local}))
    if weights := read_fusion_weights(bundle):
        require_weights_of_graph(bundle)
        head = FusionHead(weights, bundle.network)
        table += _with_prefix(HEAD_ROWS, compare_graphs(examples, {"fusion": head}))
    pipeline = Pipeline(opened, patches=bundle.patches, provenance={})
    table += _with_prefix(CHAIN_ROWS, check_golden(bundle, pipeline))
    for narrow in precisions:
        if narrow != "fp32":
            engines = int8_engines(bundle) if narrow == "int8" else rounded_engines(bundle, narrow)
            table += compare_graphs(examples, engines, precision=narrow)
    return table


def _with_prefix(prefix: str, rows: Sequence[Comparison]) -> list[Comparison]:
    return [replace(row, name=f"{prefix}{row.name}") for row in rows]


def int8_engines(bundle: Bundle) -> Engines:
    """The stages that have int8 graphs, run by ONNX Runtime. Raises BundleError."""
    options = EngineOptions()
    return {
        stage: OnnxRuntimeEngine(bundle.read(graph_file(stage, "int8")), stage, options, network=bundle.network)
        for stage in bundle.network.stages
        if stage != "fusion"
    }


def require_parity(table: Sequence[Comparison]) -> None:
    """Raises ParityError for outputs beyond their limits, with their differences and what to do."""
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
    searched = (
        ", or --precision auto, which leaves the blocks that lose most in floating point" if "int8" in missed else ""
    )
    return f"These weights lose too much in {' and '.join(missed)}: export without it, with {options}{searched}."
