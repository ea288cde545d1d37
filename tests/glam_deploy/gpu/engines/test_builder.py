"""One build path: the real TensorRT-RTX over the real graphs, and a made-up TensorRT of releases 10 and 11."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import tensorrt as support_tensorrt
from support import tensorrt_network
from support.tensorrt_network import described, graph_file_of

from glam_deploy.bundle import graph_file
from glam_deploy.errors import BackendBuildError, BackendUnavailable, BundleError
from glam_deploy.gpu.engines.tensorrt import builder, flavours
from glam_deploy.gpu.engines.tensorrt.builder import BuiltStage, StageRequest
from glam_deploy.gpu.engines.tensorrt.callbacks import Progress, logger
from glam_deploy.gpu.engines.tensorrt.flavours import Library
from glam_deploy.networks import GLAM, GLAM_CONCATENATION, GMIC, NetworkSpec, Stage
from glam_deploy.precision import Precision

# the made-up library, as of its releases


EMPTY = b"\x08\x0a\x3a\x00"
"""An ONNX file with an empty graph."""


def build(
    library: Library, stage: Stage = "local", precision: Precision = "fp16", content: bytes | None = None
) -> BuiltStage:
    request = StageRequest(
        stage=stage,
        graph=support_tensorrt.graph(stage, precision) if content is None else content,
        contract=GLAM_CONCATENATION.contract(stage, composed=False),
        precision=precision,
    )
    return builder.build_stage(library, request, lambda phase, done: None)


@pytest.mark.parametrize("release", [10, 11])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_strongly_typed_with_both_profiles_and_without_tf32(release: int, precision: Precision) -> None:
    library = support_tensorrt.library(release)
    built = build(library, precision=precision)
    engine = json.loads(built.engine)
    assert engine["flags"] == []
    assert engine["profiles"] == [
        {"patches": [[1, 1, 512, 512], [1, 1, 512, 512], [6, 1, 512, 512]]},
        {"patches": [[1, 1, 512, 512], [4, 1, 512, 512], [24, 1, 512, 512]]},
    ]
    assert (built.share, built.timing_cache, built.warnings) == (1.0, b"+", ())
    assert builder.options(library)["user_allocation"] is False


@pytest.mark.parametrize("release", [10, 11])
def test_map_is_left_out_of_the_fusion_engine(release: int) -> None:
    built = build(support_tensorrt.library(release), "fusion")
    assert json.loads(built.engine)["outputs"] == ["y_global", "y_local"]
    assert built.share is None


def test_release_without_a_flag_for_strong_typing(monkeypatch: pytest.MonkeyPatch) -> None:
    library = support_tensorrt.library()
    monkeypatch.setattr(library.trt, "NetworkDefinitionCreationFlag", SimpleNamespace())
    assert build(library).share == 1.0


@pytest.mark.parametrize("release", [10, 11])
def test_engine_that_computes_in_another_type_than_its_label(release: int) -> None:
    library = support_tensorrt.library(release, computes_in="Float")
    with pytest.raises(BackendBuildError, match=r"local graph: .*only 0\.0% of the multiply-adds .* are fp16"):
        build(library)
    assert build(library, precision="fp32").share == 1.0
    with pytest.raises(BackendBuildError, match=r"are fp32, expected 100%"):
        build(support_tensorrt.library(release, computes_in="Half"), precision="fp32")


def edited(precision: Precision, **changes: Any) -> bytes:
    """The local graph, its second convolution, a tenth of the work, with changes."""
    said = described(support_tensorrt.graph("local", precision))
    said["convolutions"][1] |= changes
    return graph_file_of(said)


def test_one_layer_in_the_wrong_type_counts_by_its_work() -> None:
    with pytest.raises(BackendBuildError, match=r"only 90\.0% of the multiply-adds"):
        build(support_tensorrt.library(), content=edited("fp16", type="Float"))


# the first evidence: the network


@pytest.mark.parametrize("release", [10, 11])
@pytest.mark.parametrize("part", ["input_type", "kernel_type", "output_type"])
def test_network_in_which_one_type_is_another(release: int, part: str) -> None:
    """Nothing is built, whatever the report would say."""
    library = support_tensorrt.library(release, fails="it came to building")
    words = (
        r"local graph: in the parsed network only 90\.0% .* are fp16, expected 100%\. node_small has "
        r"input, kernel and output of type .*fp32.* --precision fp16"
    )
    with pytest.raises(BackendBuildError, match=words):
        build(library, content=edited("fp16", **{part: "Float"}))


@pytest.mark.parametrize("made", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("label", ["fp32", "fp16", "bf16"])
def test_graph_under_another_label(made: Precision, label: Precision) -> None:
    content = support_tensorrt.graph("local", made)
    if made == label:
        assert build(support_tensorrt.library(), precision=label, content=content).share == 1.0
    else:
        with pytest.raises(BackendBuildError, match=rf"in the parsed network only 0\.0% .* are {label}"):
            build(support_tensorrt.library(), precision=label, content=content)


def test_weakly_typed_network_of_release_10(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "_network_flags", lambda trt: 0)
    with pytest.raises(BackendBuildError, match=r"local graph: the parsed network is weakly typed.*10\.4\.0\.1"):
        build(support_tensorrt.library(10))
    assert build(support_tensorrt.library(11)).share == 1.0  # which knows no other


# the second evidence: the report


@pytest.mark.parametrize("release", [10, 11])
@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_types_that_only_the_inspector_with_shapes_tells(release: int, silent: bool, precision: Precision) -> None:
    """The line of the matrix product and the JSON without shapes say "N/A" of it: a tenth of the work."""
    built = build(support_tensorrt.library(release, silent=silent), precision=precision)
    assert (built.share, built.verdict.unconfirmed) == (1.0, None)


@pytest.mark.parametrize("release", [10, 11])
@pytest.mark.parametrize(("tells", "share"), [("weights", 0.9), ("nothing", None)])
def test_what_no_report_tells_is_kept_as_a_note(release: int, tells: str, share: float | None) -> None:
    built = build(support_tensorrt.library(release, tells=tells))
    assert built.share == pytest.approx(share)
    report = built.verdict.unconfirmed
    assert report is not None
    assert report.startswith("Layers:\n")
    assert report.count('{"Layers": [') == 1 + len(builder.PROFILES["local"])


@pytest.mark.parametrize("release", [10, 11])
def test_wrong_engine_whose_report_tells_weights_alone(release: int) -> None:
    library = support_tensorrt.library(release, tells="weights", computes_in="Float")
    with pytest.raises(BackendBuildError, match=r"the engine's layer report only 10\.0% .*The report is in "):
        build(library)


@pytest.mark.parametrize("fault", ["create_execution_context", "set_input_shape"])
def test_inspector_without_a_context_says_what_it_can(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    owner = support_tensorrt.Engine if fault.startswith("create") else support_tensorrt.Context
    monkeypatch.setattr(owner, fault, lambda *_: None)
    built = build(support_tensorrt.library(tells="weights"))
    assert built.share == pytest.approx(0.9)
    assert str(built.verdict.unconfirmed).count('{"Layers": [') == 1


def test_error_while_telling_is_the_error_of_the_build(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(phase: str, done: float) -> None:
        raise BrokenPipeError("nobody reads")

    request = StageRequest(
        stage="local",
        graph=support_tensorrt.graph("local", "fp16"),
        contract=GLAM_CONCATENATION.contract("local", composed=False),
        precision="fp16",
    )
    with pytest.raises(BrokenPipeError, match="nobody reads"):
        builder.build_stage(support_tensorrt.library(10), request, fail)
    assert "Exception caught" not in capfd.readouterr().err


def test_graph_of_another_network() -> None:
    with pytest.raises(BundleError, match=r"local graph: its inputs are .*image.*2944"):
        build(support_tensorrt.library(), content=support_tensorrt.graph("global", "fp16"))


def test_errors_of_the_library_are_told_in_its_words() -> None:
    with pytest.raises(
        BackendBuildError, match=r"local graph: TensorRT 11\.4\.0\.1 cannot build it: no such kernel\. Try another"
    ):
        build(support_tensorrt.library(fails="no such kernel"))
    with pytest.raises(BackendBuildError, match=r"cannot build it: Failed to parse the ONNX model\. Try another"):
        build(support_tensorrt.library(), content=EMPTY)


def test_library_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(log: Any) -> None:
        log.log(log.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("factory function returned nullptr")

    library = support_tensorrt.library()
    monkeypatch.setattr(library.trt, "Builder", fail)
    remedy = r"error: 35\. This is driver .*\. Install NVIDIA's driver 580 or later"
    with pytest.raises(BackendUnavailable, match=rf"does not start on this machine: CUDA initialization.* {remedy}"):
        build(library)


def test_engine_that_its_own_library_cannot_open(monkeypatch: pytest.MonkeyPatch) -> None:
    library = support_tensorrt.library(tells="nothing")
    monkeypatch.setattr(library.trt.Runtime, "deserialize_cuda_engine", lambda self, content: None)
    with pytest.raises(BackendBuildError, match="cannot open its own engine"):
        build(library)


def test_every_attribute_of_the_made_up_releases_is_one_of_the_real_library() -> None:
    """What the builder uses of the made-up ones, the real bindings have too, by the same names."""
    real = rtx().trt
    for release in (10, 11):
        made_up = support_tensorrt.module(release)
        for name in set(vars(made_up)) - {"__spec__", "__doc__", "__loader__", "__package__"}:
            assert hasattr(real, name), name
    for name in (n for n in vars(tensorrt_network.Network) if n.startswith(("num_", "get_", "unmark_"))):
        assert hasattr(real.INetworkDefinition, name), name
    for made, name in (
        (support_tensorrt.Config, "IBuilderConfig"),
        (tensorrt_network.Layer, "ILayer"),
        (tensorrt_network.ConvolutionLayer, "IConvolutionLayer"),
        (support_tensorrt.Engine, "ICudaEngine"),
        (support_tensorrt.Context, "IExecutionContext"),
        (support_tensorrt.Inspector, "EngineInspector"),
    ):
        for attribute in (n for n in vars(made) if not n.startswith("_")):
            assert hasattr(getattr(real, name), attribute), attribute


# the real TensorRT-RTX, without a GPU


KINDS = {"fp32": "Float", "fp16": "Half"}
BUNDLES = {GLAM_CONCATENATION: "golden_bundle", GLAM: "joint_bundle", GMIC: "gmic_bundle"}
"""Network -> fixture of its real graphs."""
PARAMETERS: dict[tuple[NetworkSpec, Stage], float] = {
    (GLAM_CONCATENATION, "global"): 2.7e6,
    (GLAM_CONCATENATION, "local"): 21.2e6,
    (GMIC, "global"): 2.7e6,
    (GMIC, "local"): 11.1e6,
}
"""At least so many are in each of the networks; bytes follow from the precision."""


def rtx() -> Library:
    return flavours.load(flavours.FLAVOURS["tensorrt-rtx"])


def build_real(
    bundle: Path,
    stage: Stage,
    precision: Precision,
    *,
    graph: Stage | None = None,
    network: NetworkSpec = GLAM_CONCATENATION,
    progress: Progress = lambda phase, done: None,
) -> BuiltStage:
    """The bundle's graph of `stage` and `precision`, or of another stage in its name."""
    request = StageRequest(
        stage=stage,
        graph=(bundle / graph_file(graph or stage, precision)).read_bytes(),
        contract=network.contract(stage, composed=False),
        precision=precision,
        compute_capabilities=("8.0", "8.9", "12.0"),
    )
    return builder.build_stage(rtx(), request, progress)


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Filled with the loggers of builds."""
    made: list[Any] = []

    def keep(library: Library) -> Any:
        made.append(logger(library))
        return made[-1]

    monkeypatch.setattr(builder, "logger", keep)
    return made


IO = re.compile(
    r"^ Name: (\w+), IOMode: (\w+), DataType: (\w+), Dimensions: \[([-\d,]+)\], Location: Device", re.MULTILINE
)
RANGE = re.compile(r"MinShape: \[(\d+),.*?OptShape: \[(\d+),.*?MaxShape: \[(\d+),")


def require_contract(report: str, stage: Stage, *, network: NetworkSpec = GLAM_CONCATENATION) -> None:
    """Names, types, axes and ranges of batches of an engine, as the library tells them, are those of the contract."""
    contract = network.contract(stage, composed=False)
    expected = {
        (name, mode, "Int64" if t.dtype == "int64" else "Float", ",".join(map(str, (-1, *t.shape))))
        for mode, tensors in (("Input", contract.inputs), ("Output", contract.outputs))
        for name, t in tensors.items()
    }
    assert set(IO.findall(report)) == expected
    ranges = [tuple(map(int, sizes)) for sizes in RANGE.findall(report)]
    assert ranges == list(builder.PROFILES[stage]) * len(contract.inputs)


@pytest.mark.network
@pytest.mark.parametrize("precision", KINDS)
@pytest.mark.parametrize(
    ("network", "stage"), [pytest.param(*key, marks=pytest.mark.slow if key[0] is GMIC else ()) for key in PARAMETERS]
)
def test_real_engine(
    request: pytest.FixtureRequest, logs: list[Any], network: NetworkSpec, stage: Stage, precision: Precision
) -> None:
    built = build_real(request.getfixturevalue(BUNDLES[network]), stage, precision, network=network)
    assert (built.share, built.timing_cache, built.warnings) == (1.0, None, ())
    assert len(built.engine) > PARAMETERS[network, stage] * (4 if precision == "fp32" else 2)
    require_contract(logs[0].report, stage, network=network)
    convolving = [row for row in logs[0].report.splitlines() if "LayerType: correlation" in row]
    assert len(convolving) > 20
    assert all(f"Datatype: {KINDS[precision]}," in row.partition(", Constants:")[0] for row in convolving)


@pytest.mark.network
@pytest.mark.parametrize("precision", KINDS)
@pytest.mark.parametrize(
    "network", [pytest.param(key, marks=() if key is GLAM_CONCATENATION else pytest.mark.slow) for key in BUNDLES]
)
def test_real_fusion_engine(
    request: pytest.FixtureRequest, logs: list[Any], network: NetworkSpec, precision: Precision
) -> None:
    built = build_real(request.getfixturevalue(BUNDLES[network]), "fusion", precision, network=network)
    assert (built.share, built.warnings) == (None, ())
    require_contract(logs[0].report, "fusion", network=network)


@pytest.mark.network
@pytest.mark.parametrize(("made", "label"), [("fp32", "fp16"), ("fp16", "fp32"), ("fp16", "bf16")])
def test_real_engine_under_a_wrong_label(golden_bundle: Path, made: Precision, label: Precision) -> None:
    request = StageRequest(
        stage="local",
        graph=(golden_bundle / graph_file("local", made)).read_bytes(),
        contract=GLAM_CONCATENATION.contract("local"),
        precision=label,
        compute_capabilities=("8.9",),
    )
    with pytest.raises(BackendBuildError, match=rf"local graph: in the parsed network only 0\.0% .* are {label}"):
        builder.build_stage(rtx(), request, lambda phase, done: None)


@pytest.mark.network
def test_real_library_with_the_graph_of_another_stage(golden_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"global graph: its inputs are .*saliency_patches"):
        build_real(golden_bundle, "global", "fp32", graph="fusion")


def test_real_library_with_what_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "graphs").mkdir()
    (tmp_path / graph_file("global")).write_bytes(b"garbage")
    with pytest.raises(BundleError, match=r"global graph: it is not an ONNX file"):
        build_real(tmp_path, "global", "fp32")


@pytest.mark.network
def test_error_while_telling_stops_the_real_builder(golden_bundle: Path, logs: list[Any]) -> None:
    def fail(phase: str, done: float) -> None:
        raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError, match="nobody reads"):
        build_real(golden_bundle, "global", "fp32", progress=fail)
    assert "canceled" in " ".join(logs[0].errors)
