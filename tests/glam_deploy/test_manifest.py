"""The manifest as records: what is an error in it, and manifests of earlier releases, which have schema 1."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.bundles import edit_manifest, fill

from glam_deploy.bundle import MANIFEST, EngineEntry, open_bundle, read_manifest, replace_gates
from glam_deploy.engines.admission import newest_gate
from glam_deploy.engines.base import EngineIdentity
from glam_deploy.errors import BundleError
from glam_deploy.gpu.engines.tensorrt.identity import BuildInputs
from glam_deploy.json_records import json_sha256, to_json
from glam_deploy.precision import FP32, INT8_WINOGRAD, StageRecipes

SCHEMA_1 = Path(__file__).with_name("manifest_schema_1.json")
"""Of a bundle that a release of schema 1 wrote, with a gate that it ran; shortened, with a search and engines added."""
OPENVINO = "openvino 2026.4.1-22982-e213a147257-releases/2026/4"
"""The library of that gate."""

Edit = Callable[[dict[str, Any]], object]


def opened(text: bytes = SCHEMA_1.read_bytes()) -> Any:
    return read_manifest(text, Path(MANIFEST))


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A folder with small files and a manifest of schema 1 that names them."""
    fill(tmp_path)
    network = {"name": "GLAM", "classes": ["benign", "malignant"], "input_shape": [2944, 1920], "fusion_head": False}
    network |= {"aggregation": "concatenation", "patches": 3, "max_patches": 6, "precisions": ["fp32"]}
    gates = json.loads(SCHEMA_1.read_bytes())["gates"]
    edit_manifest(tmp_path, lambda m: m.update(schema_version=1, network=network, gates=gates))
    return tmp_path


# schema 1


def test_all_that_schema_1_has_is_read() -> None:
    manifest, content = opened(), json.loads(SCHEMA_1.read_bytes())
    assert to_json(manifest.network) == {
        "name": "GLAM",
        "aggregation": "attention",
        "patches": 1,
        "precisions": ["fp32", "fp16"],
    }
    written = to_json(manifest)
    others = content.keys() - {"schema_version", "network"}
    assert {key: written[key] for key in others} == {key: content[key] for key in others}
    assert written.keys() == {*others, "network"}
    assert manifest.mixture == {"fusion": FP32, "global": FP32, "local": INT8_WINOGRAD}


def test_loading_changes_no_byte_and_no_id(earlier: Path) -> None:
    before = (earlier / MANIFEST).read_bytes()
    bundle = open_bundle(earlier)
    assert bundle.id == hashlib.sha256(before).hexdigest()
    assert bundle.patches == 3
    assert (earlier / MANIFEST).read_bytes() == before


def test_an_amended_bundle_has_schema_2_and_the_same_facts(earlier: Path) -> None:
    bundle = open_bundle(earlier)
    amended = replace_gates(bundle, [*bundle.gates, replace(bundle.gates[0], id="newer")])
    content = json.loads((earlier / MANIFEST).read_bytes())
    assert content["schema_version"] == 2
    assert content["network"].keys() == {"name", "aggregation", "patches", "precisions"}
    assert replace(amended.manifest, gates=bundle.gates) == bundle.manifest
    assert amended.id != bundle.id
    amended.check()


def test_gates_of_earlier_releases_still_count(earlier: Path) -> None:
    """The digest in the file is the one that the engine has now."""
    files = opened().files
    graphs = {stage: files[f"graphs/{stage}.onnx"].sha256 for stage in ("global", "local", "fusion")}
    recipes = StageRecipes(recipes=FP32)
    identity = EngineIdentity(name="openvino", library=OPENVINO, device="cpu", precision=recipes, sha256=graphs)
    gate = newest_gate(open_bundle(earlier), identity)
    assert gate
    assert gate.passed
    assert identity.digest == gate.digest == "e0a28f3361ebe7d5abe287d9cb67bc6ed6c047bd755f24dfdce8dbae13fa4aa0"
    content = {name: value for name, value in to_json(gate).items() if name != "id"}
    assert json_sha256(content)[:12] == gate.id == "f219438c7f31"


def test_engines_of_earlier_releases_are_known_by_the_same_key() -> None:
    entry: EngineEntry = opened().engines[0]
    inputs = BuildInputs(
        precision=entry.precision,
        flavour=entry.flavour,
        library=entry.library,
        made_for=entry.made_for,
        options=entry.options,
        graphs={stage: made.graph_sha256 for stage, made in entry.stages.items()},
        kernels_sha256=entry.kernels_sha256,
    )
    assert inputs.key == entry.key
    assert sorted(entry.files) == sorted(name for name in opened().files if name.startswith("engines/"))


def test_a_search_of_another_form_is_left_out() -> None:
    content = json.loads(SCHEMA_1.read_bytes())
    content["frontier"][0]["precision"] = content["frontier"][0].pop("kind")
    manifest = opened(json.dumps(content).encode())
    assert (manifest.mixture, manifest.frontier) == (None, ())
    assert manifest.gates


# what is an error


def unknown_fact(manifest: dict[str, Any]) -> None:
    manifest["note"] = "x"


def unknown_in_the_checkpoint(manifest: dict[str, Any]) -> None:
    manifest["checkpoint"]["size"] = 1


def unknown_in_the_network(manifest: dict[str, Any]) -> None:
    manifest["network"]["classes"] = ["benign", "malignant"]


def unknown_in_a_gate(manifest: dict[str, Any]) -> None:
    manifest["gates"] = json.loads(SCHEMA_1.read_bytes())["gates"]
    manifest["gates"][0]["machine"]["gpu"] = "L4"


def unknown_stage(manifest: dict[str, Any]) -> None:
    manifest["mixture"] = {"head": "fp32"}


def unknown_recipe(manifest: dict[str, Any]) -> None:
    manifest["mixture"] = {"local": "int4"}


def unknown_precision(manifest: dict[str, Any]) -> None:
    manifest["network"]["precisions"] = ["fp8"]


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (unknown_fact, "note is unknown to this release"),
        (unknown_in_the_checkpoint, r"checkpoint\.size is unknown to this release"),
        (unknown_in_the_network, r"network\.classes is unknown to this release"),
        (unknown_in_a_gate, r"gates\[0\]\.machine\.gpu is unknown to this release"),
        (unknown_stage, r"mixture\.head is unknown to this release"),
        (unknown_recipe, r"mixture\.local is 'int4', expected one of fp32, bf16, winograd, int8, int8\+bf16"),
        (unknown_precision, r"network\.precisions\[0\] is 'fp8', expected one of fp32, fp16, bf16, int8"),
    ],
)
def test_what_is_unknown_is_an_error_that_says_what_to_do(tmp_path: Path, edit: Edit, fault: str) -> None:
    fill(tmp_path)
    edit_manifest(tmp_path, edit)
    remedy = "Use the release of glam-deploy that wrote the bundle, or export the checkpoint again"
    with pytest.raises(BundleError, match=rf"manifest\.json: {fault}.*\. {remedy}\.$"):
        open_bundle(tmp_path)


@pytest.mark.parametrize("edit", [unknown_fact, unknown_in_the_checkpoint, unknown_in_a_gate])
def test_schema_1_is_as_strict_outside_of_its_network(earlier: Path, edit: Edit) -> None:
    edit_manifest(earlier, edit)
    with pytest.raises(BundleError, match="is unknown to this release"):
        open_bundle(earlier)


@pytest.mark.parametrize("network", [{"name": "GMIC"}, {"aggregation": "mean"}])
def test_another_network_is_refused_by_name(tmp_path: Path, network: dict[str, str]) -> None:
    fill(tmp_path)
    edit_manifest(tmp_path, lambda manifest: manifest["network"].update(network))
    with pytest.raises(BundleError, match=r"is unknown; this release has GLAM with attention aggregation, .*\. Use"):
        open_bundle(tmp_path)
