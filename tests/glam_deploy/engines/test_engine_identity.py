"""What an engine is known by. Digests are those that releases with untyped provenance recorded in bundles."""

import hashlib
import json
from dataclasses import FrozenInstanceError, replace

import pytest

from glam_deploy.engines.base import EngineIdentity
from glam_deploy.json_records import JsonFault, from_json, to_json
from glam_deploy.precision import BF16, FP32, INT8, INT8_WINOGRAD, Recipe, StageRecipes

HASHES = {"global": "11", "local": "22", "fusion": "33"}
MIXED = StageRecipes(recipes={"global": INT8, "local": INT8_WINOGRAD, "fusion": FP32})
OPENVINO = EngineIdentity(
    name="openvino-int8",
    library="openvino 2026.4.1",
    device="cpu",
    precision=StageRecipes(recipes=Recipe(weights="int8", floats="fp32")),
    sha256=HASHES,
)
TENSORRT = EngineIdentity(
    name="fp16",
    library="tensorrt 11.4.0.1",
    device="NVIDIA L4",
    precision=StageRecipes(recipes=Recipe(weights="fp16")),
    sha256=HASHES,
    flavour="tensorrt",
    key="5e" * 32,
    compute_capability="8.9",
    driver="580.95.05",
)


@pytest.mark.parametrize("identity", [OPENVINO, TENSORRT, replace(OPENVINO, name="openvino-mixed", precision=MIXED)])
def test_the_digest_is_that_of_the_json_of_five_fields(identity: EngineIdentity) -> None:
    """As it was computed from provenance; a field that an engine lacks is null."""
    provenance = to_json(identity)
    counted = {key: provenance.get(key) for key in ("name", "library", "precision", "flavour", "sha256")}
    text = json.dumps(counted, sort_keys=True, separators=(",", ":"))
    assert identity.digest == hashlib.sha256(text.encode()).hexdigest()
    assert from_json(EngineIdentity, json.loads(json.dumps(provenance))) == identity


def test_keys_of_results_are_those_of_before() -> None:
    assert to_json(OPENVINO) == {
        "name": "openvino-int8",
        "library": "openvino 2026.4.1",
        "device": "cpu",
        "precision": "int8+fp32",
        "sha256": HASHES,
    }
    assert to_json(TENSORRT).keys() == {
        *("name", "library", "device", "precision", "sha256", "flavour", "key", "compute_capability", "driver")
    }
    assert to_json(replace(OPENVINO, precision=MIXED))["precision"] == "global int8, local int8+winograd, fusion fp32"


def test_a_misspelled_field_cannot_be_built() -> None:
    with pytest.raises(TypeError, match="precission"):
        replace(OPENVINO, precission=MIXED)  # type: ignore[call-arg]
    with pytest.raises(JsonFault, match="precission is unknown"):
        from_json(EngineIdentity, to_json(OPENVINO) | {"precission": "fp16"})
    with pytest.raises(FrozenInstanceError):
        OPENVINO.name = "onnx"  # type: ignore[misc]


def test_the_form_of_the_convolutions() -> None:
    assert OPENVINO.form("local") == "direct"
    assert replace(OPENVINO, precision=MIXED).form("local") == "winograd"
    named = replace(OPENVINO, name="onnx-winograd", precision=StageRecipes(recipes=BF16))
    assert (named.form("global"), named.form("local")) == ("direct", "winograd")
