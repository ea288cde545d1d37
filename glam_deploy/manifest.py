"""What every reader of a bundle's manifest relies on."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from glam_deploy.networks import STAGES

_EXPECTED: Mapping[str, Any] = {
    "created": str,
    "licence": str,
    "network": {
        "name": str,
        "precisions": [str],
        "aggregation": str,
        "patches": int,
        "max_patches": int,
    },
    "checkpoint": {"name": str, "sha256": str, "parameters": int, "ignored_keys": [str]},
    "files": {"*": {"sha256": str, "bytes": int}},
    "versions": {"*": str},
    "parity": [
        {
            "output": str,
            "precision": str,
            "max_abs": float | None,
            "mean_abs": float | None,
            "limit": float,
            "passed": bool,
        }
    ],
    "golden": {"patches": int},
}
"""Keys that every reader of a manifest relies on, and their JSON types; "*" is any key, and others may be there too.

A list holds any number of what its one element says.
"""

_EXPECTED_LATER: Mapping[str, Any] = {
    "engines": [
        {
            "precision": str,
            "flavour": str,
            "library": str,
            "key": str,
            "made_for": {"compute_capabilities": [str], "gpu": str | None, "driver": str | None},
            "options": {},
            "built": str,
            "stages": {
                stage: {"file": str, "graph": str, "graph_sha256": str, "confirmed_share": float | None}
                for stage in STAGES
            },
            "kernels": {"*": {"file": str}},
            "kernels_sha256": str,
            "timing_cache": str | None,
        }
    ],
    "gates": [
        {
            "id": str,
            "engine": str,
            "digest": str,
            "reference": str,
            "passed": bool,
            "failures": [str],
            "limits": {},
            "figures": {},
            "images": int,
            "images_sha256": str,
            "patches": int,
            "when": str,
            "machine": {"processor": str, "cores": int, "device": str},
            "latency_ms": float,
        }
    ],
}
"""The same for what is there only where engines were built, or held against the reference; the newest is last."""


def faults(manifest: Mapping[str, Any]) -> Iterator[str]:
    """In words, where a manifest lacks what is relied on."""
    later = {key: value for key, value in _EXPECTED_LATER.items() if key in manifest}
    return _faults(manifest, {**_EXPECTED, **later})


def _faults(value: object, expected: Any, place: str = "") -> Iterator[str]:
    """The same for a value at a place."""
    wanted = get_args(expected) or (expected if isinstance(expected, type) else type(expected),)
    if type(value) not in wanted:
        found = "missing" if value in (None, ...) else type(value).__name__
        yield f"{place} is {found}, expected {' or '.join(kind.__name__ for kind in wanted)}"
    elif isinstance(value, dict) and isinstance(expected, dict):
        for key in value if "*" in expected else expected:
            # JSON has no ellipsis, but it has null, which some keys may be
            yield from _faults(value.get(key, ...), expected.get(key, expected.get("*")), f"{place}.{key}".lstrip("."))
    elif isinstance(value, list) and isinstance(expected, list):
        for number, item in enumerate(value):
            yield from _faults(item, expected[0], f"{place}[{number}]")
