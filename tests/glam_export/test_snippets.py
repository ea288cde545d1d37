"""The programs that messages about checkpoints print: what they write holds the weights of the file."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glam_deploy.errors import CheckpointError
from glam_export.weights_file import read_weights_file
from glam_export.wrappers import find_state_dict

STATE = {
    "detection_network.a.weight": torch.arange(6.0).reshape(2, 3),
    "detection_network.a.num_batches_tracked": torch.tensor(7),
    "global_network.b.bias": torch.tensor([0.1, -2.5]).to(torch.float16),
}
ARRAYS = {key: value.numpy() for key, value in STATE.items()}
STRANGE = {
    "detection_network.a.weight": np.arange(6, dtype=">f4").reshape(2, 3)[::-1, ::-1][::-1, ::-1],
    "detection_network.a.num_batches_tracked": np.array(7),
    "global_network.b.bias": np.array([0.1, -2.5], np.float16),
    "names": np.array(["a", "b"]),
    "objects": np.array([{}, None], dtype=object),
}
"""Another byte order, negative strides, no dimension, and arrays that are no weights."""


def pickled(content: Any, protocol: int | None = None) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(pickle.dumps(content, protocol))


def saved(content: Any, *, old: bool = False) -> Callable[[Path], object]:
    return lambda path: torch.save(content, path, _use_new_zipfile_serialization=not old)


CASES: dict[str, Callable[[Path], object]] = {
    **{f"arrays, pickle protocol {n}": pickled(ARRAYS, n) for n in (2, 3, 4, 5)},
    "wrapped arrays": pickled({"epoch": 3, "weights": {"net": ARRAYS}, "history": np.arange(3.0)}),
    "strange arrays": pickled(STRANGE),
    "tensors": pickled(STATE),
    "arrays by torch.save": saved(ARRAYS),
    "wrapped arrays by torch.save": saved({"state_dict": ARRAYS, "lr": np.float64(0.1)}),
    "arrays by torch.save before 1.6": saved({"model": ARRAYS}, old=True),
    "an apostrophe and a space in the name": saved(ARRAYS),
}


def message(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        find_state_dict(read_weights_file(path), path)
    return str(caught.value)


def program(told: str) -> str:
    return "\n".join(line.removeprefix("  ") for line in told.splitlines()[1:])


def test_what_a_printed_program_writes_holds_the_weights(tmp_path: Path) -> None:
    programs: dict[str, str] = {}
    for number, (case, make) in enumerate(CASES.items()):
        path = tmp_path / (f"it's {number}.pt" if "apostrophe" in case else f"w{number}.pkl")
        make(path)
        programs[str(tmp_path / f"{path.stem}.state_dict.pt")] = program(message(path))
    run = "import json, sys; [exec(each, {}) for each in json.load(sys.stdin)]"
    subprocess.run(
        [sys.executable, "-c", run], input=json.dumps(list(programs.values())), text=True, cwd=tmp_path, check=True
    )
    for written in programs:
        content = read_weights_file(Path(written))
        assert isinstance(content, dict)
        assert content.keys() == STATE.keys(), written
        for key, value in STATE.items():
            assert torch.equal(content[key], value), (written, key)


def test_types_that_a_pickle_names_twice_are_named_rightly(tmp_path: Path) -> None:
    pickled({"a": np.zeros(2), "b": np.zeros(3)}, 4)(tmp_path / "w.pkl")
    told = message(tmp_path / "w.pkl")
    assert "numpy.dtype, numpy.ndarray" in told
    assert "ndarray.dtype" not in told


def test_a_pickle_without_weights_is_told_so_in_the_end(tmp_path: Path) -> None:
    pickled([1, 2], 2)(tmp_path / "w.pkl")
    exec(program(message(tmp_path / "w.pkl")).replace("'w.state", f"'{tmp_path}/w.state"), {})
    with pytest.raises(CheckpointError, match="no state dict found"):
        find_state_dict(read_weights_file(tmp_path / "w.state_dict.pt"), tmp_path / "w.state_dict.pt")
