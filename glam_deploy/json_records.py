"""Conversion of frozen dataclasses from and to JSON. Unknown keys and values of another type are errors.

The type of a field may be a plain type, `Literal`, `X | None`, `tuple[X, ...]`, `tuple[X, Y]`, `Mapping[key, X]`,
another dataclass, or a class with its own methods `from_json(value)` and `to_json()`. `object` and `Any` accept any
JSON value. A field with a default may be missing in the JSON; it is not written if its value is the default.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_MOST_DIGITS = 1000
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""Escape of a half of a surrogate pair."""
_EXACT = 2**53
"""Largest integer that is accepted for a float field: float64 represents all integers up to it exactly."""


class JsonFault(ValueError):
    """A JSON value that does not match the record. The message has the path, the value and the expected type."""


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError: JsonFault for an object that has a key twice, and for NaN.

    RFC 8259 leaves open which of two equal keys counts (section 4), so that two programs may read one file differently.
    It has no NaN and no infinity (section 6), which `json.loads` accepts. A number that float64 does not have, such as
    1e999, or of more than 1000 digits is an error too, and so is a text that is nested deeper than Python can read.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_without_repeats,
            parse_constant=_not_a_number,
            parse_float=_finite,
            parse_int=_whole,
        )
    except RecursionError:
        raise JsonFault("arrays or objects are nested too deeply, expected some levels") from None


def parse_foreign_json(content: bytes) -> Any:
    """The value of a JSON text of another program, in UTF-8 (RFC 8259 section 8.1). Raises ValueError, RecursionError.

    Half of a surrogate pair alone, which JSON can write and no encoding can (section 8.2), becomes the characters of
    its escape, so that each string can be encoded and different ones stay different.
    """
    text = content.decode("utf-8-sig")
    found = json.loads(text)
    return _with_valid_texts(found) if _SURROGATE.search(text) else found


def _with_valid_texts(value: Any) -> Any:
    if isinstance(value, str):
        return valid_text(value)
    if isinstance(value, dict):
        return {valid_text(key): _with_valid_texts(held) for key, held in value.items()}
    return [_with_valid_texts(held) for held in value] if isinstance(value, list) else value


def valid_text(text: str) -> str:
    """`text` as valid Unicode: lone surrogates, such as bytes of file names that are not UTF-8, become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise JsonFault(f"{_shown(repeated)} is there twice in one object, expected once")
    return found


def _finite(digits: str) -> float:
    found = float(digits)
    return found if math.isfinite(found) else _not_a_number(digits[:20])


def _whole(digits: str) -> int:
    return int(digits) if len(digits) <= _MOST_DIGITS else _not_a_number(f"{digits[:20]}...")


def _not_a_number(name: str) -> NoReturn:
    raise JsonFault(f"{name} is no number of JSON, expected a finite number")


def from_json(record: type[T], value: object, place: str = "") -> T:
    """Convert a decoded JSON object to a dataclass of type `record`; `place` is its path in the file, for messages.

    Raises JsonFault for a key that is missing or unknown, and for a value that is not of the field's type.
    """
    found: T = _read_record(record, value, place)
    return found


def to_json(value: object) -> Any:
    """Convert a record, or a tuple or mapping of records, to input of `json.dumps`; fields keep their order."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value):
        return {f.name: to_json(held) for f in fields(value) if (held := getattr(value, f.name)) != _default(f)}
    if isinstance(value, Mapping):
        return {key: to_json(held) for key, held in value.items()}
    return [to_json(held) for held in value] if isinstance(value, tuple | list) else value


def json_sha256(value: object) -> str:
    """SHA-256 as hexadecimal digits of a JSON value, serialized compactly with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _default(field: Field[Any]) -> object:
    """Default value of a field, which is not written to JSON; MISSING, which equals no value, without a default."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _read(kind: Any, value: object, place: str) -> Any:
    if kind in (Any, object):
        return value
    if hasattr(kind, "from_json"):
        return _read_own(kind.from_json, value, place)
    if is_dataclass(kind):
        return _read_record(kind, value, place)
    reader = _READERS.get(get_origin(kind) or kind)
    return reader(kind, value, place) if reader else _read_plain(kind, value, place)


def _read_record(kind: Any, value: object, place: str) -> Any:
    held = _require(dict, value, place)
    hints, known = get_type_hints(kind), {field.name: field for field in fields(kind)}
    values = {}
    for name, field in known.items():
        if name in held:
            values[name] = _read(hints[name], held[name], _inside(place, name))
        elif _default(field) is MISSING:
            raise JsonFault(f"{_inside(place, name)} is missing, expected {_type_name(hints[name])}")
    if unknown := sorted(held.keys() - known.keys()):
        raise JsonFault(f"{_inside(place, unknown[0])} is unknown to this release")
    return kind(**values)


def _read_own(reader: Callable[[object], Any], value: object, place: str) -> Any:
    try:
        return reader(value)
    except JsonFault as fault:
        raise JsonFault(f"{place} is {fault}") from fault


def _read_mapping(kind: Any, value: object, place: str) -> Any:
    key_kind, held_kind = get_args(kind)
    found = {}
    for key, held in _require(dict, value, place).items():
        if get_origin(key_kind) is Literal and key not in get_args(key_kind):
            raise JsonFault(f"{_inside(place, key)} is unknown to this release")
        found[key] = _read(held_kind, held, _inside(place, key))
    return found


def _read_tuple(kind: Any, value: object, place: str) -> Any:
    items, kinds = _require(list, value, place), get_args(kind)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(items)
    if len(items) != len(kinds):
        raise JsonFault(f"{place} has {len(items)} items, expected {len(kinds)}")
    pairs = enumerate(zip(kinds, items, strict=True))
    return tuple(_read(item_kind, item, f"{place}[{number}]") for number, (item_kind, item) in pairs)


def _read_union(kind: Any, value: object, place: str) -> Any:
    """Read the value as the first type of the union that matches its JSON type."""
    for option in get_args(kind):
        if type(value) is _json_type(option) or (option is float and _is_exact(value)):
            return _read(option, value, place)
    raise JsonFault(f"{place} is {_type_name(type(value))}, expected {_type_name(kind)}")


def _read_literal(kind: Any, value: object, place: str) -> Any:
    if not isinstance(value, str) or value not in get_args(kind):
        raise JsonFault(f"{place} is {value!r}, expected one of {', '.join(map(str, get_args(kind)))}")
    return value


def _read_plain(kind: Any, value: object, place: str) -> Any:
    return float(value) if kind is float and _is_exact(value) else _require(kind, value, place)  # type: ignore[arg-type]


_READERS: Mapping[Any, Callable[[Any, object, str], Any]] = {
    Mapping: _read_mapping,
    tuple: _read_tuple,
    Union: _read_union,
    UnionType: _read_union,
    Literal: _read_literal,
}


def _json_type(kind: Any) -> type:
    """Python type that `json.loads` returns for a field of type `kind`."""
    origin = get_origin(kind) or kind
    if origin is tuple:
        return list
    if origin is Literal or hasattr(kind, "from_json"):
        return str
    return dict if origin is Mapping or is_dataclass(kind) else origin


def _is_exact(value: object) -> bool:
    return type(value) is int and -_EXACT <= value <= _EXACT


def _require(kind: type, value: object, place: str) -> Any:
    """Return `value` if its type is exactly `kind`: True is not an integer. Raises JsonFault."""
    if type(value) is not kind:
        raise JsonFault(f"{place or 'the JSON value'} is {_type_name(type(value))}, expected {_type_name(kind)}")
    return value


def _inside(place: str, key: str) -> str:
    shown = _shown(key)
    return f"{place}.{shown}" if place else shown


def _shown(key: str) -> str:
    """A key of a file for a message: on one line, without characters that a terminal would obey."""
    return key if key.isprintable() else ascii(key)


def _type_name(kind: Any) -> str:
    """Name of a type in the terms of JSON, for messages."""
    origin = get_origin(kind) or kind
    if origin in (Union, UnionType):
        return " or ".join(map(_type_name, get_args(kind)))
    if origin is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    return _NAMES[_json_type(kind)]


_NAMES: Mapping[type, str] = {
    str: "a string",
    int: "a whole number",
    float: "a float64 number",
    bool: "true or false",
    dict: "an object",
    list: "an array",
    NoneType: "null",
    object: "any value",
}
