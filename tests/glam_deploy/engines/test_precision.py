"""What engines say that they compute in is understood, for every engine and kind of CPU."""

from pathlib import Path

import pytest
from support.bundles import facts, fill, write_manifest
from support.engines import fake_engines, fill_with_golden, small_view

from glam_deploy.agreement.golden import check_golden
from glam_deploy.bundle import WINOGRAD_FILE, Bundle, graph_file, open_bundle
from glam_deploy.engines import cpu, openvino
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.engines.registry import OWNERS, open_engines
from glam_deploy.errors import BackendUnavailable, InternalError
from glam_deploy.precision import BF16, FP32, INT8, MIXTURE_RECIPES, RECIPES, Recipe, StageRecipes
from glam_deploy.runtime.pipeline import Pipeline

CPUS = {
    "avx2": "fma avx2",
    "vnni": "fma avx2 avx512f avx512_vnni",
    "avx512-bf16": "fma avx2 avx512f avx512_vnni avx512_bf16",
    "amx": "fma avx2 avx512f avx512_vnni avx512_bf16 amx_tile amx_int8 amx_bf16",
}
"""Flags of /proc/cpuinfo."""
HAVE_BF16 = ("avx512-bf16", "amx")
ON_CPU = [name for name in OWNERS if name.startswith("openvino")]
KINDS = [str(recipe) for recipe in MIXTURE_RECIPES]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Graphs of every kind by name, and the golden case of the fakes."""
    fill(tmp_path)
    for file in (*(graph_file(stage, "int8") for stage in ("global", "local")), WINOGRAD_FILE):
        (tmp_path / file).write_bytes(file.encode())
    fill_with_golden(open_bundle(tmp_path), small_view())
    return open_bundle(tmp_path)


@pytest.fixture
def processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Another processor from now on. Nothing is compiled, the fakes compute."""
    path = tmp_path.with_suffix(".cpuinfo")
    path.write_text(f"flags\t\t: {CPUS[request.param]}\n")
    read = cpu.features
    monkeypatch.setattr(cpu, "features", lambda: read(path))
    fakes = fake_engines()
    monkeypatch.setattr(openvino, "_engine", lambda bundle, stage, recipe, options: fakes[stage])
    return str(request.param)


def verified(bundle: Bundle, name: str) -> OpenedEngines:
    """Opened, and held against the golden case as `verify` does."""
    opened = open_engines(name, bundle, EngineOptions())
    rows = check_golden(bundle, Pipeline(opened, patches=1, provenance={}))
    assert all(row.passed for row in rows)
    return opened


@pytest.mark.parametrize("processor", CPUS, indirect=True)
@pytest.mark.parametrize("name", [name for name in ON_CPU if name != "openvino-mixed"])
def test_every_engine_is_verified_on_every_cpu(bundle: Bundle, processor: str, name: str) -> None:
    if name == "openvino-bf16" and processor not in HAVE_BF16:
        with pytest.raises(BackendUnavailable, match="bf16 needs a CPU with avx512_bf16 or amx_bf16"):
            verified(bundle, name)
        return
    expected = {"openvino-bf16": "bf16", "openvino-int8": "int8"}.get(name, "fp32")
    assert verified(bundle, name).identity.precision["local"].weights == expected


@pytest.mark.parametrize("processor", CPUS, indirect=True)
@pytest.mark.parametrize("local", KINDS)
@pytest.mark.parametrize("whole", [kind for kind in KINDS if "winograd" not in kind])
def test_every_mixture_is_understood_on_every_cpu(bundle: Bundle, processor: str, whole: str, local: str) -> None:
    write_manifest(bundle.folder, facts() | {"mixture": {"global": whole, "local": local}})
    mixed = open_bundle(bundle.folder)
    if processor not in HAVE_BF16 and "bf16" in whole + local:
        with pytest.raises(BackendUnavailable, match="bf16 needs a CPU with"):
            open_engines("openvino-mixed", mixed, EngineOptions())
        return
    opened = open_engines("openvino-mixed", mixed, EngineOptions())
    found = opened.identity.precision
    expected = [kind.partition("+")[0].replace("winograd", "fp32") for kind in (whole, local)]
    assert [found[stage].weights for stage in ("global", "local", "fusion")] == [*expected, "fp32"]


@pytest.mark.parametrize("processor", ["amx"], indirect=True)
def test_a_mixture_is_verified(bundle: Bundle, processor: str) -> None:
    """The one that the first `verify` of a mixture ended with a KeyError on."""
    write_manifest(bundle.folder, facts() | {"mixture": {"global": "fp32", "local": "bf16"}})
    opened = verified(open_bundle(bundle.folder), "openvino-mixed")
    assert str(opened.identity.precision) == "global fp32, local bf16, fusion fp32"


@pytest.mark.parametrize("precision", ["", "float32", "global fp32", "global fp32, local tf32, fusion fp32", "int8+"])
def test_what_no_engine_writes_is_not_guessed_at(precision: str) -> None:
    with pytest.raises(InternalError, match="the engine's precision is"):
        StageRecipes.from_json(precision)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_read_as_it_is_written(recipe: Recipe) -> None:
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert StageRecipes.from_json(str(recipe)) == StageRecipes(recipes=recipe)


def test_texts_of_recipes_are_those_of_recorded_gates() -> None:
    """They are part of every engine's digest."""
    assert [str(recipe) for recipe in RECIPES] == [
        *("fp32", "bf16", "winograd", "int8", "int8+bf16", "int8+winograd", "bf16+winograd", "int8+bf16+winograd"),
        *("fp16", "int8+fp32"),
    ]
    mixed = StageRecipes(recipes={"global": INT8, "local": BF16, "fusion": FP32})
    assert str(mixed) == "global int8, local bf16, fusion fp32"
    assert StageRecipes.from_json(str(mixed)) == mixed
    assert mixed.coarsest(["fusion"]) == "fp32"
    assert mixed.coarsest(["local", "fusion"]) == "bf16"
    assert mixed.coarsest(["global", "local", "fusion"]) == "int8"
