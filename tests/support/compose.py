"""The services of a compose file in the form of packaging/compose.yaml: two levels of indentation, values as JSON."""

import json
from typing import Any


def services(text: str) -> dict[str, dict[str, Any]]:
    """Service -> key -> value; a list of lines is a list, and what is no JSON is text. `$$` is a dollar sign."""
    found: dict[str, dict[str, Any]] = {}
    service = key = ""
    for line in text.replace("$$", "$").partition("\nservices:\n")[2].splitlines():
        name, _, value = line.strip().partition(": ")
        if line.startswith("      - "):
            found[service].setdefault(key, []).append(json.loads(line.strip()[2:]))
        elif line.startswith("      "):
            found[service].setdefault(key, {})[name] = _value(value)
        elif line.startswith("    "):
            key = name.rstrip(":")
            if value:
                found[service][key] = _value(value)
        else:
            service = name.rstrip(":")
            found[service] = {}
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
