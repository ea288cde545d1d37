"""Layer reports of full TensorRT and TensorRT-RTX: samples in files, and made-up ones in every disorder.

The files of TensorRT-RTX are what 1.7.1.116 printed for three small convolutions; where the forms of the others were
seen, support.reports says. Of the samples `cask`, kernels are parameters, as of layers of the library's own; of
`myelin` they are tensors, with FP32 scalars and an FP32 bias beside them.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reports import NOT_TOLD, MadeLayer, Tensor, inspected, lines

from glam_deploy.errors import BackendBuildError
from glam_deploy.gpu.engines.tensorrt.layers import Convolution, judge, read_report, require, share, weigh
from glam_deploy.precision import Precision

SAMPLES = sorted((Path(__file__).parent / "reports").iterdir())
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
TYPES: dict[Precision, str] = {"fp32": "Float", "fp16": "Half", "bf16": "BFloat16"}
OTHERS = ("Int8", "FP8", "Int4", "FP4", "E4M3", "TF32")
"""Types that a convolution may have and none of ours is."""

STEM = Convolution(name="node_conv2d", weights=64 * 49, multiply_adds=100)
BIG = Convolution(name="node_conv2d_1", weights=64 * 64 * 9, multiply_adds=900)
ONE = Convolution(name="node_conv2d_7", weights=64 * 128, multiply_adds=60)
TINY = [
    Convolution(name=name, weights=weights, multiply_adds=weights)
    for name, weights in (("conv_stem", 144), ("conv_a", 2304), ("conv_1x1", 128))
]
WEIRD = 'we, {ird} [x] "q" + p, Dimensions: [3], Outputs: ['
"""A node's name as the real library took it; it wrote it with "_" in the place of the quotes in layers' names."""


def of_sample(sample: Path) -> list[Convolution]:
    if "names" in sample.name:
        return [replace(c, name=c.name.replace("conv", WEIRD)) for c in TINY]
    return TINY if sample.name.startswith("rtx") else [STEM, BIG, ONE]


def verdict(sample: Path, precision: Precision) -> str:
    try:
        given = judge("local", precision, of_sample(sample), [sample.read_text("utf-8")], float_inputs=("patches", "x"))
    except BackendBuildError:
        return "refused"
    return "confirmed" if given.unconfirmed is None else "kept"


def test_all_samples_are_there() -> None:
    assert len(SAMPLES) == 3 * 2 * 2 * 4 + 1 + 4


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_sample(sample: Path) -> None:
    """A right engine is never refused, and a wrong one never confirmed; where types are told, it is refused."""
    made = sample.name.split(".")[-2]
    # layers of Myelin tell types of their tensors alone, of which none are known without shapes
    silent = "not-told.myelin" in sample.name
    for precision in PRECISIONS:
        wanted = "kept" if silent else "confirmed" if made == precision else "refused"
        assert verdict(sample, precision) == wanted, precision


def test_every_sample_is_read_whole() -> None:
    for sample in SAMPLES:
        text = sample.read_text("utf-8")
        expected = len(json.loads(text)["Layers"]) if text.startswith("{") else text.count("\nName: ")
        assert len(read_report(text)) == expected, sample.name


# made-up reports

NAMES = st.text(st.sampled_from('ab_1/.,:;{}[]()"+ =\\é'), min_size=1, max_size=12).map(lambda n: f"n{n}n")
"""ONNX allows any name; the builder's lines have them as they are."""


def engine(
    names: Sequence[str], kinds: Sequence[str], *, myelin: bool, profiles: int = 1, told: bool = True
) -> list[MadeLayer]:
    """Layers of the convolutions STEM, BIG and ONE by other names, with a residual in the second."""
    made: list[MadeLayer] = []
    for profile in range(profiles):
        mark = f" [profile {profile}]" if profile else ""
        for convolution, name, kind in zip((STEM, BIG, ONE), names, kinds, strict=True):
            shown = kind if told else NOT_TOLD
            inputs = [Tensor(name=f"act{n}{mark}", axes=[-1, 64, 8, 8], kind=shown) for n in range(2)]
            scalars = [Tensor(name=f"__mye7{name}_{s}", axes=[1], kind="Float") for s in ("alpha", "beta")]
            bias = Tensor(name="bias_constantFloat", axes=[1, 64, 1, 1], kind="Float")
            kernel = Tensor(name="__mye8_dconst", axes=[convolution.weights], kind=shown)
            made.append(
                MadeLayer(
                    name=f"{name}{mark}_myl{profile}_3" if myelin else f"{name} + relu{mark}",
                    kind="gemm" if myelin else "CaskConvolution",
                    nodes=[name, "relu"],
                    inputs=[*inputs, *(scalars if myelin else ())],
                    constants=[kernel, bias] if myelin else (),
                    weights=None if myelin else (kind, convolution.weights),
                )
            )
    return made


FORMS = ("lines 10", "lines 11", "json 10", "json 11")


def printed(form: str, layers: Sequence[MadeLayer]) -> str:
    kind, release = form.split()
    if kind == "lines":
        return lines(layers, release=int(release))
    return json.dumps(inspected(layers, release=int(release)))


def named(names: Sequence[str]) -> list[Convolution]:
    return [replace(c, name=name) for c, name in zip((STEM, BIG, ONE), names, strict=True)]


@given(data=st.data())
def test_any_order_of_any_names(data: st.DataObject) -> None:
    names = data.draw(st.lists(NAMES, min_size=3, max_size=3, unique=True))
    made, asked = data.draw(st.sampled_from(PRECISIONS)), data.draw(st.sampled_from(PRECISIONS))
    layers = engine(names, [TYPES[made]] * 3, myelin=data.draw(st.booleans()), profiles=data.draw(st.integers(1, 2)))
    report = printed(data.draw(st.sampled_from(FORMS)), data.draw(st.permutations(layers)))
    found = weigh(named(names), read_report(report), asked, float_inputs=())
    assert (found.confirmed, found.contradicted) == ((1, 0) if asked == made else (0, 1))


@given(data=st.data())
def test_one_convolution_of_another_type(data: st.DataObject) -> None:
    """In one of the profiles is enough, and types of 8 bits and fewer are other types."""
    wrong = data.draw(st.integers(0, 2))
    kinds = ["Half"] * 3
    kinds[wrong] = data.draw(st.sampled_from(("Float", "BFloat16", *OTHERS)))
    myelin = data.draw(st.booleans())
    right = engine("abc", ["Half"] * 3, myelin=myelin, profiles=2)
    layers = [*right[:3], *engine("abc", kinds, myelin=myelin)]
    report = printed(data.draw(st.sampled_from(FORMS)), data.draw(st.permutations(layers)))
    found = share(named("abc"), read_report(report), "fp16", float_inputs=())
    assert found == pytest.approx(1 - (STEM, BIG, ONE)[wrong].multiply_adds / 1060)


@given(data=st.data())
def test_missing_fields_say_nothing(data: st.DataObject) -> None:
    """Whatever a report lacks: a right engine is not refused, and a wrong one not confirmed."""
    made, asked = data.draw(st.sampled_from(PRECISIONS)), data.draw(st.sampled_from(PRECISIONS))
    layers = engine("abc", [TYPES[made]] * 3, myelin=data.draw(st.booleans()), told=data.draw(st.booleans()))
    document = inspected(layers, release=data.draw(st.sampled_from((10, 11))))
    for layer in document["Layers"]:
        tensors = [t for key in ("Inputs", "Constants", "Outputs") for t in layer.get(key, [])]
        for record in (layer, *tensors, layer.get("Weights", {})):
            for key in data.draw(st.lists(st.sampled_from(sorted(record)), unique=True)) if record else ():
                if data.draw(st.booleans()):
                    del record[key]
                else:
                    record[key] = None
    try:
        found = judge("local", asked, named("abc"), [json.dumps(document)], float_inputs=())
    except BackendBuildError:
        assert made != asked
    else:
        assert made == asked or found.share is None


@given(text=st.text(max_size=300), begin=st.sampled_from(("Layers:\nName: a, LayerType: b, Inputs: [", "{", "")))
def test_no_text_is_an_error(text: str, begin: str) -> None:
    try:
        weigh([BIG], read_report(begin + text), "fp16", float_inputs=())
    except BackendBuildError as error:
        assert "layer report cannot be parsed" in str(error)


@pytest.mark.parametrize("odd", ["[]", '{"Layers": {}}', '{"Layers": [7, null]}', '{"Layers": null}', '{"Layers": ['])
def test_json_of_another_kind_is_not_read(odd: str) -> None:
    with pytest.raises(BackendBuildError, match="layer report cannot be parsed"):
        read_report(odd)


# what is told how


def of_layers(*layers: MadeLayer, precision: Precision = "fp16", form: str = "lines 10") -> tuple[float, float]:
    """What is confirmed of BIG, and what contradicted."""
    found = weigh([BIG], read_report(printed(form, layers)), precision, float_inputs=("patches",))
    return found.confirmed, found.contradicted


def big(kind: str, **changes: object) -> MadeLayer:
    layer = MadeLayer(name="node_conv2d_1", nodes=["node_conv2d_1"], weights=(kind, BIG.weights),
                      inputs=[Tensor(name="a", axes=[-1, 64, 8, 8], kind=kind)])  # fmt: skip
    return replace(layer, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
def test_scalars_do_not_matter_and_large_inputs_do(form: str) -> None:
    alpha = Tensor(name="alpha", axes=[1], kind="Float")
    shape = Tensor(name="shape", axes=[-1, 4], kind="Int32")
    other = Tensor(name="b", axes=[-1, 64, 8, 8], kind="Float")
    assert of_layers(big("Half", inputs=[alpha, shape]), form=form) == (1, 0)
    assert of_layers(big("Half", inputs=[alpha, other]), form=form) == (0, 1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mark", ["", " [profile 1]"])
def test_engine_input_that_a_kernel_converts(form: str, mark: str) -> None:
    given = Tensor(name=f"patches{mark}", axes=[-1, 1, 512, 512], kind="Float")
    assert of_layers(big("Half", inputs=[given]), form=form) == (1, 0)


@pytest.mark.parametrize("form", FORMS)
def test_kernel_that_is_split_among_layers(form: str) -> None:
    half = BIG.weights // 2
    assert of_layers(big("Half", weights=("Half", half)), big("Half", weights=("Half", half)), form=form) == (1, 0)
    assert of_layers(big("Half", weights=("Half", half)), big("Half", weights=("Float", half)), form=form) == (0, 1)


@pytest.mark.parametrize("form", ["lines 11", "json 11"])
def test_fused_layer_with_the_kernels_of_two_convolutions(form: str) -> None:
    """Each is known by its size."""
    kernels = [Tensor(name="__mye1_dconst", axes=[BIG.weights], kind="Half"),
               Tensor(name="__mye2_dconst", axes=[ONE.weights], kind="Float")]  # fmt: skip
    fused = MadeLayer(name="__myl_fused_myl0_1", kind="kgen", nodes=[BIG.name, ONE.name], constants=kernels)
    found = weigh([BIG, ONE], read_report(printed(form, [fused])), "fp16", float_inputs=())
    assert (found.confirmed, found.contradicted) == pytest.approx((900 / 960, 60 / 960))


def test_reformat_of_an_input_is_not_the_convolution() -> None:
    """Its name ends in the name of the layer that it is for, and it has no metadata."""
    moved = MadeLayer(name="Reformatting CopyNode for Input Tensor 0 to x + node_conv2d_1", kind="Reformat",
                      inputs=[Tensor(name="a", axes=[-1, 64, 8, 8], kind="Float")])  # fmt: skip
    assert of_layers(moved, big("Half")) == (1, 0)
    assert of_layers(moved) == (0, 0)


def test_kernel_without_a_count_is_the_kernel() -> None:
    document = inspected([big("Float", inputs=[])])
    del document["Layers"][0]["Weights"]["Count"]
    assert share([BIG], read_report(json.dumps(document)), "fp16", float_inputs=()) == 0


def test_both_formats_beside_a_type_that_is_not_told() -> None:
    document = inspected([big("Half", weights=None)], release=11)
    document["Layers"][0]["Inputs"][0] |= {"DataType": NOT_TOLD, "Format": "Row major linear FP16 format (kLINEAR)"}
    assert share([BIG], read_report(json.dumps(document)), "fp32", float_inputs=()) == 0


# several reports


def test_later_reports_are_asked_for_until_enough_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []

    def reports(*layers: MadeLayer) -> object:
        for number, layer in enumerate(layers):
            asked.append(str(number))
            yield lines([layer])

    silent = big(NOT_TOLD, weights=None)
    found = judge("local", "fp16", [BIG], reports(silent, big("Half"), big("Half")), float_inputs=())  # type: ignore[arg-type]
    assert (found.share, found.unconfirmed, asked) == (1.0, None, ["0", "1"])
    with pytest.raises(BackendBuildError, match=r"only 0\.0% of the multiply-adds"):
        judge("local", "fp16", [BIG], reports(silent, big("Float")), float_inputs=())  # type: ignore[arg-type]


def test_what_is_told_of_a_part_is_the_confirmed_share() -> None:
    found = judge("local", "fp16", [BIG, STEM], [lines([big("Half")])], float_inputs=())
    assert found.share == 0.9
    assert found.unconfirmed == lines([big("Half")])


@pytest.mark.parametrize("reports", [[], ["Layers:"], ["no report", "{}"]])
def test_engine_whose_reports_say_nothing_is_kept_with_them(reports: list[str]) -> None:
    found = judge("local", "fp16", [BIG], reports, float_inputs=())
    assert (found.share, found.unconfirmed) == (None, "\n\n".join(reports))


def test_graph_without_convolutions_needs_no_report() -> None:
    assert judge("fusion", "fp16", [], ["no report"], float_inputs=()).unconfirmed is None


def test_refused_report_is_kept_in_a_file_that_the_error_names(kept_reports: Path) -> None:
    report = lines([big("Float")])
    with pytest.raises(BackendBuildError) as caught:
        judge("local", "fp16", [BIG], [report], float_inputs=())
    (file,) = kept_reports.rglob("*.txt")
    assert file.name == "local.fp16.layers.txt"
    assert file.read_text("utf-8") == report
    assert f"The report is in {file}:" in str(caught.value)
    assert "build it again" not in str(caught.value).lower()


def test_share_that_is_nearly_all_is_not_rounded_to_all() -> None:
    with pytest.raises(BackendBuildError, match=r"only 99\.9% of"):
        require("local", "fp32", 0.99999)
