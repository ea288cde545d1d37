"""Keys made by openssl, and signatures checked by it: another implementation than the one under test."""

import base64
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from glam_deploy.bundle import SIGNATURE


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """PEM files: PKCS#8 and SubjectPublicKeyInfo."""

    private: Path
    public: Path


def openssl(*words: str | Path) -> bytes:
    return subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True).stdout


def key_pair(folder: Path, name: str = "key", *, passphrase: str = "", algorithm: str = "ed25519") -> KeyPair:
    """As docs/security.md says."""
    pair = KeyPair(private=folder / f"{name}.pem", public=folder / f"{name}.public.pem")
    secret = ["-aes-256-cbc", "-pass", f"pass:{passphrase}"] if passphrase else []
    openssl("genpkey", "-algorithm", algorithm, *secret, "-out", pair.private)
    given = ["-passin", f"pass:{passphrase}"] if passphrase else []
    openssl("pkey", "-in", pair.private, *given, "-pubout", "-out", pair.public)
    return pair


def openssl_verifies(folder: Path, name: str, public: Path) -> bool:
    """Whether openssl accepts the signature in `folder` as one of the file `name`."""
    raw = folder / "raw.sig"
    raw.write_bytes(base64.b64decode(json.loads((folder / SIGNATURE).read_text())["signature"]))
    given = ["-pubin", "-inkey", public, "-rawin", "-in", folder / name, "-sigfile", raw]
    command = ["openssl", "pkeyutl", "-verify", *map(str, given)]
    done = subprocess.run(command, check=False, capture_output=True)
    raw.unlink()
    return done.returncode == 0
