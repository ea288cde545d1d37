"""Half graphs as they are exported, run on the CPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.half import HALF, assert_rounded_alike, rounded_global, rounded_local
from torch import Tensor, nn

from glam_deploy.agreement.answers import differences
from glam_deploy.agreement.limits import Limits
from glam_deploy.agreement.metrics import compare
from glam_deploy.bundle import open_bundle
from glam_deploy.engines.base import Arrays, EngineOptions
from glam_deploy.engines.registry import open_engines
from glam_deploy.networks import GLAM, GLAM_CONCATENATION
from glam_deploy.precision import PRECISIONS, Precision, StageRecipes
from glam_deploy.records import GlobalMaps
from glam_deploy.runtime import patching
from glam_export.graphs.onnx_file import write_graph
from glam_export.networks import graph_modules
from glam_export.precision.half import RoundedEngine, rounded, rounded_engines
from glam_export.reference.glam import GlamNetwork

TYPES = dict(HALF)

network = pytest.mark.network


class Loud(nn.Module):
    """A local stage whose logits are 50,000 times a pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, 2, 1, 4).half()
        nn.init.constant_(self.head.weight, 50_000)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.head(patches.half()).float()
        return logits.sigmoid(), logits[:, 0].flatten(1)[:, :512]


def test_numbers_beyond_fp16_come_out_as_infinite_and_miss(tmp_path: Path) -> None:
    write_graph(Loud(), "local", tmp_path / "l.onnx", network=GLAM_CONCATENATION, precision="fp16")
    graph = rounded((tmp_path / "l.onnx").read_bytes())
    engine = RoundedEngine(graph, "local", EngineOptions(), network=GLAM_CONCATENATION)
    for pixel, expected in ((1, 50_000), (2, np.inf)):
        z = engine.run({"patches": np.full((1, 1, 512, 512), pixel, np.float32)})["z_k"]
        assert z[0, 0] == pytest.approx(expected, rel=2**-11)
        assert compare("z", z, np.full_like(z, pixel * 50_000), precision="fp16").passed == (pixel == 1)


@pytest.fixture(scope="module")
def case() -> dict[str, np.ndarray]:
    """What the published implementation says of one image with one patch."""
    with np.load(Path(__file__).parents[2] / "golden" / "case_k1.npz") as file:
        return dict(file) | {"patch_locations": file["patch_locations"].astype(np.int64)}


@pytest.fixture(scope="module")
def image(case: dict[str, np.ndarray], golden_image: Callable[[int], np.ndarray]) -> np.ndarray:
    return golden_image(int(case["seeds"][0]))


@pytest.fixture(scope="module")
def patch(case: dict[str, np.ndarray], image: np.ndarray) -> np.ndarray:
    return patching.crop(image, case["patch_locations"][0], GLAM.patches.side)


@pytest.fixture(scope="module")
def overview(golden_bundle: Path, image: np.ndarray) -> dict[str, Arrays]:
    """What the half graphs say of the image, by precision."""
    bundle = open_bundle(golden_bundle)
    return {p: rounded_engines(bundle, p)["global"].run({"image": image[None, None]}) for p in PRECISIONS[1:]}


@pytest.fixture(scope="module")
def local(golden_bundle: Path, patch: np.ndarray) -> Arrays:
    """What the fp16 graph says of the reference's patch."""
    return rounded_engines(open_bundle(golden_bundle), "fp16")["local"].run({"patches": patch})


@network
@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_global_graph_rounds_where_its_twin_does(
    golden_network: GlamNetwork,
    case: dict[str, np.ndarray],
    image: np.ndarray,
    overview: dict[str, Arrays],
    precision: Precision,
) -> None:
    graph = graph_modules(golden_network)["global"]
    with torch.inference_mode():
        twins = rounded_global(graph, torch.tensor(image[None, None]), TYPES[precision])
    found = overview[precision]
    for name, twin in zip(("saliency_global", "y_scale"), twins, strict=False):
        plain = case[name] if name == "saliency_global" else case[name].transpose(1, 0, 2)
        assert_rounded_alike(torch.tensor(found[name]), twin, torch.tensor(plain), TYPES[precision], share=1 / 4)


@pytest.mark.slow
@network
def test_local_graph_rounds_where_its_twin_does(
    golden_network: GlamNetwork, case: dict[str, np.ndarray], patch: np.ndarray, local: Arrays
) -> None:
    graph = graph_modules(golden_network)["local"]
    with torch.inference_mode():
        twin, _ = rounded_local(graph, torch.tensor(patch), torch.float16)
    plain = torch.tensor(case["saliency_local"][0])
    # deep, with random weights: where the order of a sum turns one rounding, all that follows is another
    assert_rounded_alike(torch.tensor(local["saliency_patches"]), twin, plain, torch.float16, share=0.6)


@network
@pytest.mark.slow
def test_fp16_finds_what_the_published_implementation_finds(
    case: dict[str, np.ndarray], image: np.ndarray, overview: dict[str, Arrays], local: Arrays
) -> None:
    found = overview["fp16"]
    maps = GlobalMaps(saliency=found["saliency_global"], y_scale=found["y_scale"], y_global=None, z_g=found["z_g"])
    chosen = patching.select(image[None, None], maps, 1, GLAM).locations[0]
    expected = {
        "patch_locations": case["patch_locations"][0],
        "saliency_global": case["saliency_global"][0],
        "saliency_patches": case["saliency_local"][0],
    }
    # the map of the reference's patch is that of the chosen one: the first thing to hold
    answer = {
        "patch_locations": chosen,
        "saliency_global": found["saliency_global"][0],
        "saliency_patches": local["saliency_patches"],
    }
    row = differences(answer, expected, GLAM)
    assert row.same_patches
    assert min(row.lesion_cells.values()) > 1000
    assert all(value is None or value >= Limits().dice_median for value in row.dice.values()), row.dice


@network
def test_default_engine_runs_the_fp16_graph_as_it_is(
    golden_bundle: Path, image: np.ndarray, overview: dict[str, Arrays]
) -> None:
    """It rounds less often, so it is not the twin: but it is no further from it than rounding goes."""
    opened = open_engines("onnx", open_bundle(golden_bundle), EngineOptions(precision="fp16"))
    assert opened.identity.precision == StageRecipes.from_json("fp16")
    for name, values in opened.engines["global"].run({"image": image[None, None]}).items():
        assert compare(name, values, overview["fp16"][name], precision="fp16").passed
