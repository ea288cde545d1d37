"""Arrays of torch, CuPy, numba and PyCUDA, each where the library and a GPU are."""

from pathlib import Path

import numpy as np
import pytest
from expected import need, need_engine
from golden.recipe import mammogram
from support.gpu import with_engines
from support.libraries import LIBRARIES, check_loading, check_writing_and_reading, missing

from glam_deploy.engines.registry import OWNERS
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.session import pipeline_of

ENGINES = ("fp32", "onnx-cuda")
"""Any will do; the first that this machine can run is taken."""

pytestmark = [
    pytest.mark.network,
    pytest.mark.filterwarnings("default"),  # of libraries that warn of what is none of our business
]


@pytest.fixture(scope="module", params=LIBRARIES)
def name(request: pytest.FixtureRequest) -> str:
    need(request.param, missing(request.param))
    return str(request.param)


@pytest.fixture(scope="module")
def pipeline(name: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Two patches an image, so that their order shows."""
    engine = next((engine for engine in ENGINES if not OWNERS[engine].missing), ENGINES[0])
    need_engine(engine)
    folder: Path = request.getfixturevalue("golden_bundle")
    bundle = with_engines(engine, folder, tmp_path_factory)
    return pipeline_of(bundle, engine=engine, patches=2, ungated=True)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [mammogram(seed) for seed in (1, 2)]


def test_writing_into_a_slot_and_reading_from_it(name: str, pipeline: Pipeline, images: list[np.ndarray]) -> None:
    check_writing_and_reading(LIBRARIES[name](), pipeline, images)


def test_loading_an_array(name: str, pipeline: Pipeline, images: list[np.ndarray]) -> None:
    check_loading(LIBRARIES[name](), pipeline, images)
