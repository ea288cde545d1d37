"""The programs that messages about checkpoints print: what they write holds the weights of the file."""

import ast
import json
import os
import pickle
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glam_deploy.errors import CheckpointError
from glam_deploy.installation import quoted
from glam_export.checkpoint.snippets import commands
from glam_export.checkpoint.snippets import program as printed_program
from glam_export.checkpoint.state_dict import find_state_dict
from glam_export.checkpoint.weights_file import read_weights_file

pytestmark = pytest.mark.slow

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
    return told.partition("\n")[2]


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


RUNNER = """
import json, os, sys, torch
for folder, text in json.load(sys.stdin):
    if not (child := os.fork()):
        os.chdir(folder)
        exec(text, globals())
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Runs each program in a process of its own that has torch imported."""


def run_programs(*programs: tuple[Path, str]) -> tuple[list[int], str]:
    """The exit status of each, and what all of them say on standard error."""
    given = json.dumps([(str(folder), text) for folder, text in programs])
    done = subprocess.run([sys.executable, "-c", RUNNER], input=given, capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.splitlines() if line.isdecimal()], done.stderr


def test_a_file_without_weights_is_told_so_and_nothing_is_written(tmp_path: Path) -> None:
    contents: list[object] = [[1, 2], {}, {"state_dict": {}}, {"names": ["a"]}]
    paths = [tmp_path / f"w{number}.pkl" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        pickled(content, 2)(path)
    statuses, told = run_programs(*((tmp_path, program(message(path))) for path in paths))
    assert statuses == [1] * len(paths)
    assert told.splitlines() == [f"{path}: no mapping of names to tensors in it; nothing was written" for path in paths]
    assert sorted(tmp_path.iterdir()) == paths


EMA = ARRAYS | {"detection_network.a.weight": np.ones((2, 3), np.float32)}
SEVERAL: dict[str, object] = {
    "model and ema": {"model": ARRAYS, "ema": EMA},
    "in a list": [7, {"model": ARRAYS}, ("x", {"ema": EMA})],
    "places of one name": {"a.ema": ARRAYS, "a": {"ema": EMA}},
}


def test_of_several_networks_none_is_picked(tmp_path: Path) -> None:
    alone = {"alone in a list": [1, (ARRAYS, {"lr": 0.1})]}
    for case, content in {**SEVERAL, **alone}.items():
        pickled(content)(tmp_path / f"{case}.pkl")
    programs = [(tmp_path, program(message(tmp_path / f"{case}.pkl"))) for case in (*SEVERAL, *alone)]
    assert run_programs(*programs)[0] == [0] * len(programs)
    for case in SEVERAL:
        content = read_weights_file(tmp_path / f"{case}.state_dict.pt")
        with pytest.raises(CheckpointError, match=r"holds 2 networks \(GLAM\): .*ema"):
            find_state_dict(content, tmp_path)
        assert isinstance(content, dict)
        chosen = find_state_dict(content, tmp_path, [key for key in content if "ema" in key][-1])
        assert (chosen.tensors["detection_network.a.weight"] == 1).all(), case
    content = read_weights_file(tmp_path / "alone in a list.state_dict.pt")
    assert isinstance(content, dict)
    assert content.keys() == STATE.keys()


OWN_CLASS = """
class Trainer:
    def __init__(self, weights, epoch):
        self.weights, self.epoch = weights, epoch
"""


OWN_MODULES = """
import torch
class Outer:
    class Inner(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(2))
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.global_network, self.detection_network = torch.nn.Linear(3, 2), Outer.Inner()
"""


def test_modules_of_the_writing_program_need_none_of_its_code(tmp_path: Path) -> None:
    writers = ["torch.save({'epoch': 3, 'net': Net()}, 'zip.pt', pickle_protocol=4)", "torch.save(Net(), 'old.pt')"]
    assert run_programs(*((tmp_path, OWN_MODULES + writer) for writer in writers))[0] == [0, 0]
    for kind in ("zip", "old"):
        assert run_programs((tmp_path, program(message(tmp_path / f"{kind}.pt"))))[0] == [0]
        content = read_weights_file(tmp_path / f"{kind}.state_dict.pt")
        assert isinstance(content, dict)
        assert content.keys() == {"global_network.weight", "global_network.bias", "detection_network.bias"}


def test_a_printed_program_can_be_pasted_into_an_interpreter(tmp_path: Path) -> None:
    """Whose prompts a blank line ends; own types make the longest program."""
    for kind, own in (("arrays", []), ("module", ["Net"])):
        text = printed_program(tmp_path / f"{kind}.pt", plain_pickle=True, own_types=own)
        pickle_file = tmp_path / f"{kind}.pt"
        pickle_file.write_bytes(pickle.dumps({"fc.weight": np.ones(3, np.float32)}))
        told = subprocess.run(
            [sys.executable, "-i", "-q"], input=f"{text}\n", capture_output=True, text=True, cwd=tmp_path, check=True
        )
        assert "Error" not in told.stderr and (tmp_path / f"{kind}.state_dict.pt").exists(), told.stderr


@pytest.mark.parametrize("wrap", [lambda state: [state], lambda state: (7, {"ema": state})], ids=["list", "tuple"])
def test_a_state_dict_in_a_list_is_saved_by_the_printed_program(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    torch.save(wrap(STATE), tmp_path / "w.pt")
    told = message(tmp_path / "w.pt")
    assert re.search(r"no state dict found of a GLAM, GMIC or CAM network, but a (list of 1|tuple of 2)\.", told)
    assert run_programs((tmp_path, program(told)))[0] == [0]
    assert find_state_dict(read_weights_file(tmp_path / "w.state_dict.pt"), tmp_path).tensors.keys() == STATE.keys()


def test_a_class_of_the_writing_program_is_not_needed(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "s.pt")
    made = "import pickle, torch\ncontent = {'trainer': Trainer(torch.load('s.pt'), 3)}\n"
    writers = ["torch.save(content, 'zip.pt')", "open('plain.pt', 'wb').write(pickle.dumps(content))"]
    assert run_programs(*((tmp_path, OWN_CLASS + made + writer) for writer in writers))[0] == [0, 0]
    told = [message(tmp_path / f"{kind}.pt") for kind in ("zip", "plain")]
    for text in told:
        assert "(for Trainer, of the program that wrote it, empty classes are made)" in text
    assert run_programs(*((tmp_path, program(text)) for text in told))[0] == [0, 0]
    for kind in ("zip", "plain"):
        content = read_weights_file(tmp_path / f"{kind}.state_dict.pt")
        assert isinstance(content, dict)
        assert content.keys() == STATE.keys()


HOSTILE = (
    "$(touch PWNED).pt",
    "`touch PWNED`.pt",
    "a;touch PWNED;.pt",
    'it\'s "$(touch PWNED)".pt',
    "m\n  import os; os.system('touch PWNED')  #.pt",
    "m\ntouch PWNED\n.pt",
    "-x\\$(touch PWNED)!.pt",
    "\x1b[2J{name}\r;touch PWNED;.pt",
    "\udcff';touch PWNED;'.pt",
)
"""Names of files that a shell or Python would act on if they were printed as they are."""


def script(path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        torch.jit.trace(torch.nn.Linear(3, 2), torch.zeros(1, 3)).save(str(path))


def exported(path: Path) -> None:
    with path.open("wb") as file:
        torch.export.save(torch.export.export(torch.nn.Linear(3, 2), (torch.zeros(1, 3),)), file)


def arrays(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, weight=np.zeros((2, 3), ">f4"), bias=np.zeros(2), names=np.array(["a"]))


def shell(folder: Path, line: str) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", line], cwd=folder, check=True, env=environment, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("make", [script, exported, arrays])
def test_a_printed_command_reads_the_file_and_does_nothing_else(
    tmp_path: Path, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("in a folder") / HOSTILE[3]
    path.parent.mkdir()
    make(path)
    line = message(path)[message(path).index("python -c ") :]
    shell(tmp_path, line)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in a folder", "weights.pt"]
    assert list(path.parent.iterdir()) == [path]
    content = read_weights_file(tmp_path / "weights.pt")
    assert isinstance(content, dict)
    assert content.keys() == {"weight", "bias"}


@pytest.mark.parametrize("name", HOSTILE)
def test_commands_and_programs_hold_hostile_names_as_texts(tmp_path: Path, name: str) -> None:
    stand_in = tmp_path / "bin" / "python"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\nprintf "%s" "$2" > "$SEEN"\n')
    stand_in.chmod(0o755)
    for command in commands(Path(name)).values():
        environment = {"PATH": f"{stand_in.parent}:/usr/bin:/bin", "SEEN": str(tmp_path / "seen")}
        subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, env=environment)
        given = ast.parse((tmp_path / "seen").read_text())
        assert name in [node.value for node in ast.walk(given) if isinstance(node, ast.Constant)]
    echoed = subprocess.run(["bash", "-c", f"printf %s {quoted(Path(name))}"], capture_output=True, check=True)
    assert os.path.normpath(os.fsdecode(echoed.stdout)) == name
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bin", "seen"]
    assert shape(name) == shape("a.pt")


def shape(name: str) -> list[str]:
    """The kinds of all nodes of the program that is printed for a file of this name."""
    return [type(node).__name__ for node in ast.walk(ast.parse(printed_program(Path(name))))]


@pytest.mark.parametrize("name", ["ema;touch PWNED", "$(touch PWNED)", "ema net", "-x"])
def test_a_key_in_a_printed_command_is_one_word(name: str) -> None:
    content = {name: STATE, "z": STATE}
    with pytest.raises(CheckpointError, match=r"holds 2 networks \(GLAM\)") as caught:
        find_state_dict(content, Path("w.pt"))
    assert f"--key {shlex.quote(name)}." in str(caught.value)
