"""Signed bundles: openssl accepts what we sign, keys of openssl are taken, and what proves nothing is refused."""

import errno
import hashlib
import json
import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from support.bundles import edit_manifest, fill, snapshot
from support.commands import Cli, start_process
from support.gate import IDENTITY, gate
from support.keys import KeyPair, key_pair, openssl, openssl_verifies
from support.tiny_bundle import write_tiny_bundle

import glam_deploy
from glam_deploy.bundle import (
    MANIFEST,
    SIGNATURE,
    GateEntry,
    open_bundle,
    open_members,
    read_trust,
    replace_gates,
    write_ensemble,
    write_manifest,
)
from glam_deploy.bundle.manifest import ENSEMBLE
from glam_deploy.errors import BundleError, UsageError
from glam_deploy.json_records import from_json


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "bundle"
    place.mkdir()
    fill(place)
    return place


def sign(cli: Cli, folder: Path, pair: KeyPair) -> None:
    assert cli("sign", "--bundle", folder, "--key", pair.private).code == 0


# signing


def test_openssl_accepts_the_signature_and_no_other_content(cli: Cli, folder: Path, pair: KeyPair) -> None:
    sign(cli, folder, pair)
    assert openssl_verifies(folder, MANIFEST, pair.public)
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes() + b" ")
    assert not openssl_verifies(folder, MANIFEST, pair.public)


def test_the_fingerprint_is_that_of_openssl(cli: Cli, folder: Path, pair: KeyPair) -> None:
    said = cli("sign", "--bundle", folder, "--key", pair.private)
    der = openssl("pkey", "-pubin", "-in", pair.public, "-outform", "DER")
    assert f"signed with the key {hashlib.sha256(der).hexdigest()}\n" in said.out
    assert f"digest {hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()}\n" in said.out


def test_nothing_but_the_signature_changes(cli: Cli, folder: Path, pair: KeyPair) -> None:
    before, id_before = snapshot(folder), open_bundle(folder).id
    sign(cli, folder, pair)
    after = snapshot(folder)
    assert {name: content for name, content in after.items() if name != SIGNATURE} == before
    open_bundle(folder).check()
    assert open_bundle(folder).id == id_before
    assert (folder / SIGNATURE).stat().st_mode & 0o777 == 0o644
    assert b"PRIVATE" not in after[SIGNATURE]


def test_the_same_key_makes_the_same_signature(cli: Cli, folder: Path, pair: KeyPair) -> None:
    """RFC 8032: Ed25519 is deterministic."""
    sign(cli, folder, pair)
    before = (folder / SIGNATURE).read_bytes()
    sign(cli, folder, pair)
    assert (folder / SIGNATURE).read_bytes() == before


def test_a_bundle_that_cannot_be_written(
    cli: Cli, folder: Path, pair: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("glam_deploy.bundle.sign.replace_file", read_only)
    said = cli("sign", "--bundle", folder, "--key", pair.private)
    told = "(Read-only file system): mount the file system writable, or copy the bundle"
    assert (said.code, told in said.err) == (2, True)


def test_a_damaged_bundle_is_not_signed(cli: Cli, folder: Path, pair: KeyPair) -> None:
    (folder / "graphs/global.onnx").write_bytes(b"GLOBAL" * 7)
    said = cli("sign", "--bundle", folder, "--key", pair.private)
    assert (said.code, (folder / SIGNATURE).exists()) == (4, False)
    assert "graphs/global.onnx was changed" in said.err


def test_a_forged_gate_is_not_signed(cli: Cli, folder: Path, pair: KeyPair) -> None:
    edit_manifest(folder, lambda manifest: manifest.update(gates=[gate(IDENTITY) | {"id": "forged"}]))
    said = cli("sign", "--bundle", folder, "--key", pair.private)
    assert (said.code, (folder / SIGNATURE).exists()) == (4, False)
    assert "the gate forged of the engine openvino contradicts itself" in said.err


# private keys


def test_a_passphrase_from_a_file(cli: Cli, folder: Path, tmp_path: Path) -> None:
    pair = key_pair(tmp_path, passphrase="four words of it")
    (tmp_path / "secret").write_text("four words of it\n")
    words = ("sign", "--bundle", folder, "--key", pair.private)
    assert cli(*words, "--passphrase-file", tmp_path / "secret").code == 0
    assert openssl_verifies(folder, MANIFEST, pair.public)
    (tmp_path / "secret").write_text("other words")
    refused = cli(*words, "--passphrase-file", tmp_path / "secret")
    assert refused.code == 2
    assert "cannot be decrypted: the passphrase is wrong" in refused.err
    assert "other words" not in refused.err
    gone = cli(*words, "--passphrase-file", tmp_path / "gone")
    assert gone.code == 2
    assert "no passphrase can be read (No such file or directory)" in gone.err


def test_a_passphrase_without_a_terminal_is_asked_from_a_file(folder: Path, tmp_path: Path) -> None:
    pair = key_pair(tmp_path, passphrase="four words of it")
    words = ("sign", "--bundle", folder, "--key", pair.private)
    process = start_process(*words, code=PLAIN, stdin=subprocess.DEVNULL)
    _, err = process.communicate()
    assert process.returncode == 2
    assert "there is no terminal to ask for its passphrase: give a file that has it with --passphrase-file" in err


PLAIN = "from glam_deploy.cli.main import main; main()"


def test_a_passphrase_on_a_terminal_is_not_shown(folder: Path, tmp_path: Path) -> None:
    pair = key_pair(tmp_path, passphrase="four words of it")
    controller, terminal = pty.openpty()
    process = start_process(
        "sign", "--bundle", folder, "--key", pair.private, code=PLAIN, stdin=terminal, start_new_session=True
    )
    os.close(terminal)
    assert process.stderr is not None
    asked = ""
    while not asked.endswith(": "):  # getpass discards what was typed before it writes the space
        asked += process.stderr.read(1)
    os.write(controller, b"four words of it\n")
    out, err = process.communicate()
    os.close(controller)
    assert (asked, process.returncode) == (f"Passphrase of {pair.private}: ", 0), err
    assert "four words" not in out + err
    assert openssl_verifies(folder, MANIFEST, pair.public)


KEYS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no file": (lambda f: f / "gone.pem", "the key cannot be read (No such file or directory)"),
    "a folder": (lambda f: f, "the key cannot be read (Is a directory)"),
    "the public key": (lambda f: key_pair(f).public, "is a public key, expected a private key in PEM"),
    "Ed448": (lambda f: key_pair(f, algorithm="ed448").private, "is a key of another algorithm, expected Ed25519"),
    "RSA": (lambda f: key_pair(f, algorithm="rsa").private, "is a key of another algorithm, expected Ed25519"),
}


@pytest.mark.parametrize("name", KEYS)
def test_what_is_no_key_to_sign_with(cli: Cli, folder: Path, tmp_path: Path, name: str) -> None:
    key, reason = KEYS[name]
    said = cli("sign", "--bundle", folder, "--key", key(tmp_path))
    assert (said.code, (folder / SIGNATURE).exists()) == (2, False)
    assert reason in said.err


# trusted keys


TRUSTED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no file": (lambda f: f / "gone.pem", "the key cannot be read"),
    "the private key": (lambda f: key_pair(f).private, "is a private key, which only who signs may have"),
    "an encrypted private key": (lambda f: key_pair(f, passphrase="secret").private, "is a private key"),
    "RSA": (lambda f: key_pair(f, algorithm="rsa").public, "is no key of Ed25519 that belongs to a private key"),
    "text": (lambda f: f / MANIFEST, "is no key, expected a public key of Ed25519 in PEM"),
}


@pytest.mark.parametrize("name", TRUSTED)
def test_what_is_no_key_to_trust(folder: Path, tmp_path: Path, name: str) -> None:
    key, reason = TRUSTED[name]
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(UsageError, match=reason):
        read_trust([key(tmp_path)])


@pytest.mark.parametrize("digest", ["", "00", "A" * 64, "0" * 65, "sha256:" + "0" * 57])
def test_what_is_no_digest(digest: str) -> None:
    with pytest.raises(UsageError, match="is not a SHA-256: expected 64 digits"):
        read_trust(None, digest)


def test_load_demands_one_of_several_keys(cli: Cli, tmp_path: Path, pair: KeyPair) -> None:
    folder, other = write_tiny_bundle(tmp_path / "bundle"), key_pair(tmp_path, "other")
    with pytest.raises(BundleError, match="a signature of a trusted key is demanded"):
        glam_deploy.load(folder, trusted_keys=[pair.public])
    sign(cli, folder, pair)
    glam_deploy.load(folder, trusted_keys=[str(other.public), str(pair.public)]).close()
    with pytest.raises(BundleError, match=r"is signed with the key [0-9a-f]{16}, expected [0-9a-f]{16}\."):
        glam_deploy.load(folder, trusted_keys=[other.public])
    glam_deploy.load(folder, digest=open_bundle(folder).id).close()
    with pytest.raises(
        BundleError, match=f"has the digest {open_bundle(folder).id}, expected {'0' * 64}: it is another"
    ):
        glam_deploy.load(folder, digest="0" * 64)


def test_without_demands_a_bundle_needs_no_signature_and_no_fitting_one(
    cli: Cli, tmp_path: Path, pair: KeyPair
) -> None:
    folder = write_tiny_bundle(tmp_path / "bundle")
    glam_deploy.load(folder).close()
    sign(cli, folder, pair)
    edit_manifest(folder, lambda manifest: manifest.update(licence="another"))
    glam_deploy.load(folder).close()


# after signing


def test_a_later_gate_breaks_the_signature_visibly(cli: Cli, folder: Path, pair: KeyPair) -> None:
    sign(cli, folder, pair)
    assert "checks it" in " ".join(cli("inspect", "--bundle", folder).out.split())
    replace_gates(open_bundle(folder), [from_json(GateEntry, gate(IDENTITY))])
    assert "of an earlier state" in " ".join(cli("inspect", "--bundle", folder).out.split())
    with pytest.raises(BundleError, match=r"the signature does not fit manifest\.json.*or, if you changed it \(a gate"):
        open_bundle(folder, read_trust([pair.public]))
    sign(cli, folder, pair)
    open_bundle(folder, read_trust([pair.public])).check()


def test_an_ensemble_is_signed_with_all_of_its_models(cli: Cli, tmp_path: Path, pair: KeyPair) -> None:
    for name in "12":
        (tmp_path / name).mkdir()
        fill(tmp_path / name)
    edit_manifest(tmp_path / "2", lambda manifest: manifest["checkpoint"].update(sha256="2" * 64))
    write_ensemble(tmp_path, [open_bundle(tmp_path / name) for name in "12"])
    said = cli("sign", "--bundle", tmp_path, "--key", pair.private)
    assert said.code == 0
    for place, name in ((tmp_path, ENSEMBLE), (tmp_path / "1", MANIFEST), (tmp_path / "2", MANIFEST)):
        assert openssl_verifies(place, name, pair.public)
    ids = [hashlib.sha256((tmp_path / name / MANIFEST).read_bytes()).hexdigest() for name in "12"]
    digest = hashlib.sha256(json.dumps(ids, separators=(",", ":")).encode()).hexdigest()
    assert f"digest {digest}\n" in said.out
    assert len(open_members(tmp_path, read_trust([pair.public], digest))) == 2


def test_a_new_manifest_does_not_list_the_signature(cli: Cli, folder: Path, pair: KeyPair) -> None:
    """Both are of the same folder, and the signature is of the manifest."""
    sign(cli, folder, pair)
    write_manifest(folder, open_bundle(folder).manifest)
    assert SIGNATURE not in open_bundle(folder).files
