"""Each way to alter a signed bundle is refused with its reason; docs/security.md has the same table.

The attacker can write every file of the bundle and has tools, another key and earlier states, but not the key.
"""

import base64
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
from support.bundles import edit_manifest, facts, write_manifest
from support.gate import IDENTITY, gate, with_id
from support.keys import KeyPair, key_pair
from support.tiny_bundle import write_tiny_bundle

from glam_deploy.bundle import MANIFEST, SIGNATURE, digest_of, open_bundle, open_members, read_trust, write_ensemble
from glam_deploy.bundle.manifest import ENSEMBLE
from glam_deploy.cli.main import exit_code

PAGE = Path(__file__).parents[2] / "docs/security.md"
RECORDED = json.loads((Path(__file__).parent / "manifest_schema_1.json").read_bytes())
ENGINE = RECORDED["engines"][0]
ENGINE_FILES = [
    *(stage["file"] for stage in ENGINE["stages"].values()),
    ENGINE["stages"]["local"]["report"],
    *(kernel["file"] for kernel in ENGINE["kernels"].values()),
    ENGINE["timing_cache"],
]
GRAPH = "graphs/local.onnx"

UNSIGNED = "has no signature.json, and a signature of a trusted key is demanded"
OTHER_KEY = "is signed with the key"
NO_FIT = "the signature does not fit manifest.json"
NO_FIT_ENSEMBLE = "the signature does not fit ensemble.json"
UNREADABLE = "signature.json cannot be read"
DIGEST = "it is another bundle, or an earlier or later state of it"


@dataclass(frozen=True, kw_only=True)
class Place:
    """What the attacker has."""

    folder: Path
    """The signed bundle, or ensemble."""
    earlier: Path
    """The same before its gate, with its signature."""
    other: Path
    """Another bundle that the same key has signed."""
    own: KeyPair
    """The attacker's own key."""


def sign(folder: Path, pair: KeyPair) -> None:
    assert exit_code(["sign", "--bundle", str(folder), "--key", str(pair.private)]) == 0


def make(folder: Path, *, engines: bool = True, **changed: Any) -> Path:
    """A bundle with graphs, weights and a TensorRT engine."""
    write_tiny_bundle(folder)
    (folder / "checkpoint.safetensors").write_bytes(b"weights" * 13)
    for name in ENGINE_FILES if engines else ():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    write_manifest(folder, facts() | {"engines": [ENGINE] if engines else []} | changed)
    return folder


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return key_pair(tmp_path_factory.mktemp("signer"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, signer: KeyPair) -> Place:
    """Signed once; each test alters a copy."""
    root = tmp_path_factory.mktemp("made")
    bundle = make(root / "bundle")
    sign(bundle, signer)
    shutil.copytree(bundle, root / "earlier")
    failed = gate(IDENTITY, passed=False, failures=["decisions flipped: 1, limit 0"])
    edit_manifest(bundle, lambda manifest: manifest.update(gates=[failed]))
    other = make(root / "other", engines=False, licence="another")
    for folder in (bundle, other):
        sign(folder, signer)
    return Place(folder=bundle, earlier=root / "earlier", other=other, own=key_pair(root, "own"))


@pytest.fixture(scope="module")
def made_ensemble(tmp_path_factory: pytest.TempPathFactory, signer: KeyPair, made: Place) -> Place:
    """Three models; `other` is a fourth one, signed with the same key."""
    root = tmp_path_factory.mktemp("ensemble")
    for name in "1234":
        checkpoint = facts()["checkpoint"] | {"sha256": name * 64}
        make(root / "all" / name, engines=False, checkpoint=checkpoint)
    (root / "all/4").rename(root / "other")
    write_ensemble(root / "all", [open_bundle(root / "all" / name) for name in "123"])
    for folder in (root / "all", root / "other"):
        sign(folder, signer)
    return Place(folder=root / "all", earlier=root / "all", other=root / "other", own=made.own)


# the ways


def replaced(folder: Path, name: str, content: bytes) -> None:
    """Another file, which the manifest lists with its hash."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    write_manifest(folder, {key: value for key, value in manifest.items() if key not in ("files", "schema_version")})


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def external(folder: Path) -> None:
    """The local graph takes its weights from another file."""
    model = onnx.load(folder / GRAPH)
    onnx.save_model(model, folder / GRAPH, save_as_external_data=True, size_threshold=0, location="weights.bin")
    replaced(folder, GRAPH, (folder / GRAPH).read_bytes())


def linked(folder: Path, target: Path) -> None:
    (folder / GRAPH).unlink()
    (folder / GRAPH).symlink_to(target / "graphs/global.onnx")


def forged_gate(folder: Path) -> None:
    edit_manifest(folder, lambda manifest: manifest["gates"].append(gate(IDENTITY)))


def gates_edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Place], object]:
    def edit(manifest: dict[str, Any]) -> None:
        change(manifest["gates"][0])
        manifest["gates"] = [with_id(manifest["gates"][0])]

    return lambda place: edit_manifest(place.folder, edit)


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Place], object]:
    return lambda place: edit_manifest(place.folder, change)


def rewritten(folder: Path, old: str, new: str) -> None:
    text = (folder / MANIFEST).read_text()
    assert old in text
    (folder / MANIFEST).write_text(text.replace(old, new, 1))


def signature_edited(folder: Path, **changed: object) -> None:
    content = json.loads((folder / SIGNATURE).read_text())
    (folder / SIGNATURE).write_text(json.dumps(content | changed))


def signed_by_own_key(place: Place, **changed: object) -> None:
    sign(place.folder, place.own)
    signature_edited(place.folder, **changed)


def key_of(folder: Path) -> str:
    return str(json.loads((folder / SIGNATURE).read_text())["key"])


def flipped_signature(folder: Path) -> None:
    raw = bytearray(base64.b64decode(json.loads((folder / SIGNATURE).read_text())["signature"]))
    raw[5] ^= 1
    signature_edited(folder, signature=base64.b64encode(raw).decode())


def exchange(place: Place, content: Path) -> None:
    """Everything is of another bundle."""
    shutil.rmtree(place.folder)
    shutil.copytree(content, place.folder)


def bundle_in_ensemble(place: Place) -> None:
    """The bundle becomes one model of an ensemble with another one."""
    for name, source in (("1", place.folder), ("2", place.other)):
        shutil.copytree(source, place.folder.parent / "ensemble" / name)
    members = place.folder.parent / "ensemble"
    edit_manifest(members / "2", lambda manifest: manifest["checkpoint"].update(sha256="11" * 32))
    write_ensemble(members, [open_bundle(members / name) for name in "12"])
    exchange(place, members)


WAYS: Mapping[str, tuple[Callable[[Place], object], str]] = {
    "a byte of a graph": (lambda p: flipped(p.folder / GRAPH), "graphs/local.onnx was changed"),
    "a graph, and its hash in the manifest": (lambda p: replaced(p.folder, GRAPH, b"other"), NO_FIT),
    "a graph that takes its weights from another file": (lambda p: external(p.folder), NO_FIT),
    "a graph by a link to another file": (lambda p: linked(p.folder, p.other), "the manifest says"),
    "a byte of the weights": (lambda p: flipped(p.folder / "checkpoint.safetensors"), "was changed"),
    "a byte of a TensorRT engine": (lambda p: flipped(p.folder / ENGINE_FILES[0]), "global.engine was changed"),
    "a TensorRT engine, and its hash in the manifest": (lambda p: replaced(p.folder, ENGINE_FILES[0], b"e"), NO_FIT),
    "a byte of the CUDA kernels": (lambda p: flipped(p.folder / ENGINE_FILES[-2]), "cubin was changed"),
    "a byte of the timing cache": (lambda p: flipped(p.folder / ENGINE_FILES[-1]), "timing.cache was changed"),
    "a file cut": (lambda p: (p.folder / GRAPH).write_bytes(b""), "has 0 bytes, the manifest says"),
    "a file removed": (lambda p: (p.folder / GRAPH).unlink(), "graphs/local.onnx cannot be read"),
    "a file added": (lambda p: (p.folder / "graphs/local.bf16.onnx").write_bytes(b"g"), "is not in the manifest"),
    "a passed gate added": (lambda p: forged_gate(p.folder), NO_FIT),
    "a failed gate turned into a passed one": (
        gates_edited(lambda g: g.update(passed=True, failures=[])),
        NO_FIT,
    ),
    "the limits of a gate": (gates_edited(lambda g: g.update(limits={"dice_worst": 0.0})), NO_FIT),
    "a gate removed": (edited(lambda m: m.update(gates=[])), NO_FIT),
    "the number of patches": (edited(lambda m: m["network"].update(patches=6)), NO_FIT),
    "the GPU that an engine was built for": (edited(lambda m: m["engines"][0]["made_for"].update(gpu="T4")), NO_FIT),
    "a file outside of the bundle listed": (
        edited(lambda m: m["files"].update({"../other/x": {"sha256": "00" * 32, "bytes": 1}})),
        NO_FIT,
    ),
    "a key of the manifest twice": (lambda p: rewritten(p.folder, '"licence"', '"licence": "", "licence"'), NO_FIT),
    "white space of the manifest": (lambda p: rewritten(p.folder, "{", "{ "), NO_FIT),
    "the schema version": (edited(lambda m: m.update(schema_version=1)), NO_FIT),
    "the manifest by an earlier one": (
        lambda p: shutil.copy(p.earlier / MANIFEST, p.folder / MANIFEST),
        NO_FIT,
    ),
    "the whole bundle by an earlier state of it": (lambda p: exchange(p, p.earlier), DIGEST),
    "the whole bundle by another one of the same key": (lambda p: exchange(p, p.other), DIGEST),
    "the bundle by an ensemble that contains it": (bundle_in_ensemble, UNSIGNED),
    "the signature removed": (lambda p: (p.folder / SIGNATURE).unlink(), UNSIGNED),
    "the signature by one of another key": (signed_by_own_key, OTHER_KEY),
    "the signature by one of another key, under the name of the trusted key": (
        lambda p: signed_by_own_key(p, key=key_of(p.folder)),
        NO_FIT,
    ),
    "the signature by one of another bundle": (lambda p: shutil.copy(p.other / SIGNATURE, p.folder), NO_FIT),
    "a bit of the signature": (lambda p: flipped_signature(p.folder), NO_FIT),
    "the signature empty": (lambda p: signature_edited(p.folder, signature=""), NO_FIT),
    "the algorithm of the signature": (lambda p: signature_edited(p.folder, algorithm="none"), UNREADABLE),
    "the file of the signature by other text": (lambda p: (p.folder / SIGNATURE).write_text("trust me"), UNREADABLE),
}


def ensemble_edited(folder: Path, edit: Callable[[list[dict[str, Any]]], object]) -> None:
    content = json.loads((folder / ENSEMBLE).read_text())
    edit(content["members"])
    (folder / ENSEMBLE).write_text(json.dumps(content))


def without_model(folder: Path) -> None:
    shutil.rmtree(folder / "3")
    ensemble_edited(folder, lambda members: members.pop())


def reordered(folder: Path) -> None:
    ensemble_edited(folder, list.reverse)


def other_model(place: Place) -> None:
    shutil.rmtree(place.folder / "3")
    shutil.copytree(place.other, place.folder / "3")
    ensemble_edited(place.folder, lambda members: members[2].update(checkpoint_sha256="4" * 64))


def one_of_them(place: Place) -> None:
    shutil.copytree(place.folder / "1", place.folder.parent / "one")
    exchange(place, place.folder.parent / "one")


WAYS_OF_ENSEMBLES: Mapping[str, tuple[Callable[[Place], object], str]] = {
    "a model of an ensemble removed": (lambda p: without_model(p.folder), NO_FIT_ENSEMBLE),
    "a model of an ensemble exchanged for another one of the same key": (other_model, NO_FIT_ENSEMBLE),
    "the order of the models": (lambda p: reordered(p.folder), NO_FIT_ENSEMBLE),
    "the signature of one model of an ensemble removed": (lambda p: (p.folder / "2" / SIGNATURE).unlink(), UNSIGNED),
    "an ensemble by one of its models": (one_of_them, DIGEST),
}


# the refusals


def refusal(
    place: Place, tmp_path: Path, signer: KeyPair, way: Callable[[Place], object], err: Callable[[], str]
) -> str:
    """What `verify` says of an altered copy. The copy is accepted before."""
    for name in ("folder", "earlier", "other"):
        shutil.copytree(getattr(place, name), tmp_path / name)
    copy = Place(folder=tmp_path / "folder", earlier=tmp_path / "earlier", other=tmp_path / "other", own=place.own)
    digest = digest_of(open_members(copy.folder))
    for bundle in open_members(copy.folder, read_trust([signer.public], digest)):
        bundle.check()
    way(copy)
    err()
    words = ["verify", "--bundle", copy.folder, "--engine", "onnx", "--trusted-key", signer.public, "--digest", digest]
    assert exit_code([str(word) for word in words]) == 4
    return err()


@pytest.mark.parametrize("name", WAYS)
def test_bundle(name: str, made: Place, tmp_path: Path, signer: KeyPair, capsys: pytest.CaptureFixture[str]) -> None:
    way, reason = WAYS[name]
    said = refusal(made, tmp_path, signer, way, lambda: capsys.readouterr().err)
    assert said.startswith(f"glam-deploy: {tmp_path / 'folder'}: ")
    assert reason in said


@pytest.mark.parametrize("name", WAYS_OF_ENSEMBLES)
def test_ensemble(
    name: str, made_ensemble: Place, tmp_path: Path, signer: KeyPair, capsys: pytest.CaptureFixture[str]
) -> None:
    way, reason = WAYS_OF_ENSEMBLES[name]
    assert reason in refusal(made_ensemble, tmp_path, signer, way, lambda: capsys.readouterr().err)


def test_the_page_has_this_table() -> None:
    rows = [line.strip("| \n").split(" | ") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    table = {row[0]: row[1].strip("`") for row in rows if len(row) == 2}
    wanted = {name: reason for ways in (WAYS, WAYS_OF_ENSEMBLES) for name, (_, reason) in ways.items()}
    assert {name: table.get(name) for name in wanted} == wanted
    assert len(wanted) >= 20
    assert list(wanted) == [name for name in table if name in wanted]
