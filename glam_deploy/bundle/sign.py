"""Signing of bundles and ensembles, after a check of all that the signature will cover."""

import json
from pathlib import Path
from typing import Any

from glam_deploy.bundle.folder import Bundle, is_ensemble, open_members
from glam_deploy.bundle.gate_rule import require_consistent_gates
from glam_deploy.bundle.lock import locked
from glam_deploy.bundle.manifest import ENSEMBLE, MANIFEST_LIMIT
from glam_deploy.bundle.signature import SIGNATURE, signature_of
from glam_deploy.bundle.write import replace_file
from glam_deploy.errors import UsageError, unwritable
from glam_deploy.json_records import to_json
from glam_deploy.regular import read_regular


def sign(folder: Path, key: Any) -> tuple[Bundle, ...]:
    """Sign a bundle, or an ensemble and each of its bundles; an earlier signature is replaced.

    `key`: of `signature.read_private_key`. Returns the signed bundles. Every hash and gate is checked first. Raises as
    `open_members`; BundleError for a changed file and for a gate that contradicts itself; UsageError if the folder
    cannot be written.
    """
    bundles = open_members(folder)
    try:
        for bundle in bundles:
            with locked(bundle.folder):
                _sign_bundle(bundle, key)
        if is_ensemble(folder):
            _write(folder, read_regular(folder / ENSEMBLE, MANIFEST_LIMIT), key)
    except OSError as error:
        raise UsageError(
            f"{folder}: the signature cannot be written {unwritable(error)}, or copy the bundle to a writable folder."
        ) from error
    return bundles


def _sign_bundle(bundle: Bundle, key: Any) -> None:
    bundle.check()
    require_consistent_gates(bundle)
    _write(bundle.folder, bundle.manifest_text(), key)


def _write(folder: Path, text: bytes, key: Any) -> None:
    content = json.dumps(to_json(signature_of(text, key)), indent=2) + "\n"
    replace_file(folder, SIGNATURE, content.encode())
