"""Names of engines, what each needs and what it can be told."""

import re
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.bundles import fill
from support.commands import install_line
from support.engines import fake_identity

from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.cli.main import exit_code
from glam_deploy.engines import registry
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.engines.registry import ENGINE_NAMES, OWNERS, Owner, open_engines
from glam_deploy.errors import BackendUnavailable, UsageError

TOLD: dict[str, Any] = {
    "threads": 2,
    "precision": "fp16",
    "flavour": "tensorrt",
    "device": 0,
    "streams": 2,
    "cache": Path("compiled"),
}
"""Something else than the default for every option."""


class Recorder:
    """Stands in for an owner's module."""

    def __init__(self) -> None:
        self.asked: list[EngineOptions] = []

    def open_engines(self, bundle: Bundle, options: EngineOptions) -> OpenedEngines:
        self.asked.append(options)
        return OpenedEngines(engines={}, identity=fake_identity())

    open_cuda_engines = open_half_engines = open_mixed_engines = open_winograd_engines = open_engines


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    fill(tmp_path)
    return open_bundle(tmp_path)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Every owner is this one, and nothing is missing."""
    made = Recorder()
    monkeypatch.setattr(registry.importlib, "import_module", lambda name: made)
    for name, owner in OWNERS.items():
        monkeypatch.setitem(OWNERS, name, replace(owner, packages=(), one_of=()))
    return made


def test_every_option_is_told_here() -> None:
    assert TOLD.keys() == {field.name for field in fields(EngineOptions)}
    assert all(TOLD[field.name] != field.default for field in fields(EngineOptions))
    assert all(set(owner.options) <= TOLD.keys() for owner in OWNERS.values())


@pytest.mark.parametrize("option", TOLD)
@pytest.mark.parametrize("name", ENGINE_NAMES)
def test_an_option_is_honoured_or_refused_never_ignored(
    recorder: Recorder, bundle: Bundle, name: str, option: str
) -> None:
    owner = OWNERS["onnx" if name == "auto" else name]
    options = EngineOptions(**{option: TOLD[option]})
    if option in owner.options:
        open_engines(name, bundle, options)
        assert getattr(recorder.asked[0], option) == TOLD[option]
        return
    shown = TOLD[option] if isinstance(TOLD[option], Path) else repr(TOLD[option])
    refusal = re.escape(f"engine {name!r} does not support the option {option} = {shown}")
    with pytest.raises(UsageError, match=refusal) as caught:
        open_engines(name, bundle, options)
    able = [key for key, other in OWNERS.items() if option in other.options]
    assert str(caught.value).endswith(f"Remove it; these engines support it: {', '.join(able)}.")
    assert recorder.asked == []


@pytest.mark.parametrize("name", OWNERS)
def test_threads_are_for_the_cpu_and_indices_for_gpus(name: str) -> None:
    options = OWNERS[name].options
    assert ("threads" in options, "device" in options) == (not OWNERS[name].gpu, OWNERS[name].gpu)
    assert ("flavour" in options) == bool(OWNERS[name].one_of)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_names_that_are_precisions(recorder: Recorder, bundle: Bundle, precision: str) -> None:
    open_engines(precision, bundle, EngineOptions(flavour="tensorrt-rtx", device=1))
    assert recorder.asked == [EngineOptions(precision=precision, flavour="tensorrt-rtx", device=1)]  # type: ignore[arg-type]


def test_auto_is_onnx_on_the_cpu(recorder: Recorder, bundle: Bundle) -> None:
    assert (registry.AUTO, OWNERS[registry.AUTO].gpu) == ("onnx", False)


SPEC = SimpleNamespace(origin="package/__init__.py")


def needs(**changes: Any) -> Owner:
    return Owner(module="nothing", summary="made up", **changes)


@pytest.mark.parametrize(
    ("owner", "missing"),
    [
        (needs(packages=("json", "email.mime")), ()),
        (needs(packages=("no_such", "json", "no.such")), ("no_such", "no.such")),
        (needs(packages=(), one_of=("no_such", "json")), ()),
        (needs(packages=("json",), one_of=("no_such", "nor.this")), ("no_such or nor.this",)),
        (needs(packages=("neither",), one_of=("no_such",)), ("neither", "no_such")),
    ],
)
def test_missing(owner: Owner, missing: tuple[str, ...]) -> None:
    assert owner.missing == missing


def test_a_folder_that_an_uninstallation_has_left_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "left_behind").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert needs(packages=("left_behind",)).missing == ("left_behind",)


def test_tensorrt_of_either_flavour_will_do(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None if "tensorrt" in name else SPEC)
    with pytest.raises(BackendUnavailable) as caught:
        open_engines("fp16", bundle, EngineOptions())
    assert str(caught.value) == (
        "engine 'fp16' needs tensorrt or tensorrt_rtx, which this Python lacks. Install with: "
        f"{install_line('tensorrt')} or {install_line('tensorrt-rtx')}, or choose another engine."
    )
    assert caught.value.exit_code == 3
    for flavour in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setattr(registry, "find_spec", lambda name, has=flavour: SPEC if name == has else None)
        assert OWNERS["fp16"].missing == registry.CUDA


def test_help_names_every_engine_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["run", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "fp32, fp16, bf16: the bundle's TensorRT engines, NVIDIA GPU" in text
    assert "auto: the fastest with a passed gate, else onnx." in text
    for owner in OWNERS.values():
        assert text.count(owner.summary) == 1


@pytest.mark.parametrize(
    "given", [{"threads": 0}, {"threads": 2.5}, {"threads": "2"}, {"streams": -1}, {"streams": True}, {"device": -1}]
)
def test_numbers_out_of_range_are_refused_with_their_value(given: dict[str, Any]) -> None:
    ((name, value),) = given.items()
    with pytest.raises(UsageError, match=re.escape(f"{name} = {value!r}: expected a whole number of ")):
        EngineOptions(**given)


def test_a_folder_is_named_as_it_was_typed() -> None:
    with pytest.raises(UsageError, match=r"does not support the option cache = x\. Remove it"):
        open_engines("onnx", None, EngineOptions(cache=Path("x")))  # type: ignore[arg-type]
