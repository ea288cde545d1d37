"""What is told of an exception that nobody foresaw."""

import re
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_address

import numpy as np
import pytest
from support.frames import fail, is_released, refuse

from glam_deploy.errors import GlamError, InputError, InternalError, attempt, fault
from glam_deploy.runtime.overlap import ahead


def test_a_fault_is_told_by_its_place_in_our_code_without_its_text() -> None:
    """`ip_address` quotes what it was given."""
    with closing(ahead(ip_address, ["Doe^Jane"])) as addresses, pytest.raises(ValueError, match="Doe") as caught:
        next(addresses)
    told = fault(caught.value)
    assert re.fullmatch(r"ValueError in ahead, line \d+ of overlap\.py", told)


def test_an_import_names_what_is_missing() -> None:
    assert fault(ModuleNotFoundError("No module named 'x'", name="x")) == "ModuleNotFoundError (x)"


@pytest.mark.parametrize(("step", "kind"), [(refuse, InputError), (fail, InternalError)])
def test_a_returned_error_holds_no_image(step: Callable[[np.ndarray], None], kind: type[GlamError]) -> None:
    """Also while the caller's frame holds the error, which the traceback leads to."""

    def use(image: np.ndarray) -> GlamError:
        made = attempt(step, image)
        assert isinstance(made, kind)
        assert made.__traceback__ is None
        return made

    assert is_released(use, np.ones(5))


def test_a_fault_has_its_place_although_its_traceback_is_removed() -> None:
    made = attempt(fail, np.ones(5))
    assert isinstance(made, InternalError)
    assert "ValueError in attempt" in str(made)
