"""Reading the text of `glam.toml`: each wrong key is named with its value and what was expected."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from glam_deploy.appliance.config.fetch import WINDOW
from glam_deploy.appliance.config.notify import ADDRESS, NAMESPACE
from glam_deploy.appliance.config.root import Config
from glam_deploy.appliance.config.section import AE_TITLE, DIGEST, Section
from glam_deploy.appliance.config.targets import TARGET_NAME
from glam_deploy.errors import UsageError
from glam_deploy.installation import page

_LICENSE = (
    "expected true, without quotation marks, by which you acknowledge that the weights are for research only and have "
    "a licence of their own, and that results are not for diagnosis"
)

SectionT = TypeVar("SectionT", bound=Section)


def parse_config(text: str, *, folder: Path) -> Config:
    """The configuration in a TOML text; relative paths in it start at `folder`, the folder of the file.

    Raises UsageError that names every wrong key, its value and what was expected.
    """
    try:
        return _absolute(Config.model_validate(tomllib.loads(text)), folder)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the configuration is not valid TOML: {error}") from error
    except ValidationError as error:
        faults = "\n".join(map(_fault_line, _first_causes(error)))
        raise UsageError(
            f"the configuration is wrong:\n{faults}\nEvery key is explained in {page('appliance.md')}"
        ) from error


def _first_causes(error: ValidationError) -> list[Any]:
    """Pydantic's errors without "list too short" where an element of that list is itself wrong."""
    found: list[Any] = error.errors()
    inner = {each["loc"][:n] for each in found for n in range(1, len(each["loc"]))}
    return [each for each in found if each["type"] != "too_short" or each["loc"] not in inner]


def _fault_line(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the file"
    given = "" if error["type"] == "missing" or isinstance(error["input"], dict) else f" (it is {error['input']!r})"
    return f"  {key}: {_explanation(error)}{given}"


def _explanation(error: Any) -> str:
    """The error in terms of the configuration file; pydantic's own messages are worded for programmers."""
    if error["loc"] == ("license_acknowledged",):
        return f"{'is missing, ' * (error['type'] == 'missing')}{_LICENSE}"
    explanations = {
        "missing": "is missing",
        "extra_forbidden": "is not a key of this table: see docs/appliance.md",
        "model_type": "expected a table",
        "tuple_type": "expected a list, [...]",
        "union_tag_not_found": 'needs `kind`: expected "webhook", "email", "hl7" or "fhir"',
        "union_tag_invalid": 'has an unknown `kind`: expected "webhook", "email", "hl7" or "fhir"',
        ADDRESS: "expected an e-mail address such as glam@hospital.example",
        NAMESPACE: "expected 1 to 20 ASCII letters, digits, spaces, dots, hyphens and underscores",
        AE_TITLE: "expected 1 to 16 ASCII characters, without backslash and without a space at either end",
        DIGEST: "expected 64 of 0-9 and a-f, as glam-deploy inspect prints",
        TARGET_NAME: "expected 1 to 32 of a-z, 0-9 and hyphen",
        WINDOW: "expected a time of the day as in 22:00-06:00",
    }
    known = explanations.get(error["type"]) or explanations.get(error.get("ctx", {}).get("pattern", ""))
    return known or str(error["msg"]).removeprefix("Value error, ")


def _absolute(section: SectionT, folder: Path) -> SectionT:
    """The section with every path made absolute, relative to `folder`."""
    changed: dict[str, object] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Path):
            changed[name] = folder / value
        elif isinstance(value, Section):
            changed[name] = _absolute(value, folder)
        elif isinstance(value, tuple) and value and isinstance(value[0], Path):
            changed[name] = tuple(folder / item for item in value)
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            changed[name] = tuple(_absolute(item, folder) for item in value)
    return section.model_copy(update=changed)
