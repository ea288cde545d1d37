"""A bundle: a folder with `manifest.json` and every file that it names, each held by its SHA-256.

    bundle/
      manifest.json             schema, network, checkpoint, graphs, files and hashes, versions, parity table
      graphs/{global,local,fusion}.onnx
      golden/case.npz           one raw view and the reference's outputs for it, to re-check on any machine
      checkpoint.safetensors    the weights as loaded, for the PyTorch engine; may be left out

A bundle is written beside its final place and renamed, so that a folder with a manifest is always whole.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glam_deploy.errors import BundleError, UsageError

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
CHECKPOINT_FILE = "checkpoint.safetensors"


def graph_file(stage: str) -> str:
    """Where a stage's graph lies in a bundle."""
    return f"graphs/{stage}.onnx"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle on disk whose manifest has been read and understood."""

    folder: Path
    manifest: Mapping[str, Any]
    id: str
    """SHA-256 of the manifest, which names the hash of all else: two bundles with one id are the same bundle."""

    @property
    def fusion_head(self) -> bool:
        """Whether the checkpoint has attention and fusion layers."""
        return bool(self.manifest["network"]["fusion_head"])

    @property
    def patches(self) -> int:
        """How many patches an image gets where nobody says otherwise."""
        return int(self.manifest["network"]["patches"])

    @property
    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """Relative path -> {"sha256", "bytes"} of every file but the manifest."""
        files: Mapping[str, Mapping[str, Any]] = self.manifest["files"]
        return files

    def path(self, name: str) -> Path:
        """Absolute path of a file that the manifest names; BundleError where it names none such."""
        if name not in self.files:
            raise BundleError(
                f"{self.folder}: the manifest names no {name}; it has {', '.join(sorted(self.files))}. "
                f"Export the checkpoint again."
            )
        return self.folder / name

    def read(self, name: str) -> bytes:
        """The bytes of a file, given out only if their SHA-256 is the manifest's. Raises BundleError."""
        try:
            content = self.path(name).read_bytes()
        except OSError as error:
            raise _missing(self.folder, name, error) from error
        _check_hash(self.folder, name, hashlib.sha256(content).hexdigest(), self.files[name]["sha256"])
        return content

    def check(self) -> None:
        """Hash every file. Raises BundleError for the first that is missing or changed, or is not in the manifest."""
        for name, entry in self.files.items():
            try:
                _check_hash(self.folder, name, _file_sha256(self.path(name)), entry["sha256"])
            except OSError as error:
                raise _missing(self.folder, name, error) from error
        if stray := sorted(_contents(self.folder) - {*self.files, MANIFEST}):
            raise BundleError(
                f"{self.folder}: {', '.join(stray)} is not in the manifest. Nothing in a bundle may be unaccounted "
                f"for: remove it, or export the checkpoint again."
            )


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle's manifest and check that every file is there in its size; contents are hashed as they are read.

    Raises UsageError where there is no bundle and BundleError where it is damaged or newer than this release.
    """
    try:
        text = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise UsageError(
            f"{folder}: no bundle there ({MANIFEST} cannot be read: {error.strerror}). Make one with "
            f"`glam-deploy export --weights ckpt.pt --out {folder}`, or name yours with --bundle or GLAM_BUNDLE."
        ) from error
    bundle = Bundle(folder=folder, manifest=_parse(folder, text), id=hashlib.sha256(text).hexdigest())
    for name, entry in bundle.files.items():
        _check_size(bundle, name, entry["bytes"])
    return bundle


@contextmanager
def staged_bundle(folder: Path) -> Iterator[Path]:
    """A fresh folder to fill; it becomes `folder` when the block ends well and vanishes when it does not.

    A bundle that stands at `folder` is replaced as a whole; anything else there is a UsageError.
    """
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists and is not a bundle; nothing was written. Name another place with --out.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}). Name another place with --out.") from error
    try:
        yield staging
        _make_readable(staging)
        _put_in_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `manifest.json` over all that lies in `folder`: `facts` plus schema version, files, sizes and hashes."""
    files = {
        name: {"sha256": _file_sha256(folder / name), "bytes": (folder / name).stat().st_size}
        for name in sorted(_contents(folder) - {MANIFEST})
    }
    manifest = {"schema_version": SCHEMA_VERSION, **facts, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n", "utf-8")


def _put_in_place(staging: Path, folder: Path) -> None:
    if not folder.exists():
        staging.rename(folder)
        return
    retired = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    folder.rename(retired / folder.name)
    staging.rename(folder)
    shutil.rmtree(retired)


def _make_readable(staging: Path) -> None:
    """A service under another account runs the bundle; temporary folders and some writers leave it to the owner."""
    staging.chmod(0o755)
    for path in staging.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _parse(folder: Path, text: bytes) -> Mapping[str, Any]:
    try:
        manifest = json.loads(text)
        version = manifest["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder / MANIFEST}: not a bundle's manifest. Export the checkpoint again.") from error
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{folder / MANIFEST}: schema version {version}, this release reads {SCHEMA_VERSION}. "
            f"Upgrade glam-deploy, or export the checkpoint again with this release."
        )
    if missing := {"network", "checkpoint", "files", "versions", "parity", "golden"} - manifest.keys():
        raise BundleError(f"{folder / MANIFEST}: lacks {', '.join(sorted(missing))}. Export the checkpoint again.")
    result: Mapping[str, Any] = manifest
    return result


def _check_size(bundle: Bundle, name: str, expected: int) -> None:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise BundleError(
            f"{bundle.folder}: the manifest names {name!r}, which lies outside the bundle. Do not use it."
        )
    try:
        size = bundle.path(name).stat().st_size
    except OSError as error:
        raise _missing(bundle.folder, name, error) from error
    if size != expected:
        raise BundleError(f"{bundle.folder}: {name} has {size} bytes, the manifest says {expected}. {_RESTORE}")


def _check_hash(folder: Path, name: str, found: str, expected: str) -> None:
    if found != expected:
        raise BundleError(f"{folder}: {name} was changed: SHA-256 {found}, the manifest says {expected}. {_RESTORE}")


_RESTORE = "Restore the file from where the bundle came from, or export the checkpoint again."


def _missing(folder: Path, name: str, error: OSError) -> BundleError:
    return BundleError(f"{folder}: {name} cannot be read ({error.strerror}). {_RESTORE}")


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _contents(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
