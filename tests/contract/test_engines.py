"""What every engine owes its callers, whoever compiled the graph."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from expected import need_engine
from support.bundles import facts, fill, write_manifest
from support.gpu import with_engines

from glam_deploy.bundle import CHECKPOINT_FILE, WINOGRAD_FILE, Bundle, graph_file, open_bundle
from glam_deploy.engines.admission import REFERENCES
from glam_deploy.engines.base import Arrays, EngineOptions, OpenedEngines
from glam_deploy.engines.registry import ENGINE_NAMES, OWNERS, open_engines
from glam_deploy.errors import (
    BackendRunError,
    BackendUnavailable,
    BundleError,
    CheckpointError,
    UsageError,
)
from glam_deploy.gpu.engines.base import GpuEngines
from glam_deploy.installation import install_command
from glam_deploy.json_records import to_json
from glam_deploy.networks import COMPOSED_MAP, GLAM, GLAM_CONCATENATION, STAGES, NetworkSpec, Stage
from glam_deploy.precision import PRECISIONS, Precision
from glam_export.reference.glam import GlamNetwork

TOLERANCES = {"fp32": 1e-5, "fp16": 4e-3, "bf16": 3e-2}
"""For one graph on other batches or engines, by precision: in fp32 the product promises 1e-4 after the whole chain; a
half has 11 or 8 bits of mantissa, and some tens of layers round."""
OVERLAPPING = [(0, 0), (256, 128), (260, 132), (2432, 1408), (1024, 700), (0, 0)]
"""Six corners in input pixels: touching the input's corners, overlapping, on one place twice."""

network = pytest.mark.network


@pytest.fixture(scope="module", params=OWNERS)
def name(request: pytest.FixtureRequest) -> str:
    """Each engine of the registry that this machine can run."""
    need_engine(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def opened_bundle(name: str, golden_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The golden weights, without fusion head."""
    return with_engines(name, golden_bundle, tmp_path_factory)


@pytest.fixture(scope="module")
def opened(name: str, opened_bundle: Bundle) -> OpenedEngines:
    return open_engines(name, opened_bundle, EngineOptions())


@pytest.fixture(scope="module")
def joint_opened_bundle(name: str, joint_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """With fusion head."""
    return with_engines(name, joint_bundle, tmp_path_factory)


@pytest.fixture(scope="module")
def joint(name: str, joint_opened_bundle: Bundle) -> OpenedEngines:
    return open_engines(name, joint_opened_bundle, EngineOptions())


@pytest.fixture(scope="module")
def images(golden_image: Callable[[int], np.ndarray]) -> list[np.ndarray]:
    """Two standardized images, float32 [1, 1, 2944, 1920] each."""
    return [golden_image(seed)[None, None] for seed in (1, 2)]


@pytest.fixture(scope="module")
def maps(opened: OpenedEngines, images: list[np.ndarray]) -> list[Arrays]:
    """What the global stage says of each image alone; the first is held against a copy made before the second run."""
    engine = opened.engines["global"]
    before = images[0].copy()
    first = engine.run({"image": images[0]})
    copies = {key: values.copy() for key, values in first.items()}
    second = engine.run({"image": images[1]})
    assert_equal(first, copies)
    assert_equal({"image": images[0]}, {"image": before})
    return [first, second]


def assert_equal(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    for key in expected:
        np.testing.assert_array_equal(found[key], expected[key], err_msg=key)


def assert_close(name: str, found: Arrays, expected: Arrays) -> None:
    """What was found, which need not be the fused map."""
    tolerance = TOLERANCES[OWNERS[name].precision or "fp32"]
    for key in found:
        scale = max(1.0, float(np.abs(expected[key]).max()))
        np.testing.assert_allclose(found[key], expected[key], rtol=0, atol=tolerance * scale, err_msg=key)


def assert_keeps_contract(
    name: str, outputs: Arrays, stage: Stage, batch: int, *, network: NetworkSpec = GLAM_CONCATENATION
) -> None:
    composed = COMPOSED_MAP in outputs  # the one output that an engine other than the reference may leave out
    assert composed or stage != "fusion" or name not in REFERENCES
    expected = network.contract(stage, composed=composed).outputs
    found = {key: (values.dtype.name, values.shape) for key, values in outputs.items()}
    assert found == {key: (t.dtype, (batch, *t.shape)) for key, t in expected.items()}
    for key in outputs.keys() - {"z_g", "z_k"}:
        assert outputs[key].min() >= 0, key
        assert outputs[key].max() <= 1 + 1e-6, key


def zeros(stage: Stage, batch: int = 1, *, network: NetworkSpec = GLAM_CONCATENATION) -> dict[str, np.ndarray]:
    inputs = network.contract(stage).inputs
    return {key: np.zeros((batch, *t.shape), t.dtype) for key, t in inputs.items()}


def slots(*used: int, network: NetworkSpec, seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs of the fusion stage: image n has `used[n]` patches, its other slots are as the contract says."""
    rng = np.random.default_rng(seed)
    inputs = zeros("fusion", len(used), network=network)
    for key, values in inputs.items():
        inputs[key] = rng.random(values.shape, np.float32)
    if network is GLAM:
        inputs["z_k"] *= 6  # far enough apart for the attention to prefer some patches
    inputs["patch_locations"] = np.tile(np.array(OVERLAPPING, np.int64), (len(used), 1, 1))
    for n, count in enumerate(used):
        inputs["patch_locations"][n, count:] = -1
        for key in {"saliency_patches", "z_k"} & inputs.keys():
            inputs[key][n, count:] = 0
    return inputs


def reference_fusion(net: GlamNetwork, inputs: Arrays, n: int, count: int) -> dict[str, np.ndarray]:
    """Image n by the reference's own parts, which are given its `count` patches and know of no slots."""
    one = {key: torch.from_numpy(values[n : n + 1]) for key, values in inputs.items()}
    patches, z_k = one["saliency_patches"][:, :count], one.get("z_k", torch.empty(1, 6, 0))[:, :count]
    local = net.aggregate(patches, z_k)
    places = one["patch_locations"][:, :count]
    outputs = {
        "y_global": one["y_scale"].mean(1),
        "y_local": local.y_local,
        "saliency": net.fuse_saliency(one["saliency_global"], patches, places),
    }
    if local.attention is not None and local.z_l is not None:
        outputs["y_fusion"] = net.predict_fusion(one["z_g"], local.z_l)
        outputs["attention"] = torch.nn.functional.pad(local.attention, (0, 6 - count))
    return {key: values.numpy() for key, values in outputs.items()}


def rows(outputs: Arrays, n: int) -> dict[str, np.ndarray]:
    return {key: values[n : n + 1] for key, values in outputs.items()}


@network
def test_global_stage(name: str, maps: list[Arrays]) -> None:
    for outputs in maps:
        assert_keeps_contract(name, outputs, "global", 1)
    assert not np.array_equal(maps[0]["z_g"], maps[1]["z_g"])


@network
def test_global_stage_on_a_batch(
    name: str, opened: OpenedEngines, images: list[np.ndarray], maps: list[Arrays]
) -> None:
    outputs = opened.engines["global"].run({"image": np.concatenate(images)})
    assert_keeps_contract(name, outputs, "global", 2)
    for n in range(2):
        assert_close(name, rows(outputs, n), maps[n])


@network
def test_two_threads_at_once(name: str, opened: OpenedEngines, images: list[np.ndarray], maps: list[Arrays]) -> None:
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda image: opened.engines["global"].run({"image": image}), images))
    for found, alone in zip(together, maps, strict=True):
        assert_close(name, found, alone)


@network
def test_local_stage(name: str, opened: OpenedEngines, images: list[np.ndarray]) -> None:
    patch = images[0][:, :, 1200:1712, :512]
    patch.flags.writeable = False
    outputs = opened.engines["local"].run({"patches": patch})
    assert_keeps_contract(name, outputs, "local", 1)


@pytest.mark.slow
@network
@pytest.mark.parametrize("used", [(1, 6), (5, 2), (3, 4)])
@pytest.mark.parametrize("network", [GLAM_CONCATENATION, GLAM])
def test_any_number_of_patch_slots(
    request: pytest.FixtureRequest, name: str, used: tuple[int, int], network: NetworkSpec
) -> None:
    kind = "joint" if network is GLAM else "golden"
    engines = request.getfixturevalue("joint" if network is GLAM else "opened").engines
    net = request.getfixturevalue(f"{kind}_network")
    inputs = slots(*used, network=network)
    outputs = engines["fusion"].run(inputs)
    assert_keeps_contract(name, outputs, "fusion", 2, network=network)
    for n, count in enumerate(used):
        assert_close(name, rows(outputs, n), reference_fusion(net, inputs, n, count))
        if network is GLAM:
            assert outputs["attention"][n].sum() == pytest.approx(1, abs=1e-6)
            assert not outputs["attention"][n, count:].any()


@network
@pytest.mark.parametrize("which", ["opened", "joint"])
def test_fusion_of_a_batch_is_that_of_each_image(request: pytest.FixtureRequest, name: str, which: str) -> None:
    engine = request.getfixturevalue(which).engines["fusion"]
    inputs = slots(2, 6, network=GLAM if which == "joint" else GLAM_CONCATENATION)
    both = engine.run(inputs)
    copies = {key: values.copy() for key, values in both.items()}
    for n in range(2):
        assert_close(name, rows(both, n), engine.run(rows(inputs, n)))
    assert_equal(both, copies)


@network
def test_arrays_may_lie_in_any_order_and_be_read_only(joint: OpenedEngines) -> None:
    engine = joint.engines["fusion"]
    inputs = slots(3, network=GLAM)
    strange = {key: np.asfortranarray(values) for key, values in inputs.items()}
    for values in strange.values():
        values.flags.writeable = False
    assert_equal(engine.run(strange), engine.run(inputs))


FAULTS: dict[str, Callable[[dict[str, np.ndarray], str], Any]] = {
    "missing": lambda inputs, key: inputs.pop(key),
    "renamed": lambda inputs, key: inputs.update({key.upper(): inputs.pop(key)}),
    "surplus": lambda inputs, key: inputs.update(other=inputs[key]),
    "float64": lambda inputs, key: inputs.update({key: inputs[key].astype(np.float64)}),
    "int32": lambda inputs, key: inputs.update({key: inputs[key].astype(np.int32)}),
    "other byte order": lambda inputs, key: inputs.update({key: inputs[key].astype(inputs[key].dtype.newbyteorder())}),
    "one cell short": lambda inputs, key: inputs.update({key: inputs[key][..., 1:]}),
    "no batch axis": lambda inputs, key: inputs.update({key: inputs[key][0]}),
    "a number": lambda inputs, key: inputs.update({key: np.array(0, inputs[key].dtype)}),
    "empty batch": lambda inputs, key: inputs.update({k: v[:0] for k, v in inputs.items()}),
}


@network
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stage", STAGES)
def test_inputs_that_break_the_contract(joint: OpenedEngines, stage: Stage, fault: str) -> None:
    for key in GLAM.contract(stage).inputs:
        inputs = zeros(stage, network=GLAM)
        FAULTS[fault](inputs, key)
        with pytest.raises(BackendRunError, match=f"^{stage} engine: "):
            joint.engines[stage].run(inputs)


@network
@pytest.mark.parametrize("key", GLAM.contract("fusion").inputs)
def test_inputs_of_different_batches(joint: OpenedEngines, key: str) -> None:
    inputs = slots(2, 3, network=GLAM)
    inputs[key] = inputs[key][:1]
    with pytest.raises(BackendRunError, match="expected one common size"):
        joint.engines["fusion"].run(inputs)


@network
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("stage", STAGES)
def test_numbers_that_are_not_finite(joint: OpenedEngines, stage: Stage, bad: float) -> None:
    whole = zeros(stage, network=GLAM)
    for key in (k for k, values in whole.items() if values.dtype == np.float32):
        one = whole[key].copy()
        one.flat[-1] = bad
        for values, count in ((one, 1), (np.full_like(one, bad), one.size)):
            message = f"{stage} engine: {count} of {one.size} values of '{key}' are NaN or infinite"
            with pytest.raises(BackendRunError, match=message):
                joint.engines[stage].run(whole | {key: values})


@network
@pytest.mark.parametrize("which", ["opened", "joint"])
def test_provenance(request: pytest.FixtureRequest, name: str, which: str) -> None:
    opened = request.getfixturevalue(which)
    bundle = request.getfixturevalue({"opened": "opened_bundle", "joint": "joint_opened_bundle"}[which])
    found, owner = to_json(opened.identity), OWNERS[name]
    assert found == json.loads(json.dumps(found))
    assert (found["name"], found["precision"]) == (name, owner.precision or "fp32")
    assert isinstance(opened, GpuEngines) == owner.gpu
    assert found["device"] == (opened.gpu.name if isinstance(opened, GpuEngines) else "cpu")
    assert found["library"].split()[0] in (owner.one_of or owner.packages)
    assert found["sha256"] == {stage: bundle.files[file].sha256 for stage, file in what_runs(name, bundle).items()}


def what_runs(name: str, bundle: Bundle) -> dict[str, str]:
    """Stage -> the file of the bundle that computes it."""
    if "flavour" in OWNERS[name].options:
        return {stage: made.file for stage, made in bundle.engines[-1].stages.items()}
    if name == "onnx-cuda-fp16":
        return {stage: graph_file(stage, "fp16") for stage in STAGES}
    return {stage: CHECKPOINT_FILE if name == "torch" else graph_file(stage) for stage in STAGES}


@pytest.fixture
def made_up(tmp_path: Path) -> Bundle:
    """Right in form, with graphs and weights that are none."""
    fill(tmp_path)
    (tmp_path / WINOGRAD_FILE).write_bytes(b"no graph")
    write_manifest(tmp_path, facts())
    return open_bundle(tmp_path)


@pytest.fixture(params=[name for name, owner in OWNERS.items() if owner.precision is None and name != "openvino-mixed"])
def graph_runner(request: pytest.FixtureRequest) -> str:
    """Each engine that runs the bundle's graphs or weights; what was built from them has its own tests."""
    need_engine(request.param)
    return str(request.param)


def test_files_that_are_no_graphs(graph_runner: str, made_up: Bundle) -> None:
    error = CheckpointError if graph_runner == "torch" else BundleError
    with pytest.raises(error, match=r"^the bundle's weights|^global graph: it is not an ONNX file"):
        open_engines(graph_runner, made_up, EngineOptions())


def test_changed_files_are_not_run(graph_runner: str, made_up: Bundle) -> None:
    for file in made_up.files:
        content = made_up.path(file).read_bytes()
        made_up.path(file).write_bytes(content[::-1])
    with pytest.raises(BundleError, match="was changed"):
        open_engines(graph_runner, made_up, EngineOptions())


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_a_precision_that_is_not_there_is_refused_and_no_other_taken(
    graph_runner: str, made_up: Bundle, precision: Precision
) -> None:
    with pytest.raises((UsageError, BundleError), match=precision):
        open_engines(graph_runner, made_up, EngineOptions(precision=precision))


@pytest.mark.parametrize("unknown", ["tensorflow", "", "ONNX", "onnx "])
def test_unknown_engine(made_up: Bundle, unknown: str) -> None:
    with pytest.raises(UsageError, match=f"engine {unknown!r} is unknown") as caught:
        open_engines(unknown, made_up, EngineOptions())
    assert all(engine in str(caught.value) for engine in ENGINE_NAMES)


@pytest.mark.parametrize("asked", ENGINE_NAMES)
def test_missing_packages_are_named_and_no_other_engine_is_taken(
    monkeypatch: pytest.MonkeyPatch, made_up: Bundle, asked: str
) -> None:
    owner = "onnx" if asked == "auto" else asked
    lacking = replace(OWNERS[owner], packages=("json", "no_such_engine", "nor.this"), one_of=())
    monkeypatch.setitem(OWNERS, owner, lacking)
    with pytest.raises(BackendUnavailable) as caught:
        open_engines(asked, made_up, EngineOptions())
    message = str(caught.value)
    assert f"engine '{asked}' needs no_such_engine, nor.this, which" in message
    assert all(install_command(extra) in message for extra in lacking.extras)


def test_reference_needs_the_weights(made_up: Bundle) -> None:
    made_up.path(CHECKPOINT_FILE).unlink()
    write_manifest(made_up.folder, facts())
    with pytest.raises(BackendUnavailable, match="--no-checkpoint"):
        open_engines("torch", open_bundle(made_up.folder), EngineOptions())


def test_a_graph_of_another_network_than_the_manifests_is_refused_when_opened(
    graph_runner: str, joint_bundle: Path
) -> None:
    if graph_runner == "torch":
        pytest.skip("runs the weights, not the graphs")
    if graph_runner.endswith("winograd"):
        pytest.skip("this bundle has no Winograd's form; the fusion graph is that of onnx and openvino")
    bundle = open_bundle(joint_bundle)
    network = replace(bundle.manifest.network, aggregation="concatenation")
    plain = replace(bundle, manifest=replace(bundle.manifest, network=network))
    with pytest.raises(BundleError, match="fusion graph: its inputs are"):
        open_engines(graph_runner, plain, EngineOptions())
