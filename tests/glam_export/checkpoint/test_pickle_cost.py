"""Small files whose keys take Python hours to hash, and what real training programs write beside a network."""

import json
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from glam_export.checkpoint.weights_file import read_weights_file

NESTED = b")" + b"".join(b"q%ch%c\x86" % (level, level) for level in range(60))
"""A tuple that holds the one before twice, 60 times: 2^60 steps to hash."""


def integers(count: int, behind: bytes = b"") -> bytes:
    """Multiples of 2^61 - 1, whose hashes are all 0 (sys.hash_info.modulus), each followed by `behind`."""
    modulus = sys.hash_info.modulus
    return b"".join(b"\x8a\x0a" + (each * modulus).to_bytes(10, "little") + behind for each in range(1, count))


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


MANY = integers(10_000)
HOSTILE = {
    "tuples as a key": b"}" + NESTED + b"Ns",
    "tuples of a list": b"cbuiltins\ntuple\n](" + NESTED + b"e\x85R",
    "tuples as a size": b"}(ctorch\nSize\n" + NESTED + b"\x85RNu",
    "tuples as the name of a layout": b"ctorch.serialization\n_get_layout\n" + NESTED + b"\x85R",
    "tuples as the name of a storage": NESTED
    + b"q\xf0("
    + text("storage")
    + b"ctorch\nFloatStorage\nh\xf0"
    + text("cpu")
    + b"K\1tQ",
    "keys of one hash": b"}(" + integers(10_000, b"N") + b"u",
    "members of one hash": b"cbuiltins\nset\n](" + MANY + b"e\x85R",
    "members of one hash, as Python 2 names it": b"c__builtin__\nset\n](" + MANY + b"e\x85R",
    "members of one hash, without a call": b"cbuiltins\nfrozenset\n](" + MANY + b"e\x85\x81",
    "members that come late": b"(cbuiltins\nfrozenset\n]q\0\x85q\1h\0(" + MANY + b"et",
    "members by way of a tensor": b"ctorch._tensor\n_rebuild_from_type_v2\n(cbuiltins\nset\nN](" + MANY + b"e\x85NtR",
    "pairs": b"ccollections\nOrderedDict\n](" + integers(10_000, b"N\x86") + b"e\x85R",
    "pairs as a state": b"ccollections\nOrderedDict\n)R](" + integers(10_000, b"N\x86") + b"eb",
    "numbers from text": b"}("
    + b"".join(b"cbuiltins\nint\n" + text(str(each * sys.hash_info.modulus)) + b"\x85RN" for each in range(1, 10_000))
    + b"u",
}


def old(*pickled: bytes) -> bytes:
    """As torch.save wrote before 1.6 (torch.serialization._legacy_save)."""
    head = (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {})
    return b"".join((*(pickle.dumps(each, 2) for each in head), *(b"\x80\x02" + each + b"." for each in pickled)))


def zipped(path: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + pickled + b".")
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")


def hostile_files(folder: Path) -> Iterable[Path]:
    for number, pickled in enumerate(HOSTILE.values()):
        zipped(folder / f"{number}.pt", pickled)
        (folder / f"{number}.old.pt").write_bytes(old(pickled, b"]"))
    (folder / "names of storages.pt").write_bytes(old(b"}", b"]" + NESTED + b"a"))
    zipped(folder / "behind.pt", b"}")
    behind = (folder / "behind.pt").read_bytes()
    (folder / "behind.pt").write_bytes(old(HOSTILE["tuples as a key"], b"]") + behind)
    return sorted(folder.iterdir())


READER = """
import json, sys, time
from pathlib import Path
from glam_deploy.errors import CheckpointError
from glam_export.checkpoint.weights_file import read_weights_file
for path in json.load(sys.stdin):
    start = time.process_time()
    try:
        read_weights_file(Path(path))
    except CheckpointError as error:
        told = str(error).splitlines()[0]
    print(json.dumps([told, time.process_time() - start]), flush=True)
"""


def test_keys_that_take_hours_to_hash_are_refused_at_once(tmp_path: Path) -> None:
    files = list(hostile_files(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", READER],
        input=json.dumps([str(file) for file in files]),
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    for file, line in zip(files, done.stdout.splitlines(), strict=True):
        told, seconds = json.loads(line)
        assert "keep this machine busy" in told, (file, told)
        assert seconds < 5, file


class Pairs:
    """An OrderedDict as Python 2 pickles it: a call with a list of pairs."""

    def __init__(self, items: dict[str, object]) -> None:
        self.items = [[key, value] for key, value in items.items()]

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return OrderedDict, (self.items,)


def network(layers: int) -> torch.nn.Module:
    return torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(layers)))


def training(layers: int = 300) -> dict[str, object]:
    """What Lightning saves of a network with 600 tensors, two optimizers and its average."""
    model = network(layers)
    optimizer = torch.optim.AdamW(model.parameters())
    for each in model.parameters():
        each.grad = torch.ones_like(each)
    optimizer.step()
    state = optimizer.state_dict()
    return {
        "state_dict": model.state_dict(),
        "optimizer_states": [state, state],
        "ema": torch.optim.swa_utils.AveragedModel(model).state_dict(),
        "loops": {"fit_loop": {"epoch_progress": {"total": {"ready": 3}}}},
        "history": dict.fromkeys(range(0, 5_000_000, 100), 0.5),
        "by threshold": {step / 1000: (step, 1.0) for step in range(1_000)},
        "by epoch and split": {(epoch, split): 0.5 for epoch in range(300) for split in ("train", "val")},
        "names": {f"patient {number}" for number in range(50_000)},
        "random": random.getstate(),
        "losses": tuple(step / 7 for step in range(100_000)),
        "count": Counter(range(1_000)),
        "parameters": Pairs(dict(model.named_parameters())),
    }


@pytest.mark.parametrize("before", [False, True], ids=["zip", "before 1.6"])
def test_what_training_programs_write_is_read(tmp_path: Path, before: bool) -> None:
    content = training()
    torch.save(content, tmp_path / "epoch=3.ckpt", _use_new_zipfile_serialization=not before)
    read = read_weights_file(tmp_path / "epoch=3.ckpt")
    assert isinstance(read, dict)
    assert read["history"] == content["history"]
    assert read["names"] == content["names"]
    assert read["state_dict"].keys() == content["state_dict"].keys()
