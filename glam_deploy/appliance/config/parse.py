"""Reading the text of `glam.toml`: each wrong key is named with its value and what was expected."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from glam_deploy.addresses import plain_network, shown_address
from glam_deploy.appliance.config.fetch import WINDOW
from glam_deploy.appliance.config.notify import ADDRESS, NAMESPACE
from glam_deploy.appliance.config.root import Config
from glam_deploy.appliance.config.section import AE_TITLE, DIGEST, Section
from glam_deploy.appliance.config.targets import TARGET_NAME
from glam_deploy.errors import UsageError
from glam_deploy.installation import page
from glam_deploy.toml_text import TomlFault, parse_toml

_LICENSE = (
    "expected true, without quotation marks, by which you acknowledge that the weights are for research only and have "
    "a licence of their own, and that results are not for diagnosis"
)

_SECRET_KEY = re.compile("secret|token|password")
_CREDENTIALS = re.compile(r"//[^/]*@")
"""User and password in a URL (RFC 3986, section 3.2.1)."""

SectionT = TypeVar("SectionT", bound=Section)


def parse_config(text: str, *, folder: Path, name: str = "the configuration") -> Config:
    """The configuration in a TOML text; relative paths in it start at `folder`, the folder of the file.

    `name`: what messages call it.

    Raises UsageError that names every wrong key, its value and what was expected.
    """
    try:
        config = _absolute(Config.model_validate(parse_toml(text)), folder)
    except TomlFault as error:
        raise UsageError(f"{name} is not valid TOML: {error}") from error
    except ValidationError as error:
        faults = "\n".join(map(_fault_line, _first_causes(error)))
        raise _wrong(name, faults) from None  # the cause holds every value, also those that are secrets
    if fault := _standby_fault(config):
        raise _wrong(name, fault)
    return config


def _wrong(name: str, faults: str) -> UsageError:
    return UsageError(f"{name} is wrong:\n{faults}\nEvery key is explained in {page('appliance.md')}")


def _standby_fault(config: Config) -> str:
    """That the copy and the data folder lie in each other, so that each copy would copy the last one; "" if not."""
    if config.standby.folder is None:
        return ""
    copy, data = (Path(os.path.realpath(path)) for path in (config.standby.folder, config.data))
    if not (copy.is_relative_to(data) or data.is_relative_to(copy)):
        return ""
    return (
        f"  standby.folder: lies in the data folder {config.data}, is it, or holds it: expected a folder apart, on a "
        f"disk of the second node (it is '{config.standby.folder}')"
    )


def _first_causes(error: ValidationError) -> list[Any]:
    """Pydantic's errors without "list too short" where an element of that list is itself wrong."""
    found: list[Any] = error.errors()
    inner = {each["loc"][:n] for each in found for n in range(1, len(each["loc"]))}
    return [each for each in found if each["type"] != "too_short" or each["loc"] not in inner]


def _fault_line(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the file"
    return f"  {key}: {_explanation(error)}{_given(key, error)}"


def _given(key: str, error: Any) -> str:
    """The wrong value, unless it is missing, a table, or could hold a secret."""
    if error["type"] == "missing" or isinstance(error["input"], dict):
        return ""
    text = repr(error["input"])
    if _CREDENTIALS.search(text) or _SECRET_KEY.search(key):
        return " (its value is not shown, because it may hold a secret)"
    return f" (it is {text})"


def _network_fault(value: object) -> str:
    """What is wrong with a value that is no network."""
    try:
        network = plain_network(ipaddress.ip_network(str(value), strict=False))
    except ValueError:
        return "expected an address such as 10.1.2.3, or a network such as 10.1.2.0/24"
    address = shown_address(str(value).partition("/")[0])
    return f"has bits set behind the length of the network: expected {network}, or the address {address} alone"


def _explanation(error: Any) -> str:
    """The error in terms of the configuration file; pydantic's own messages are worded for programmers."""
    if error["loc"] == ("license_acknowledged",):
        return f"{'is missing, ' * (error['type'] == 'missing')}{_LICENSE}"
    if error["type"] == "ip_any_network":
        return _network_fault(error["input"])
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
