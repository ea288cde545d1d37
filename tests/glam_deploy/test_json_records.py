"""Frozen records from JSON and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from glam_deploy.json_records import JsonFault, from_json, parse_foreign_json, parse_json, to_json
from glam_deploy.precision import Recipe


@dataclass(frozen=True, kw_only=True)
class Part:
    name: str
    share: float | None


@dataclass(frozen=True, kw_only=True)
class Whole:
    count: int
    kind: Literal["a", "b"]
    ratio: float
    parts: tuple[Part, ...]
    by_name: Mapping[str, Part]
    shape: tuple[str | int, ...]
    recipe: Recipe
    open: Any
    note: str | None = None
    more: Mapping[Literal["x", "y"], int] = field(default_factory=dict)


def content(**changed: Any) -> dict[str, Any]:
    part = {"name": "p", "share": None}
    whole = {"count": 1, "kind": "a", "ratio": 0.5, "parts": [part], "by_name": {"q": part}, "shape": ["batch", 2]}
    return {**whole, "recipe": "int8+bf16", "open": {"anything": [1]}} | changed


@pytest.mark.parametrize("changed", [{}, {"note": "n"}, {"more": {"x": 1}}, {"parts": []}])
def test_round_trip(changed: dict[str, Any]) -> None:
    assert to_json(from_json(Whole, content(**changed))) == content(**changed)


def test_records_are_made() -> None:
    found = from_json(Whole, content(ratio=2))
    assert found.parts == (Part(name="p", share=None),)
    assert found.recipe == Recipe(weights="int8", floats="bf16")
    assert (found.note, found.more, found.shape) == (None, {}, ("batch", 2))
    assert type(found.ratio) is float


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"count": True}, "count is true or false, expected a whole number"),
        ({"count": 1.0}, "count is a float64 number, expected a whole number"),
        ({"count": None}, "count is null, expected a whole number"),
        ({"ratio": 10**400}, "ratio is a whole number, expected a float64 number"),
        ({"kind": "c"}, "kind is 'c', expected one of a, b"),
        ({"parts": {}}, "parts is an object, expected an array"),
        ({"parts": [{"name": "p"}]}, "parts[0].share is missing, expected a float64 number or null"),
        ({"parts": [{"name": "p", "share": "x"}]}, "parts[0].share is a string, expected a float64 number or null"),
        ({"by_name": {"q": 1}}, "by_name.q is a whole number, expected an object"),
        ({"shape": [0.5]}, "shape[0] is a float64 number, expected a string or a whole number"),
        ({"recipe": "int4"}, "recipe is 'int4', expected one of fp32, "),
        ({"recipe": 7}, "recipe is 7, expected one of fp32, "),
        ({"more": {"z": 1}}, "more.z is unknown to this release"),
        ({"others": 1}, "others is unknown to this release"),
    ],
)
def test_what_is_not_of_the_form(changed: dict[str, Any], fault: str) -> None:
    with pytest.raises(JsonFault) as caught:
        from_json(Whole, content(**changed))
    assert str(caught.value).startswith(fault)


@pytest.mark.parametrize("value", [None, [], "text", 1])
def test_what_is_no_object(value: object) -> None:
    with pytest.raises(JsonFault, match=r"^settings is .*, expected an object"):
        from_json(Whole, value, "settings")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "a is there twice in one object"),
        ('{"x": [{"b": {"c": 1, "c": 2}}]}', "c is there twice in one object"),
        ('{"a": 1, "\\u0061": 2}', "a is there twice in one object"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ("[-Infinity]", "-Infinity is no number of JSON"),
        ('{"a": 1e999}', "1e999 is no number of JSON"),
        ("[-1e400]", "-1e400 is no number of JSON"),
        (f"[{'9' * 5000}]", r"9{20}\.\.\. is no number of JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
    ],
)
def test_texts_that_programs_may_read_differently(text: str, fault: str) -> None:
    with pytest.raises(JsonFault, match=fault):
        parse_json(text)


def test_one_name_in_several_objects() -> None:
    text = '{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}'
    assert parse_json(text) == parse_json(text.encode()) == {"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (rb'["1.\ud800", {"\uDFFF": "\ud800\ud801"}]', ["1.\\ud800", {"\\udfff": "\\ud800\\ud801"}]),
        (rb'"\ud83d\ude00 \udc00"', "\U0001f600 \\udc00"),
        (rb'"\\ud800"', "\\ud800"),
        (b'\xef\xbb\xbf["\xc3\xa9", 1.5, null]', ["\u00e9", 1.5, None]),
    ],
)
def test_halves_of_surrogate_pairs_in_json_of_others_are_written_out(content: bytes, expected: object) -> None:
    """RFC 8259 section 8.2 allows them, and no encoding of Unicode has them."""
    found = parse_foreign_json(content)
    assert found == expected
    json.dumps(found, ensure_ascii=False).encode()


def test_json_of_others_that_is_not_utf8_is_refused() -> None:
    for content in (b'"\xed\xa0\x80"', b'"\xff"', '"a"'.encode("utf-16")):
        with pytest.raises(ValueError, match="utf-8"):
            parse_foreign_json(content)
