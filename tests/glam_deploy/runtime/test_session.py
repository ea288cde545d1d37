"""What `load` hands on, and what an engine of the host refuses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import engines as support_engines
from support.bundles import fill

import glam_deploy
from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.engines import devices
from glam_deploy.engines.base import Chain, EngineOptions, OpenedEngines
from glam_deploy.engines.devices import Devices
from glam_deploy.engines.registry import OWNERS
from glam_deploy.errors import BackendUnavailable, UsageError
from glam_deploy.networks import GLAM
from glam_deploy.records import UsedGpu
from glam_deploy.runtime import pipeline as pipeline_module
from glam_deploy.runtime.multi_gpu import GpuChain
from glam_deploy.runtime.session import pipeline_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose engine "onnx" costs nothing and honours threads alone."""
    monkeypatch.setitem(OWNERS, "onnx", OWNERS["onnx"])
    support_engines.install()
    fill(tmp_path)
    return tmp_path


def test_the_bundles_own_number_of_patches(folder: Path) -> None:
    assert glam_deploy.load(folder).patches == 1
    assert glam_deploy.load(folder, patches=5).patches == 5


@pytest.mark.parametrize("option", [{"streams": 2}, {"cache": "compiled"}], ids=lambda o: next(iter(o)))
def test_options_of_openvino_are_refused_by_others(folder: Path, option: dict[str, object]) -> None:
    with pytest.raises(
        UsageError, match=f"{next(iter(option))} = .* Remove it; these engines support it: openvino, openvino-winograd"
    ):
        glam_deploy.load(folder, engine="onnx", **option)


def test_streams_and_cache_reach_the_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    able = replace(OWNERS["onnx"], options=("threads", "streams", "cache"))
    monkeypatch.setitem(OWNERS, "onnx", able)
    seen: list[EngineOptions] = []
    monkeypatch.setattr(support_engines, "open_engines", recording(seen))
    glam_deploy.load(folder, engine="onnx", streams=3, cache="compiled", threads=6, ungated=True)
    assert seen == [EngineOptions(streams=3, cache=Path("compiled"), threads=6)]


def recording(seen: list[EngineOptions]) -> Callable[[Bundle, EngineOptions], OpenedEngines]:
    def open_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
        seen.append(options)
        return support_engines.opened_fakes()

    return open_engines


@pytest.mark.parametrize("option", [{"device": 0}, {"flavour": "tensorrt"}, {"slots": 2}], ids=lambda o: next(iter(o)))
def test_options_of_a_gpu_are_refused_on_a_cpu(folder: Path, option: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(option))} = "):
        glam_deploy.load(folder, engine="onnx", **option)


# several GPUs


@pytest.fixture
def gpus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Models of this machine's GPUs, for which "onnx" is an engine; a test may change them."""
    models = ["H200", "H200", "H200"]

    def open_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
        identity = support_engines.fake_identity("onnx", device=models[options.device or 0])
        return replace(support_engines.opened_fakes(), identity=identity)

    def chain_of(models: list[OpenedEngines], make: Callable[..., Chain]) -> GpuChain:
        opened.append(models[0].identity.device)
        return GpuChain(gpu=UsedGpu(index=len(opened) - 1, uuid=f"GPU-{len(opened)}"), chain=make(models))

    opened: list[str] = []
    monkeypatch.setitem(OWNERS, "onnx", replace(OWNERS["onnx"], options=("device",), gpu=True))
    monkeypatch.setattr(support_engines, "open_engines", open_engines)
    monkeypatch.setattr(pipeline_module, "_on_gpu", chain_of)
    monkeypatch.setattr(devices, "count_gpus", lambda: len(models))
    return models


@pytest.mark.parametrize(("device", "count"), [((0, 1), 2), ([2, 0, 1], 3), ("all", 3)])
def test_the_views_of_several_gpus_are_in_order(folder: Path, gpus: list[str], device: Devices, count: int) -> None:
    images = [standardized(seed) for seed in range(5)]
    with (
        glam_deploy.load(folder, engine="onnx", device=0) as one,
        glam_deploy.load(folder, engine="onnx", device=device) as several,
    ):
        found, expected = list(several.map(images)), list(one.map(images))
        assert several.in_flight == count
    assert [result.provenance["gpu"]["index"] for result in found] == [n % count for n in range(5)]
    assert [result.y_global.tolist() for result in found] == [result.y_global.tolist() for result in expected]
    assert all(result.provenance["engine"] == expected[0].provenance["engine"] for result in found)
    assert "gpu" not in expected[0].provenance


def standardized(seed: int) -> np.ndarray:
    image = np.random.default_rng(seed).standard_normal(GLAM.input_shape, np.float32)
    return (image - image.mean()) / image.std()


def test_all_of_one_gpu_is_one_gpu(folder: Path, gpus: list[str]) -> None:
    del gpus[1:]
    with glam_deploy.load(folder, engine="onnx", device="all") as pipeline:
        assert "gpu" not in pipeline(standardized(0)).provenance


def test_each_gpu_has_all_models_of_an_ensemble(folder: Path, gpus: list[str]) -> None:
    """The mean of two equal models is one model."""
    bundle, options = open_bundle(folder), EngineOptions(device=0)
    given = {"engine": "onnx", "options": options}
    several = pipeline_of(bundle, others=[bundle], further_gpus=[1], **given)  # type: ignore[arg-type]
    found = [several(standardized(0)) for _ in range(2)]
    expected = pipeline_of(bundle, **given)(standardized(0))  # type: ignore[arg-type]
    assert [result.provenance["gpu"]["index"] for result in found] == [0, 1]
    assert all(np.array_equal(result.y_global, expected.y_global) for result in found)


def test_gpus_of_two_models_are_refused(folder: Path, gpus: list[str]) -> None:
    gpus[1] = "L4"
    with pytest.raises(UsageError, match=r"GPU 1 \(L4\) would compute with another engine than the first GPU \(H200\)"):
        glam_deploy.load(folder, engine="onnx", device=(0, 1))


def test_a_gpu_without_an_engine_is_named(folder: Path, gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def open_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
        if options.device == 2:
            raise BackendUnavailable("none of its fp16 engines fits this machine")
        return support_engines.opened_fakes()

    monkeypatch.setattr(support_engines, "open_engines", open_engines)
    with pytest.raises(BackendUnavailable, match=r"^GPU 2: none of its fp16 engines fits this machine"):
        glam_deploy.load(folder, engine="onnx", device=(1, 2), ungated=True)


def test_a_pipeline_on_several_gpus_lends_no_slot(folder: Path, gpus: list[str]) -> None:
    pipeline = glam_deploy.load(folder, engine="onnx", device=(0, 1))
    with pytest.raises(UsageError, match="a pipeline on several GPUs has no slots"), pipeline.slot():
        pass


@pytest.mark.parametrize("device", [(), (0, 0), (0, None), (-1, 0), (0, 1.5), "0", 1.5, "every"])
def test_selections_that_are_none(folder: Path, gpus: list[str], device: Devices) -> None:
    with pytest.raises(UsageError, match="device = "):
        glam_deploy.load(folder, engine="onnx", device=device)


def test_all_gpus_for_an_engine_of_the_cpu(folder: Path) -> None:
    with pytest.raises(UsageError, match="device = 'all': engine 'onnx' runs on the CPU"):
        glam_deploy.load(folder, engine="onnx", device="all")
