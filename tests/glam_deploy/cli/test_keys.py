"""What is a key, and what a message makes of a file that is none: no remedy costs a key."""

import base64
import os
import re
import shlex
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from support.bundles import fill
from support.commands import Cli
from support.keys import key_pair

import glam_deploy
from glam_deploy.bundle import read_trust
from glam_deploy.errors import UsageError


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "bundle"
    place.mkdir()
    fill(place)
    return place


def test_a_remedy_leaves_every_key(cli: Cli, folder: Path, tmp_path: Path) -> None:
    """openssl replaces a file without asking, so that a command with the name of a key would destroy it."""
    right, wrong = key_pair(tmp_path, passphrase="right"), tmp_path / "wrong"
    wrong.write_text("wrong")
    said = cli("sign", "--bundle", folder, "--key", right.private, "--passphrase-file", wrong)
    assert said.code == 2
    assert "the passphrase is wrong, or the file is damaged. Give the passphrase of this key" in words(said.err)
    assert "openssl" not in said.err
    rsa = key_pair(tmp_path, "rsa key", algorithm="rsa").private
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    said = cli("sign", "--bundle", folder, "--key", rsa)
    command = re.search(r"make a new key: (openssl .*)", words(said.err))
    assert command
    subprocess.run(shlex.split(command[1]), check=True, capture_output=True)
    assert {path: path.read_bytes() for path in before} == before
    (made,) = {path for path in tmp_path.iterdir() if path.is_file()} - before.keys()
    assert cli("sign", "--bundle", folder, "--key", made).code == 0


def test_other_forms_of_keys_are_named(cli: Cli, folder: Path, tmp_path: Path) -> None:
    pair, der = key_pair(tmp_path), tmp_path / "key.der"
    subprocess.run(["openssl", "pkey", "-in", pair.private, "-outform", "DER", "-out", der], check=True)
    ssh = tmp_path / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ssh], check=True)
    (tmp_path / "empty").touch()
    for key, kind in {der: "is in DER", ssh: "is a key of OpenSSH", tmp_path / "empty": "is empty"}.items():
        said = cli("sign", "--bundle", folder, "--key", key)
        assert (said.code, f"{key}: {kind}, expected a private key in PEM" in said.err) == (2, True)
    with pytest.raises(UsageError, match="is a key of OpenSSH"):
        read_trust([tmp_path / "id_ed25519.pub"])


def test_secrets_that_others_can_read_are_named(cli: Cli, folder: Path, tmp_path: Path) -> None:
    pair = key_pair(tmp_path)
    pair.private.chmod(0o644)
    said = cli("sign", "--bundle", folder, "--key", pair.private)
    assert said.code == 0
    assert f"{pair.private}: other users can read this secret: chmod 600 {pair.private}" in said.err
    pair.private.chmod(0o600)
    assert "other users" not in cli("sign", "--bundle", folder, "--key", pair.private).err


@pytest.mark.parametrize("place", ["/dev/null", "/dev/tty", "/dev/urandom", "folder", "pipe", "link"])
@pytest.mark.parametrize("option", ["--key", "--passphrase-file"])
def test_a_secret_that_is_no_regular_file_is_named_and_its_mode_kept(
    cli: Cli, folder: Path, tmp_path: Path, place: str, option: str
) -> None:
    """Others need the mode of a device: chmod 600 /dev/null breaks a system."""
    pair, secret = key_pair(tmp_path), tmp_path / place
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/null")
    (tmp_path / "pipe").chmod(0o666)
    said = cli("sign", "--bundle", folder, *(() if option == "--key" else ("--key", pair.private)), option, secret)
    what = "Is a directory" if place == "folder" else "it is a pipe, socket or device, expected a regular file"
    assert said.code == 2 and "chmod" not in said.err
    assert f"{secret}: " in said.err and f"({what})" in words(said.err)


def test_two_keys_in_a_file_are_not_one(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(key_pair(tmp_path, "a").public.read_bytes() + key_pair(tmp_path, "b").public.read_bytes())
    with pytest.raises(UsageError, match="has 2 keys, expected one: write each to a file of its own"):
        read_trust([both])


FIELD, D = 2**255 - 19, -121665 * pow(121666, -1, 2**255 - 19)
"""Of the curve: RFC 8032, section 5.1."""


def doubled(y: int) -> int:
    """y of twice the point with this y, by the equation of the curve, -x^2 + y^2 = 1 + d x^2 y^2."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, FIELD) % FIELD
    return (y * y + square) * pow(1 - D * square * y * y, -1, FIELD) % FIELD


def test_keys_for_which_anybody_can_sign_are_refused(tmp_path: Path) -> None:
    """Points whose order divides 8: doubled three times they are the neutral element, whose y is 1."""
    eighth = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
    orders = [1, FIELD - 1, 0, eighth, FIELD - eighth]
    assert [doubled(doubled(doubled(y))) for y in orders] == [1] * 5
    assert doubled(doubled(doubled(5))) != 1
    path = tmp_path / "public.pem"
    for y, sign in product([*orders, FIELD, FIELD + 1], [0, 1 << 255]):
        der = bytes.fromhex("302a300506032b6570032100") + (y | sign).to_bytes(32, "little")
        text = base64.b64encode(der).decode()
        path.write_text(f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
        with pytest.raises(UsageError, match=r"is no key of Ed25519 that belongs to a private key|is no key, expected"):
            read_trust([path])


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ([], "trusted_keys is empty, so that any bundle would do"),
        ("public.pem", r"trusted_keys = 'public.pem': expected a list of paths, such as \['public.pem'\]"),
        ([7], "trusted_keys = 7: expected a path"),
        (7, "trusted_keys = 7: expected a list of paths"),
    ],
)
def test_what_demands_no_key(folder: Path, keys: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        glam_deploy.load(folder, trusted_keys=keys)


def test_arguments_of_other_types_are_usage_errors(folder: Path) -> None:
    for call in (lambda: glam_deploy.load(None), lambda: glam_deploy.load(folder, digest=12)):  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            call()
