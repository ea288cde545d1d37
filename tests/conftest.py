"""Full-size weights and bundles, made once a session."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from cuda_host.build import build_kernels, missing
from expected import need
from filelock import FileLock
from golden import network
from golden.recipe import mammogram
from hypothesis import HealthCheck, Phase, settings
from torch import Tensor

from glam_deploy.bundle import CHECKPOINT_FILE, FUSION_WEIGHTS_FILE, graph_file, open_bundle, write_manifest
from glam_deploy.networks import GLAM, STAGES
from glam_deploy.precision import PRECISIONS, Precision
from glam_export.checkpoint import load_checkpoint, save_weights
from glam_export.exporter import ExportOptions, export_bundle
from glam_export.graphs.onnx_file import write_graph
from glam_export.networks import graph_modules
from glam_export.reference.glam import GlamNetwork
from glam_export.steps.write import fusion_weights


def pytest_configure() -> None:
    """The same in every way of running the tests: what a process inherits that they depend on.

    A run in the background is deaf to Ctrl-C, and so are its children; tests press it. A process of pytest-xdist has
    COLUMNS, which Rich keeps for good when a console is made: before a test sets another. By default Hypothesis fails
    examples that take longer than 200 ms, and data that is slow to make: any may be, under load.
    """
    phases = (Phase.explicit, Phase.generate) if "MUTANT_UNDER_TEST" in os.environ else tuple(Phase)
    settings.register_profile(
        "without a clock",
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        phases=phases,
        derandomize="MUTANT_UNDER_TEST" in os.environ,
    )
    settings.load_profile("without a clock")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("COLUMNS", None)
    import_module("glam_deploy.cli.console")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "_in_chromium" in item.nodeid:
            item.add_marker("chromium")


@pytest.fixture(scope="session", autouse=True)
def compiled_models_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and the processes that they start, neither use nor fill the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def host_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Library with the kernels compiled for the CPU."""
    need("g++", missing())
    return build_kernels(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="session")
def golden_image() -> Callable[[int], np.ndarray]:
    """`golden.recipe.mammogram`, which takes seconds, once for each seed: standardized, float32 [2944, 1920]."""

    @cache
    def image(seed: int) -> np.ndarray:
        made = mammogram(seed)
        made.flags.writeable = False  # others get it too
        return made

    return image


@pytest.fixture(scope="session")
def golden_state() -> dict[str, Tensor]:
    """The golden cases' state dict, all 352 keys; copy the dict before changing it, and never its tensors."""
    return network.state_dict()


@pytest.fixture(scope="session")
def golden_checkpoint(golden_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`golden_state` as torch.save writes it."""
    path = tmp_path_factory.mktemp("weights") / "golden.pt"
    torch.save(golden_state, path)
    return path


@pytest.fixture(scope="session")
def golden_network(golden_checkpoint: Path) -> GlamNetwork:
    """The reference with the golden cases' weights."""
    return load_checkpoint(golden_checkpoint).network


@pytest.fixture(scope="session")
def golden_bundle(golden_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a whole exported bundle in every precision, no fusion head. About a minute.

    Of several test processes (pytest-xdist) the first one makes it, and the others wait.
    """
    return _exported(golden_checkpoint, "golden_bundle", PRECISIONS, tmp_path_factory)


@pytest.fixture(scope="session")
def gmic_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GMIC's golden state dict as torch.save writes it, with the key that published files have beside it."""
    path = tmp_path_factory.mktemp("gmic") / "golden.p"
    torch.save(network.state_dict(network.GMIC) | {"shared_rep_filter.weight": torch.zeros(3)}, path)
    return path


@pytest.fixture(scope="session")
def gmic_bundle(gmic_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a whole exported bundle of GMIC in FP32 and FP16, as `golden_bundle`."""
    return _exported(gmic_checkpoint, "golden_gmic", ("fp32", "fp16"), tmp_path_factory)


def _exported(
    checkpoint: Path, name: str, precisions: tuple[Precision, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    own = tmp_path_factory.mktemp("golden")
    root = own.parents[1] if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = root / name
    with FileLock(root / f"{name}.lock"):
        if not folder.exists():
            export_bundle(checkpoint, folder, ExportOptions(precisions=precisions))
    return folder


@pytest.fixture(scope="session")
def joint_checkpoint(golden_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden weights plus attention and fusion layers."""
    path = tmp_path_factory.mktemp("weights") / "joint.pt"
    torch.save(golden_state | network.head_tensors(), path)
    return path


@pytest.fixture(scope="session")
def joint_network(joint_checkpoint: Path) -> GlamNetwork:
    """The reference with attention and fusion layers."""
    return load_checkpoint(joint_checkpoint).network


@pytest.fixture(scope="session")
def joint_bundle(golden_bundle: Path, joint_network: GlamNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with fusion head, without golden case: its global and local graphs are those of `golden_bundle`."""
    folder = tmp_path_factory.mktemp("joint") / "bundle"
    (folder / "graphs").mkdir(parents=True)
    for file in {graph_file(stage, precision) for stage in STAGES[:2] for precision in PRECISIONS}:
        (folder / file).hardlink_to(golden_bundle / file)
    write_graph(graph_modules(joint_network)["fusion"], "fusion", folder / graph_file("fusion"), network=GLAM)
    (folder / FUSION_WEIGHTS_FILE).write_bytes(fusion_weights(joint_network))
    save_weights(joint_network, folder / CHECKPOINT_FILE)
    manifest = open_bundle(golden_bundle).manifest
    write_manifest(folder, replace(manifest, network=replace(manifest.network, aggregation="attention")))
    return folder
