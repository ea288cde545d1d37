"""`glam-deploy sign`, and reading of private keys for the commands that sign."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from glam_deploy.bundle import Bundle, digest_of, read_signature
from glam_deploy.bundle.sign import sign
from glam_deploy.bundle.signature import SIZE_LIMIT, read_private_key
from glam_deploy.cli import console
from glam_deploy.cli.options import DocumentedCommand, FilePath, bundle_option, passphrase_option
from glam_deploy.errors import UsageError, disk_reason
from glam_deploy.installation import quoted
from glam_deploy.regular import others_can_read, read_regular


@click.command("sign", cls=DocumentedCommand)
@bundle_option
@click.option("--key", type=FilePath(), required=True, help="Private key: Ed25519, PKCS#8 in PEM, as of openssl.")
@passphrase_option
def command(folder: Path, key: Path, passphrase_file: Path | None) -> None:
    """Sign a bundle, so that others can demand it from this key (docs/security.md).

    Checks every hash and gate, then writes signature.json. To be run again after each gate and build, which change the
    manifest. Of an ensemble, all models are signed too.
    """
    secret = private_key(key, passphrase_file)
    with console.working("checking hashes"):
        bundles = sign(folder, secret)
    show_signature(folder, bundles)


def private_key(path: Path, passphrase_file: Path | None) -> Any:
    """The key to sign with. Asks for the passphrase of an encrypted one on a terminal if no file has it.

    Remarks on files that other accounts can read, as `ssh` does.
    """
    for secret in (path, passphrase_file):
        if secret is not None and others_can_read(secret):
            console.err.print(f"{secret}: other users can read this secret: chmod 600 {quoted(secret)}", soft_wrap=True)
    return read_private_key(path, _passphrase(path, passphrase_file))


def show_signature(folder: Path, bundles: tuple[Bundle, ...]) -> None:
    """Print the key of the signature, and the digest that can be demanded."""
    found = read_signature(folder)
    assert found is not None
    console.out.print(f"{folder}: signed with the key {found.key}", soft_wrap=True)
    console.out.print(f"digest {digest_of(bundles)}", soft_wrap=True)


def remark_on_signature(bundle: Bundle) -> None:
    """Print what to do if the signature of a bundle is of an earlier state."""
    found = read_signature(bundle.folder)
    if found is not None and found.sha256 != bundle.id:
        command = f"glam-deploy sign --bundle {quoted(bundle.folder)} --key KEY"
        console.err.print(
            f"{bundle.folder}: its signature is of an earlier state, and whoever demands one refuses it. Sign it "
            f"again: {command}",
            soft_wrap=True,
        )


def _passphrase(key: Path, file: Path | None) -> Callable[[], bytes]:
    """How to get the passphrase of a key. `file` is read at once, so that a wrong one is named for any key."""
    if file is not None:
        try:
            secret = read_regular(file, SIZE_LIMIT).removesuffix(b"\n").removesuffix(b"\r")
        except OSError as error:
            raise UsageError(f"{file}: no passphrase can be read ({disk_reason(error)}); name its file") from error
        return lambda: secret

    def ask() -> bytes:
        if not sys.stdin.isatty():
            raise UsageError(
                f"{key}: is encrypted, and there is no terminal to ask for its passphrase: give a file "
                f"that has it with --passphrase-file"
            )
        return str(click.prompt(f"Passphrase of {key}", hide_input=True, err=True)).encode()

    return ask
