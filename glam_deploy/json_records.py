"""Frozen dataclasses from and to JSON. A key that the record lacks, and a value of another type, is an error.

A field may be a plain type, `Literal`, `X | None`, `tuple[X, ...]`, `tuple[X, Y]`, `Mapping[key, X]`, another
dataclass, or a class with `from_json(value)` and `to_json()` of its own. `object` and `Any` take any JSON value. A
field with a default may be missing in the JSON, and is left out of it where the value is the default.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_EXACT = 2**53
"""Largest whole number up to which a JSON number without a decimal point is taken as a float: float64 holds it."""


class JsonFault(ValueError):
    """A JSON value is not of the form of a record. The message says where, what was found and what was expected."""


def from_json(record: type[T], value: object, place: str = "") -> T:
    """The `record` that a decoded JSON object describes; `place` is where it stands, for the message.

    Raises JsonFault for a key that is missing or unknown, and for a value that is not of the field's type.
    """
    found: T = _read_record(record, value, place)
    return found


def to_json(value: object) -> Any:
    """A record, or a tuple or mapping of records, as `json.dumps` takes it; the fields keep their order."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value):
        return {f.name: to_json(held) for f in fields(value) if (held := getattr(value, f.name)) != _default(f)}
    if isinstance(value, Mapping):
        return {key: to_json(held) for key, held in value.items()}
    return [to_json(held) for held in value] if isinstance(value, tuple | list) else value


def json_sha256(value: object) -> str:
    """SHA-256, in hexadecimal digits, of a decoded JSON value in its compact form, keys in order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _default(field: Field[Any]) -> object:
    """The value with which the field is left out of the JSON; MISSING, which no value equals, where it has none."""
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
            raise JsonFault(f"{_inside(place, name)} is missing, expected {_words(hints[name])}")
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
    """The first of the types that the value may be of."""
    for option in get_args(kind):
        if type(value) is _json_type(option) or (option is float and _is_exact(value)):
            return _read(option, value, place)
    raise JsonFault(f"{place} is {_words(type(value))}, expected {_words(kind)}")


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
    """What `json.loads` makes of the JSON that a field of this type is read from."""
    origin = get_origin(kind) or kind
    if origin is tuple:
        return list
    if origin is Literal or hasattr(kind, "from_json"):
        return str
    return dict if origin is Mapping or is_dataclass(kind) else origin


def _is_exact(value: object) -> bool:
    return type(value) is int and -_EXACT <= value <= _EXACT


def _require(kind: type, value: object, place: str) -> Any:
    """The value, where it is exactly of a type of decoded JSON: True is no whole number."""
    if type(value) is not kind:
        raise JsonFault(f"{place or 'the whole of it'} is {_words(type(value))}, expected {_words(kind)}")
    return value


def _inside(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _words(kind: Any) -> str:
    """A type as a reader of JSON knows it."""
    origin = get_origin(kind) or kind
    if origin in (Union, UnionType):
        return " or ".join(map(_words, get_args(kind)))
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
