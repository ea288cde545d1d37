"""An engine that computes nothing twice."""

import numpy as np
import pytest
from support.engines import FakeEngine

from glam_deploy.engines.base import Arrays
from glam_deploy.errors import BackendRunError
from glam_export.torch_engine import MemoizedEngine


class Counting(FakeEngine):
    runs = 0

    def _run(self, inputs: Arrays) -> Arrays:
        self.runs += 1
        return super()._run(inputs)


def patch(value: float) -> dict[str, np.ndarray]:
    return {"patches": np.full((1, 1, 512, 512), value, np.float32)}


def test_the_same_input_is_computed_once_and_another_anew() -> None:
    plain = Counting("local")
    known = MemoizedEngine(plain)
    first = known.run(patch(1))
    expected = {name: values.copy() for name, values in first.items()}
    first["z_k"][:] = 7  # outputs belong to the caller
    again, other = known.run(patch(1)), known.run(patch(2))
    assert plain.runs == 2
    for name, values in expected.items():
        np.testing.assert_array_equal(again[name], values)
        np.testing.assert_array_equal(other[name], FakeEngine("local").run(patch(2))[name])
    assert not np.array_equal(again["z_k"], other["z_k"])


def test_what_breaks_the_contract_is_refused_as_ever() -> None:
    known = MemoizedEngine(FakeEngine("local"))
    for wrong in ({}, {"patches": np.zeros((1, 1, 512, 511), np.float32)}, patch(np.nan)):
        with pytest.raises(BackendRunError):
            known.run(wrong)
