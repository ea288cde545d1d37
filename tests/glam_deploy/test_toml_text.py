"""The TOML parser: equal to `tomllib` for valid text; a TomlFault for text that is too large or too deep."""

import tomllib

import pytest

from glam_deploy.agreement.limits import parse_limits
from glam_deploy.errors import UsageError
from glam_deploy.toml_text import DEEPEST, LONGEST, TomlFault, parse_toml

UID = ".".join("1" * 32)
"""As many parts as an identifier of 64 characters can have (PS3.5 section 9.1)."""

GOOD = {
    "empty": "",
    "tables": "a.b.'c d'.\"e\" = 1\n[x.y]\nz = [[1, 2], {a = 3}]\n[[list]]\na = 1979-05-27",
    "identifier": f'uid = "{UID}"\n# 1.2.840.10008.5.1.4.1.1.1.2 ... and so on',
    "many addresses in a line": "hosts = [" + ", ".join(f'"10.1.2.{n}"' for n in range(250)) + "]",
    "name of most parts": ".".join("a" * DEEPEST) + " = 1",
    "largest and smallest integer": f"a = {2**63 - 1}\nb = {-(2**63)}",
    "long text": f'a = "{"x" * 9999}"',
}


@pytest.mark.parametrize("name", GOOD)
def test_the_same_is_read_as_by_tomllib(name: str) -> None:
    assert parse_toml(GOOD[name]) == tomllib.loads(GOOD[name])


BAD = {
    "no TOML": ("a: 1", "line 1"),
    "deep lists": ("a = " + "[" * 100_000, "nested more than 32 levels deep"),
    "lists that Python can hold": (f"a = {'[' * 33}{']' * 33}", "nested more than 32 levels deep"),
    "deep tables": ("a = " + "{a = " * 40_000, "nested more than 32 levels deep"),
    "long name": (".".join("a" * 50_000) + " = 1", "the name 'a\\.a\\..* has more than 32 parts joined by dots"),
    "long name of a table": (f"[{' . '.join('a' * 50_000)}]", "more than 32 parts joined by dots"),
    "long name in quotes": (".".join(['"\\""'] * 40_000) + " = 1", "more than 32 parts joined by dots"),
    "long name in both quotes": (".".join([""" '"' """] * 40_000) + " = 1", "more than 32 parts joined by dots"),
    "long name in braces": (f"a = {{{'.'.join('a' * 50_000)} = 1}}", "more than 32 parts joined by dots"),
    "digits": ("a = " + "1" * 100_000, "an integer has more than 64 bits"),
    "hexadecimal digits": ("a = [{b = 0x" + "f" * 100_000 + "}]", "an integer has more than 64 bits"),
    "65 bits": (f"a = {2**63}", "an integer has more than 64 bits"),
    "large": ("# " + "a" * LONGEST, f"it has {LONGEST + 2} characters, expected at most {LONGEST}"),
}


@pytest.mark.parametrize("name", BAD)
def test_the_rest_is_a_fault(name: str) -> None:
    text, told = BAD[name]
    with pytest.raises(TomlFault, match=told):
        parse_toml(text)
    with pytest.raises(UsageError, match=f"the limits are not valid TOML .*{told}"):
        parse_limits(text)
