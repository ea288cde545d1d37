"""The contract with TensorRT's bindings, against those of TensorRT-RTX, which are installed; and its own eyesight."""

import copy
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from expected import need

from glam_bench.gpu import contract
from glam_deploy.gpu.engines.tensorrt import flavours
from glam_deploy.gpu.engines.tensorrt.flavours import FLAVOURS
from trt_bindings.asked import asked_in, names_of, sources, unlisted
from trt_bindings.offer import Offer, arities, offer_of
from trt_bindings.standins import beyond


@pytest.fixture(scope="module")
def rtx() -> Any:
    need("tensorrt-rtx", "" if FLAVOURS["tensorrt-rtx"].installed else "tensorrt_rtx")
    return flavours.load(FLAVOURS["tensorrt-rtx"]).trt


@pytest.fixture(scope="module")
def offer(rtx: Any) -> Offer:
    return offer_of(rtx, rtx=True)


def test_everything_that_is_asked_for_is_there(offer: Offer) -> None:
    assert offer.differences == []
    assert offer.subclasses == []


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_the_contract_lists_what_the_code_asks_for(offer: Offer, path: Path) -> None:
    assert unlisted(asked_in(path.read_text("utf-8")), names_of(offer.classes.values())) == []


def test_the_made_up_libraries_offer_nothing_that_the_real_one_lacks(offer: Offer) -> None:
    assert beyond(offer, rtx=True) == []


def test_every_file_that_holds_the_module_is_read() -> None:
    assert {path.stem for path in sources()} >= {"builder", "callbacks", "engine", "flavours", "library"}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("context.infer_shapes()", ["infer_shapes"]),
        ("if hasattr(settings, 'weight_streaming_budget_v2'): pass", ["weight_streaming_budget_v2"]),
        ("self.library.trt.Refitter(engine, log)", ["Refitter"]),
        ("config.set_flag(trt.BuilderFlag.REFIT)", ["BuilderFlag.REFIT"]),
        ("trt.LayerType.CONVOLUTION, network.num_layers, ours.append(1)", []),
    ],
)
def test_a_name_that_is_new_in_the_code_is_found(offer: Offer, code: str, found: list[str]) -> None:
    assert unlisted(asked_in(code), names_of(offer.classes.values())) == found


def test_a_made_up_class_that_offers_too_much_is_found(offer: Offer, monkeypatch: pytest.MonkeyPatch) -> None:
    from support import tensorrt as support_tensorrt
    from support import tensorrt_runtime as support_tensorrt_runtime

    monkeypatch.setattr(support_tensorrt.Config, "set_precision", lambda self, kind: None, raising=False)
    monkeypatch.setattr(support_tensorrt_runtime.ExecutionContext, "execute_async_v3", lambda self: True)
    first, second = beyond(offer, rtx=True)
    assert first == "support.tensorrt.Config.set_precision: IBuilderConfig has no such name"
    assert second.startswith("support.tensorrt_runtime.ExecutionContext.execute_async_v3: takes (0, 0) arguments")


# the comparison itself, on a module of docstrings as pybind11 writes them


def method(text: str) -> Any:
    return SimpleNamespace(__doc__=text)


def changed(rtx: Any, **classes: Any) -> ModuleType:
    """The real module with some classes replaced."""
    module = ModuleType("changed")
    vars(module).update({**vars(rtx), **classes})
    return module


class Properties:
    """As pybind11 documents them."""

    @staticmethod
    def of(get: str | None = None, set: str | None = None) -> property:
        def half(text: str | None) -> Any:
            if text is None:
                return None
            function = copy.copy(lambda *_: None)
            function.__doc__ = text
            return function

        return property(half(get), half(set))


@pytest.mark.parametrize(
    ("replaced", "words"),
    [
        ({"ITimingCache": type("T", (), {})}, "ITimingCache.serialize() -> IHostMemory: found nothing of that name"),
        (
            {"ITimingCache": type("T", (), {"serialize": method("serialize(self: a.B, x: int) -> a.IHostMemory")})},
            "ITimingCache.serialize() -> IHostMemory: found serialize(x: int) -> IHostMemory",
        ),
        (
            {"Runtime": None},
            "Runtime.engine_host_code_allowed = bool: found nothing of that name",
        ),
        ({"TensorIOMode": SimpleNamespace(__members__={"INPUT": 1})}, "TensorIOMode.OUTPUT: not there"),
        ({"nptype": lambda dtype: int}, "nptype(DataType.HALF): float16 expected, found int"),
    ],
)
def test_what_a_module_lacks_is_named(rtx: Any, replaced: dict[str, Any], words: str) -> None:
    assert words in contract.differences(changed(rtx, **replaced), rtx=True)


def test_a_property_that_can_no_longer_be_set(rtx: Any) -> None:
    readable = Properties.of("(arg0: trt.Runtime) -> bool\n")
    kind = type("Runtime", (), {**vars(rtx.Runtime), "engine_host_code_allowed": readable})
    assert contract.differences(changed(rtx, Runtime=kind), rtx=True) == [
        "Runtime.engine_host_code_allowed = bool: found nothing of that name"
    ]


def test_releases_of_pybind11_write_the_same_types_in_other_words() -> None:
    old = "f(self: tensorrt_bindings.tensorrt.A, x: int, y: List[tensorrt.Dims], z: buffer) -> nvinfer1::B"
    new = "f(self: a.b.A, x: typing.SupportsInt, y: list[a.b.Dims], z: typing_extensions.Buffer) -> a.b.B"
    assert contract.plain(old) == contract.plain(new) == "f(x: int, y: list[Dims], z: buffer) -> B"
    default = "g(self: a.B, strategy: a.b.S = <S.STATIC: 0>, n: int = 3) -> None"
    assert contract.plain(default) == "g(strategy: S = STATIC, n: int = 3) -> None"
    assert arities(method(default)) == [(0, 2)]
    both = "h(*args, **kwargs)\nOverloaded function.\n\n1. h(self: a.B, x: int) -> int\n\n    Words.\n\n2. h(self: a.B) -> int"  # noqa: E501
    assert contract.signatures(both) == {"h(x: int) -> int", "h() -> int"}
    assert arities(method(both)) == [(0, 0), (1, 1)]
