"""What may stand in a checkpoint beside tensors, and files of other kinds, called by their name."""

import argparse
import bz2
import datetime
import gzip
import io
import lzma
import os
import pathlib
import pickle
import re
import struct
import subprocess
import sys
import tarfile
import types
import warnings
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file

from glam_deploy.errors import CheckpointError, UsageError
from glam_export.checkpoint.weights_file import read_weights_file

TENSOR = torch.arange(6, dtype=torch.float32).reshape(2, 3)

HARMLESS: dict[str, object] = {
    "numpy scalars": {"loss": np.float64(0.5), "step": np.int64(7), "best": np.bool_(True), "lr": np.float32(1e-4)},
    "numpy arrays": {"history": np.arange(4.0), "names": np.array(["a", "b"]), "dtype": np.dtype("float32")},
    "numpy strings and times": {"name": np.str_("x"), "when": np.datetime64("2026-01-01")},
    "paths": {"root": pathlib.Path("/data"), "pure": pathlib.PureWindowsPath("C:/data")},
    "arguments": {"args": argparse.Namespace(lr=1e-4, root=pathlib.Path("/data"), best=np.float64(0.9))},
    "namespace": {"config": types.SimpleNamespace(depth=3)},
    "times": {"now": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "took": datetime.timedelta(hours=3)},
    "containers": {"log": defaultdict(list, {"auc": [0.9]}), "count": Counter("aab"), "order": OrderedDict(a=1)},
    "sets and ranges": {"seen": {1, 2}, "kept": frozenset({3}), "rows": range(3), "cut": slice(1, 2), "z": 1j},
    "torch values": {"size": torch.Size([1, 2]), "dtype": torch.float16, "device": torch.device("cuda:0")},
    "random state": {"rng": torch.get_rng_state(), "numpy": np.random.RandomState(0).get_state()},
}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_values_beside_tensors(tmp_path: Path, kind: str, old: bool) -> None:
    path = tmp_path / "epoch=3.ckpt"
    torch.save({"state_dict": {"w": TENSOR}, "extra": HARMLESS[kind]}, path, _use_new_zipfile_serialization=not old)
    content = read_weights_file(path)
    assert isinstance(content, dict)
    assert torch.equal(content["state_dict"]["w"], TENSOR)


RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.ckpt"))
"""Files with hyper-parameters of omegaconf 2.4.0, yacs 0.1.8, easydict 1.14, addict 2.4.0, python-box 8.0.0 and
ml_collections 1.1.0, written by torch.save beside a state dict; none of these libraries is needed to read them."""


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_hyper_parameters_of_other_libraries(path: Path) -> None:
    content = read_weights_file(path)
    assert isinstance(content, dict)
    assert torch.equal(content["state_dict"]["w"], torch.zeros(2))


class Config:
    """A project's own class."""

    def __init__(self) -> None:
        self.depth = 3


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
def test_other_types_are_named(tmp_path: Path, old: bool) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": {"w": TENSOR}, "c": Config()}, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(CheckpointError, match=rf"plain values: {re.escape(Config.__module__)}\.Config\b"):
        read_weights_file(path)


def test_a_whole_module_is_named_and_the_snippet_converts_it(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model": torch.nn.Linear(3, 2)}, tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules\.linear\.Linear") as caught:
        read_weights_file(tmp_path / "whole.pt")
    lines = str(caught.value).splitlines()[1:]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=tmp_path, check=True)
    content = read_weights_file(tmp_path / "whole.state_dict.pt")
    assert isinstance(content, dict)
    assert content.keys() == {"weight", "bias"}


# files of other kinds


def written(name: str) -> Callable[[bytes], Callable[[Path], Path]]:
    def of(content: bytes) -> Callable[[Path], Path]:
        def write(folder: Path) -> Path:
            (folder / name).write_bytes(content)
            return folder / name

        return write

    return of


def checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": TENSOR}, buffer)
    return buffer.getvalue()


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("weights.pt")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    return buffer.getvalue()


def script(folder: Path) -> Path:
    with warnings.catch_warnings(action="ignore"):  # deprecated, and still what published models are saved with
        torch.jit.trace(torch.nn.Linear(3, 2), torch.zeros(1, 3)).save(str(folder / "model.pt"))
    return folder / "model.pt"


def arrays(folder: Path) -> Path:
    np.savez(folder / "weights.npz", w=TENSOR.numpy())
    return folder / "weights.npz"


def graph(folder: Path) -> Path:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    model = helper.make_model(helper.make_graph([node], "g", [value], [out]), producer_name="pytorch")
    onnx.save(model, str(folder / "local.onnx"))
    return folder / "local.onnx"


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 96000000\n"
KINDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "gzip": (written("w.pt")(gzip.compress(checkpoint())), "a gzip archive"),
    "xz": (written("w.pt")(lzma.compress(checkpoint())), "an xz archive"),
    "bzip2": (written("w.pt")(bz2.compress(checkpoint())), "a bzip2 archive"),
    "tar": (written("w.pt")(tarred()), "a tar archive"),
    "zip of a checkpoint": (written("w.pt")(zipped(weights_dot_pt=checkpoint())), r"for instance weights\.pt"),
    "zip cut short": (written("w.pt")(checkpoint()[:-100]), "may be cut short"),
    "Git LFS pointer": (written("w.pt")(POINTER), "a Git LFS pointer.*git lfs pull"),
    "HTML page": (written("w.pt")(b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>"), "an HTML page"),
    "JSON": (written("w.pt")(b'{"message": "Not Found"}'), "a JSON text"),
    "HDF5": (written("w.h5")(b"\x89HDF\r\n\x1a\n" + bytes(90)), "an HDF5 file, as Keras writes"),
    "Keras": (written("w.keras")(zipped(model_dot_weights_dot_h5=b"x", config_dot_json=b"{}")), "a Keras model"),
    "arrays": (arrays, "numpy.savez"),
    "array": (written("w.npy")(b"\x93NUMPY\x01\x00" + bytes(90)), "numpy.save"),
    "TorchScript": (script, "a TorchScript archive"),
    "ONNX": (graph, "an ONNX graph"),
    "mammogram": (written("w.pt")(bytes(128) + b"DICM" + bytes(90)), "a DICOM file.*images go to `glam-deploy run`"),
    "picture": (written("w.pt")(b"\x89PNG\r\n\x1a\n" + bytes(90)), "a PNG picture.*images go to `glam-deploy run`"),
    "pickle of something else": (written("w.pkl")(pickle.dumps([1, 2], protocol=2)), "a pickle that torch.save did"),
    "empty": (written("w.pt")(b""), "it is empty"),
    "text": (written("w.pt")(b"these are no weights"), "begins with b'thes'"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_are_called_by_their_name(tmp_path: Path, kind: str) -> None:
    make, expected = KINDS[kind]
    with pytest.raises(CheckpointError, match=f"not a readable checkpoint.*{expected}|{expected}"):
        read_weights_file(make(tmp_path))


@pytest.mark.parametrize("damage", ["a hole", "a bit"])
def test_a_part_with_another_checksum_is_named(tmp_path: Path, damage: str) -> None:
    """As a download that was resumed or a bad disk leaves it; torch.load gives the wrong weights without a word."""
    weights = torch.arange(100_000, dtype=torch.float32)
    torch.save({"w": weights}, tmp_path / "w.pt")
    content = bytearray((tmp_path / "w.pt").read_bytes())
    middle = len(content) // 2
    length = 4096 if damage == "a hole" else 1
    content[middle : middle + length] = bytes(4096) if damage == "a hole" else bytes([content[middle] ^ 1])
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"its part 'w/data/0' has another checksum \(CRC-32\)"):
        read_weights_file(tmp_path / "w.pt")


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": TENSOR}, tmp_path / "w.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    content = read_weights_file(tmp_path / "w.pt")
    assert isinstance(content, dict) and torch.equal(content["w"], TENSOR)


def test_the_snippet_for_torchscript_converts_it(tmp_path: Path) -> None:
    script(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        read_weights_file(tmp_path / "model.pt")
    program = re.search(r'python -c "(.*)"', str(caught.value))
    assert program
    subprocess.run([sys.executable, "-W", "ignore", "-c", program[1]], cwd=tmp_path, check=True)
    content = read_weights_file(tmp_path / "weights.pt")
    assert isinstance(content, dict)
    assert content.keys() == {"weight", "bias"}


FOLDERS = {
    ".metadata": "torch.distributed.checkpoint",
    "saved_model.pb": "TensorFlow SavedModel",
    "manifest.json": "a bundle that was exported before",
    "model.safetensors": r"for instance .*model\.safetensors",
    "notes.txt": "a folder. Expected a file",
}


@pytest.mark.parametrize("inside", FOLDERS)
def test_folders(tmp_path: Path, inside: str) -> None:
    (tmp_path / inside).touch()
    with pytest.raises(UsageError, match=FOLDERS[inside]):
        read_weights_file(tmp_path)


def test_safetensors_under_another_suffix(tmp_path: Path) -> None:
    save_file({"w": TENSOR}, tmp_path / "weights.bin")
    content = read_weights_file(tmp_path / "weights.bin")
    assert isinstance(content, dict)
    assert torch.equal(content["w"], TENSOR)


class Calls:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


BOMBS: dict[str, Calls] = {
    "range": Calls(list, Calls(range, 2**31 - 1)),
    "set": Calls(set, Calls(range, 2**31 - 1)),
    "text": Calls(str, Calls(list, Calls(range, 2**31 - 1))),
    "array": Calls(np.ndarray, (2**33,)),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_few_bytes_ask_for_no_memory(tmp_path: Path, bomb: str) -> None:
    torch.save({"w": TENSOR, "extra": BOMBS[bomb]}, tmp_path / "w.pt")
    program = f"""if True:
        import resource
        from pathlib import Path
        from glam_export.checkpoint.weights_file import read_weights_file
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read_weights_file(Path({str(tmp_path / "w.pt")!r}))
        except Exception as error:
            assert "weights_only" not in str(error), error
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    """
    subprocess.run([sys.executable, "-c", program], check=True)


def torch_zip(pickled: bytes) -> bytes:
    return zipped(archive__data_dot_pkl=pickled, archive__version=b"3\n", archive__byteorder=b"little")


LONG_NAME = b"a" * 100_000
DAMAGED: dict[str, tuple[bytes, str]] = {
    "text of 2^60 bytes": (
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"abc",
        r"not a readable checkpoint .* cut short",
    ),
    "bytes of 2^60": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"abc", r"not a readable checkpoint .* cut short"),
    "text behind a type": (b"\x80\x02cos\nsystem\n\x8d" + struct.pack("<Q", 1 << 62), r"plain values: os\.system"),
    "long name": (torch_zip(b"\x80\x02c" + LONG_NAME + b"\nb\n."), "a type of more than 1000 characters"),
    "long module": (torch_zip(b"\x80\x02cb\n" + LONG_NAME + b"\n."), "a type of more than 1000 characters"),
    "long name, no ASCII": (torch_zip(b"\x80\x02c\xc3\xa9" + LONG_NAME + b"\nb\n."), "of more than 1000 characters"),
    "long name, plain": (b"\x80\x02c" + LONG_NAME + b"\nb\n.", "a type of more than 1000 characters"),
    "long name, two texts": (
        torch_zip(b"\x80\x04X" + struct.pack("<I", len(LONG_NAME)) + LONG_NAME + b"\x8c\x01b\x93."),
        "a type of more than 1000 characters",
    ),
    "name with control characters": (torch_zip(b"\x80\x02co\x1b[31ms\nx\n."), r"'o\\x1b\[31ms.x'"),
}
"""Small files that claim much: content, and the pattern of the refusal."""


@pytest.mark.parametrize("kind", DAMAGED)
def test_claims_of_a_hostile_pickle_are_refused(tmp_path: Path, kind: str) -> None:
    content, expected = DAMAGED[kind]
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=expected):
        read_weights_file(tmp_path / "w.pt")


def test_a_changed_directory_of_the_archive_is_refused_or_reads_on(tmp_path: Path) -> None:
    content, random = checkpoint(), Random(1)
    start = content.index(b"PK\1\2")
    for _ in range(400):
        changed = bytearray(content)
        changed[random.randrange(start, len(content))] = random.choice((0, 1, 0x7F, 0xFF))
        (tmp_path / "w.pt").write_bytes(changed)
        with suppress(CheckpointError):
            read_weights_file(tmp_path / "w.pt")


def test_a_pickle_of_arrays_is_called_by_its_cause(tmp_path: Path) -> None:
    (tmp_path / "np.pkl").write_bytes(pickle.dumps({"w": TENSOR.numpy()}))
    with pytest.raises(CheckpointError, match=r"a pickle that torch\.save did not write, of numpy") as caught:
        read_weights_file(tmp_path / "np.pkl")
    assert "other than tensors" not in str(caught.value)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_pipes_and_devices_are_not_read(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "w.pt")
    with pytest.raises(UsageError, match="it is a pipe, socket or device, expected a regular file"):
        read_weights_file(tmp_path / "w.pt")


@pytest.mark.parametrize("kind", ["TorchScript", "torch.export"])
def test_a_command_that_runs_code_of_the_file_asks_for_trust(tmp_path: Path, kind: str) -> None:
    """torch.jit.load and torch.export.load run what the file holds."""
    if kind == "TorchScript":
        path = script(tmp_path)
    else:
        path = tmp_path / "model.pt2"
        torch.export.save(torch.export.export(torch.nn.Linear(3, 2), (torch.zeros(1, 3),)), path)
    with pytest.raises(CheckpointError, match=r"If you trust .* which runs code of the file: python"):
        read_weights_file(path)


def test_compressed_entries_are_refused_before_they_are_inflated(tmp_path: Path) -> None:
    """torch.save stores entries as they are: 1.5 GB of zeros deflate to 1.5 MB."""
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as plain, zipfile.ZipFile(tmp_path / "z.pt", "w") as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry), compress_type=zipfile.ZIP_DEFLATED)
    assert (tmp_path / "z.pt").stat().st_size < 10_000
    with pytest.raises(CheckpointError, match=r"compressed entries, which torch\.save never writes"):
        read_weights_file(tmp_path / "z.pt")
