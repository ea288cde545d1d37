"""OpenVINO in several precisions: what runs, what is refused, and models that were compiled before."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.bundles import edit_manifest, facts, write_manifest
from support.commands import start_process
from support.small_graphs import patches, small_local

from glam_deploy.bundle import WINOGRAD_FILE, Bundle, graph_file, open_bundle
from glam_deploy.engines import cpu, openvino
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.onnxruntime import OnnxRuntimeEngine
from glam_deploy.engines.openvino import StagePlan
from glam_deploy.engines.registry import open_engines
from glam_deploy.errors import BackendUnavailable, BundleError
from glam_deploy.networks import GLAM_CONCATENATION
from glam_deploy.precision import Recipe
from glam_export.precision.winograd import MIN_CHANNELS, winograd

OPTIONS = EngineOptions()
FP32 = StagePlan(file=graph_file("local"), floats="fp32")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A local graph that runs; those of the other stages, and in 8 bits, are only named."""
    folder = tmp_path / "bundle"
    (folder / "graphs").mkdir(parents=True)
    for file in (*map(graph_file, ("global", "fusion")), *(graph_file(s, "int8") for s in ("global", "local"))):
        (folder / file).write_bytes(file.encode())
    (folder / graph_file("local")).write_bytes(small_local())
    write_manifest(folder, facts())
    return open_bundle(folder)


def pretend_cpu(monkeypatch: pytest.MonkeyPatch, *named: str) -> None:
    monkeypatch.setattr(cpu, "features", lambda: frozenset(named))
    monkeypatch.setattr(cpu, "model", lambda: "Some CPU")


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> dict[str, StagePlan]:
    """What each stage was to be computed from and in; nothing is compiled."""
    seen: dict[str, StagePlan] = {}

    def engine(bundle: Bundle, stage: str, recipe: StagePlan, options: EngineOptions) -> SimpleNamespace:
        seen[stage] = recipe
        return SimpleNamespace(network=bundle.network)

    monkeypatch.setattr(openvino, "_engine", engine)
    return seen


def with_mixture(bundle: Bundle, mixture: dict[str, str]) -> Bundle:
    recipes = {stage: Recipe.from_json(text) for stage, text in mixture.items()}
    return replace(bundle, manifest=replace(bundle.manifest, mixture=recipes))  # type: ignore[arg-type]


# what runs


@pytest.mark.parametrize(
    ("name", "features", "local", "precision"),
    [
        ("openvino", "amx_bf16", ("graphs/local.onnx", "fp32"), "fp32"),
        ("openvino-bf16", "amx_bf16", ("graphs/local.onnx", "bf16"), "bf16"),
        ("openvino-bf16", "avx512_bf16", ("graphs/local.onnx", "bf16"), "bf16"),
        ("openvino-int8", "avx2", ("graphs/local.int8.onnx", "fp32"), "int8+fp32"),
        ("openvino-int8", "amx_bf16", ("graphs/local.int8.onnx", "bf16"), "int8+bf16"),
    ],
)
def test_recipes(
    bundle: Bundle,
    recipes: dict[str, StagePlan],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    features: str,
    local: tuple[str, str],
    precision: str,
) -> None:
    pretend_cpu(monkeypatch, features)
    opened = open_engines(name, bundle, EngineOptions())
    assert (recipes["local"].file, recipes["local"].floats) == local
    assert recipes["global"].floats == local[1]
    assert recipes["fusion"] == StagePlan(file="graphs/fusion.onnx", floats="fp32")
    assert (opened.identity.name, str(opened.identity.precision)) == (name, precision)
    assert opened.identity.sha256["local"] == bundle.files[local[0]].sha256


def test_a_mixture(bundle: Bundle, recipes: dict[str, StagePlan], monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cpu(monkeypatch, "amx_bf16")
    mixed = with_mixture(bundle, {"global": "bf16", "local": "int8", "fusion": "fp32"})
    opened = open_engines("openvino-mixed", mixed, EngineOptions())
    assert recipes["global"] == StagePlan(file="graphs/global.onnx", floats="bf16")
    assert recipes["local"] == StagePlan(file="graphs/local.int8.onnx", floats="fp32")
    assert str(opened.identity.precision) == "global bf16, local int8, fusion fp32"


@pytest.mark.parametrize(
    ("kind", "file", "floats"),
    [
        ("fp32", "graphs/local.onnx", "fp32"),
        ("bf16", "graphs/local.onnx", "bf16"),
        ("winograd", WINOGRAD_FILE, "fp32"),
        ("int8+bf16", "graphs/local.int8.onnx", "bf16"),
        ("bf16+winograd", WINOGRAD_FILE, "bf16"),
        ("int8+winograd", "graphs/local.int8.onnx", "fp32"),
        ("int8+bf16+winograd", "graphs/local.int8.onnx", "bf16"),
    ],
)
def test_what_a_stage_of_a_mixture_may_be_made_of(
    bundle: Bundle, recipes: dict[str, StagePlan], monkeypatch: pytest.MonkeyPatch, kind: str, file: str, floats: str
) -> None:
    (bundle.folder / WINOGRAD_FILE).write_bytes(b"")
    write_manifest(bundle.folder, facts())
    pretend_cpu(monkeypatch, "amx_bf16")
    open_engines("openvino-mixed", with_mixture(open_bundle(bundle.folder), {"global": "fp32", "local": kind}), OPTIONS)
    assert (recipes["local"].file, recipes["local"].floats) == (file, floats)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (EngineOptions(), {"NUM_STREAMS": 1}),
        (EngineOptions(threads=1), {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}),
        (EngineOptions(threads=2, streams=2), {"NUM_STREAMS": 2, "INFERENCE_NUM_THREADS": 2}),
    ],
)
def test_threads_and_streams_reach_the_library(
    bundle: Bundle, options: EngineOptions, expected: dict[str, int]
) -> None:
    model = openvino._engine(bundle, "local", FP32, options)._model
    assert {key: model.get_property(key) for key in expected} == expected


def test_a_graph_in_winograds_form_keeps_its_names(bundle: Bundle) -> None:
    """OpenVINO moves transpositions behind the last operators, whose ports then have the names of both."""
    graph = small_local(channels=MIN_CHANNELS)
    engine = openvino.graph_engine(winograd(graph), "local", network=GLAM_CONCATENATION)
    assert any(len(port.names) > 1 for port in engine._model.outputs)
    expected = OnnxRuntimeEngine(graph, "local", OPTIONS, network=GLAM_CONCATENATION).run({"patches": patches(1)})
    for name, values in engine.run({"patches": patches(1)}).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5)


def test_a_batch_has_the_values_of_its_rows(bundle: Bundle) -> None:
    """Models are compiled for one row; inputs and outputs of an engine have any number."""
    graph = bundle.read(graph_file("local"))
    three = np.concatenate([patches(1, seed) for seed in (1, 2, 3)])
    expected = OnnxRuntimeEngine(graph, "local", OPTIONS, network=GLAM_CONCATENATION).run({"patches": three})
    found = openvino.graph_engine(graph, "local", network=GLAM_CONCATENATION).run({"patches": three})
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif("avx512f" not in cpu.features(), reason="OpenVINO has no bf16 on this CPU, not even emulated")
def test_winograds_form_in_bf16() -> None:
    """Outputs of two convolutions of unit gain: within 4 roundings of 8 bits, and not those of FP32."""
    graph = small_local(channels=MIN_CHANNELS)
    inputs = {"patches": patches(1)}
    expected = OnnxRuntimeEngine(graph, "local", OPTIONS, network=GLAM_CONCATENATION).run(inputs)["saliency_patches"]
    engine = openvino.graph_engine(winograd(graph), "local", floats="bf16", network=GLAM_CONCATENATION)
    error = np.abs(engine.run(inputs)["saliency_patches"] - expected).max()
    assert 2**-20 < error < 2**-6


# what is refused


def test_bf16_names_what_the_cpu_lacks(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cpu(monkeypatch, "avx2", "avx512f")
    mixed, wide = (with_mixture(bundle, {"global": kind, "local": "int8"}) for kind in ("bf16", "int8+bf16"))
    for name, of in (("openvino-bf16", bundle), ("openvino-mixed", mixed), ("openvino-mixed", wide)):
        with pytest.raises(BackendUnavailable, match="avx512_bf16 or amx_bf16; Some CPU has neither") as caught:
            open_engines(name, of, EngineOptions())
        assert caught.value.exit_code == 3


IN_BF16 = """
import sys
from pathlib import Path
from glam_deploy.engines.openvino import graph_engine
from glam_deploy.networks import GLAM_CONCATENATION
graph_engine(Path(sys.argv[1]).read_bytes(), "local", floats="bf16", network=GLAM_CONCATENATION)
"""


def test_a_library_that_chooses_another_type_is_found_out(bundle: Bundle) -> None:
    """On any processor: where this limit leaves no bf16, it computes in fp32, whatever the hint, or fails (EPYC with
    AVX-512 BF16)."""
    process = start_process(bundle.path(graph_file("local")), code=IN_BF16, env={openvino.ISA_LIMIT: "AVX2"})
    _, err = process.communicate()
    found = r"(computes in .*float32.*|fails \(object is not initialized\) on .*)"
    assert re.search(rf"BackendUnavailable: .*OpenVINO .* {found}, expected bf16.* is AVX2;", err), err


def test_graphs_that_the_bundle_lacks(bundle: Bundle) -> None:
    (bundle.folder / graph_file("local", "int8")).unlink()
    write_manifest(bundle.folder, facts())
    with pytest.raises(BundleError, match=r"has no graphs/local\.int8\.onnx\..*--precision int8"):
        open_engines("openvino-int8", open_bundle(bundle.folder), EngineOptions())


@pytest.mark.parametrize(
    "mixture",
    [
        None,
        "int8",
        {"global": "int8"},
        {"global": "fp32", "local": "int4"},
        {"global": "winograd", "local": "fp32"},
        {"global": ["fp32"], "local": "fp32"},
    ],
)
def test_mixtures_that_are_none(bundle: Bundle, mixture: object) -> None:
    """In bundles of earlier releases, which may have written the search otherwise."""
    edit_manifest(bundle.folder, lambda m: m.update(schema_version=1, mixture=mixture, frontier=[]))
    with pytest.raises(BundleError, match="--precision auto"):
        open_engines("openvino-mixed", open_bundle(bundle.folder), EngineOptions())


# models that were compiled before


def run(bundle: Bundle, folder: Path | None) -> dict[str, np.ndarray]:
    engine = openvino._engine(bundle, "local", FP32, EngineOptions(cache=folder))
    return dict(engine.run({"patches": patches(1)}))


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_second_start_compiles_nothing_and_answers_the_same(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(bundle, tmp_path / "compiled")
    monkeypatch.setattr(openvino, "_compiled", None)
    assert_equal(run(bundle, tmp_path / "compiled"), first)


def nonsense(content: bytes) -> bytes:
    """Whole by its hash, and no model."""
    return hashlib.sha256(b"no model").digest() + b"no model"


@pytest.mark.parametrize(
    "damage", [lambda c: b"", lambda c: c[: len(c) // 2], lambda c: c[:-1] + bytes([c[-1] ^ 1]), nonsense]
)
def test_a_damaged_model_is_compiled_again(bundle: Bundle, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    expected = run(bundle, tmp_path / "compiled")
    (path,) = (tmp_path / "compiled").iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert_equal(run(bundle, tmp_path / "compiled"), expected)
    (again,) = (tmp_path / "compiled").iterdir()
    content = again.read_bytes()
    assert again == path
    assert content[:32] == hashlib.sha256(content[32:]).digest()
    assert content != damage(whole)


def test_without_a_cache(bundle: Bundle, tmp_path: Path) -> None:
    assert_equal(run(bundle, Path("/dev/null")), run(bundle, tmp_path / "compiled"))


@pytest.mark.parametrize(
    "change",
    [
        lambda bundle, monkeypatch: EngineOptions(threads=1),
        lambda bundle, monkeypatch: EngineOptions(streams=2),
        lambda bundle, monkeypatch: monkeypatch.setattr(openvino, "LIBRARY", "openvino 1.0"),
        lambda bundle, monkeypatch: pretend_cpu(monkeypatch, "another"),
        lambda bundle, monkeypatch: monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2"),
        lambda bundle, monkeypatch: change_graph(bundle),
    ],
)
def test_anything_that_matters_is_another_model(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[..., Any]
) -> None:
    folder = tmp_path / "compiled"
    openvino._engine(bundle, "local", FP32, EngineOptions(cache=folder))
    options = change(bundle, monkeypatch) or EngineOptions()
    openvino._engine(open_bundle(bundle.folder), "local", FP32, replace(options, cache=folder))
    assert len(list(folder.iterdir())) == 2


def change_graph(bundle: Bundle) -> None:
    (bundle.folder / graph_file("local")).write_bytes(small_local(seed=5))
    write_manifest(bundle.folder, facts())
