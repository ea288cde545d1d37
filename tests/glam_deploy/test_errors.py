"""What is told of an exception that nobody foresaw."""

import re
from contextlib import closing
from ipaddress import ip_address

import pytest

from glam_deploy.errors import fault
from glam_deploy.runtime.overlap import ahead


def test_a_fault_is_told_by_its_place_in_our_code_without_its_text() -> None:
    """`ip_address` quotes what it was given."""
    with closing(ahead(ip_address, ["Doe^Jane"])) as addresses, pytest.raises(ValueError, match="Doe") as caught:
        next(addresses)
    told = fault(caught.value)
    assert re.fullmatch(r"ValueError in ahead, line \d+ of overlap\.py", told)


def test_an_import_names_what_is_missing() -> None:
    assert fault(ModuleNotFoundError("No module named 'x'", name="x")) == "ModuleNotFoundError (x)"
