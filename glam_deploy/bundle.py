"""A bundle: a folder with `manifest.json` and every file that it names, each held by its SHA-256.

    bundle/
      manifest.json             schema, network, checkpoint, graphs, files and hashes, versions, parity table
      graphs/{global,local,fusion}.onnx, graphs/{global,local}.{fp16,bf16}.onnx, graphs/local.winograd.onnx
      golden/case.npz           one raw view and the reference's outputs for it, to re-check on any machine
      checkpoint.safetensors    the weights as loaded, for the PyTorch engine; may be left out
      engines/<name>/...        TensorRT engines, where some were built

A bundle is written beside its final place and renamed, so that a folder with a manifest is always whole. What is added
later is put in place first and named in the manifest last. A link inside a bundle is followed like a file: what counts
is that the content has the hash.
"""

import hashlib
import json
import os
import shlex
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glam_deploy.errors import BundleError, UsageError
from glam_deploy.manifest import faults
from glam_deploy.networks import NetworkSpec, Stage, network
from glam_deploy.precision import Precision
from glam_deploy.regular import NOT_REGULAR, open_regular, read_regular
from glam_deploy.shell import quoted

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
MANIFEST_LIMIT = 1 << 26
"""Bytes of the largest manifest that is read; without engines it has some ten thousand."""
CHECKPOINT_FILE = "checkpoint.safetensors"
WINOGRAD_FILE = "graphs/local.winograd.onnx"
"""The local graph again, in FP32 with fewer multiplications; there where the export was told to make it."""
ENGINES_FOLDER = "engines"
UNFINISHED = f"{ENGINES_FOLDER}/.unfinished"
"""Where a build of engines works; a leftover of one that was killed belongs to nobody."""

MIXTURE = "mixture"
"""Key of the manifest: stage -> precision, the fastest that the precision search found good enough."""


def graph_file(stage: Stage, precision: Precision = "fp32") -> str:
    """Where a stage's graph lies in a bundle. Fusion has no convolution, so one graph serves every precision."""
    return f"graphs/{stage}.onnx" if precision == "fp32" or stage == "fusion" else f"graphs/{stage}.{precision}.onnx"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle on disk whose manifest has been read and understood."""

    folder: Path
    manifest: Mapping[str, Any]
    id: str
    """SHA-256 of the manifest, which names the hash of all else: two bundles with one id are the same bundle."""

    @property
    def network(self) -> NetworkSpec:
        """The network whose weights the bundle holds."""
        facts = self.manifest["network"]
        return network(facts["name"], facts["aggregation"])

    @property
    def patches(self) -> int:
        """How many patches an image gets where nobody says otherwise."""
        return int(self.manifest["network"]["patches"])

    @property
    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """Relative path -> {"sha256", "bytes"} of every file but the manifest."""
        files: Mapping[str, Mapping[str, Any]] = self.manifest["files"]
        return files

    @property
    def engines(self) -> Sequence[Mapping[str, Any]]:
        """What the manifest says of each set of TensorRT engines; see `engines.tensorrt.identity`."""
        entries: Sequence[Mapping[str, Any]] = self.manifest.get("engines", ())
        return entries

    @property
    def gates(self) -> Sequence[Mapping[str, Any]]:
        """Verdicts on engines, the newest last; see `runtime.admission`."""
        return tuple(self.manifest.get("gates", ()))

    def path(self, name: str) -> Path:
        """Where a file lies that the manifest names; BundleError where it names none such."""
        if name not in self.files:
            raise BundleError(
                f"{self.folder}: the manifest names no {name}; it has {', '.join(sorted(self.files))}. "
                f"Export the checkpoint again."
            )
        return self.folder / name

    def read(self, name: str) -> bytes:
        """The bytes of a file, given out only if their SHA-256 is the manifest's. Raises BundleError."""
        try:
            content = read_regular(self.path(name))
        except _NOT_READABLE as error:
            raise self._missing(name, error) from error
        self._check_hash(name, hashlib.sha256(content).hexdigest())
        return content

    def check_file(self, name: str) -> None:
        """Hash one file. Raises BundleError where it is missing or changed."""
        try:
            found = _file_sha256(self.path(name))
        except _NOT_READABLE as error:
            raise self._missing(name, error) from error
        self._check_hash(name, found)

    def check_size(self, name: str) -> None:
        """Look at one file without reading it. Raises BundleError where it is missing or of another size."""
        expected = self.files[name]["bytes"]
        try:
            facts = self.path(name).stat()
        except _NOT_READABLE as error:
            raise self._missing(name, error) from error
        if not stat.S_ISREG(facts.st_mode):
            raise self._missing(name, ValueError(NOT_REGULAR))
        size = facts.st_size
        if size != expected:
            raise BundleError(
                f"{self.folder}: {name} has {size} bytes, the manifest says {expected}. {self._remedy(name)}"
            )

    def check(self) -> None:
        """Hash every file. Raises BundleError for the first that is missing or changed, or is not in the manifest.

        Drafts of a build of engines, under way or killed, are no part of the bundle: nobody reads them.
        """
        for name in self.files:
            self.check_file(name)
        if stray := sorted(_contents(self.folder, leftovers=False) - {*self.files, MANIFEST}):
            raise BundleError(
                f"{self.folder}: {', '.join(stray)} is not in the manifest. Nothing in a bundle may be unaccounted "
                f"for: remove it, or export the checkpoint again."
            )

    def _check_hash(self, name: str, found: str) -> None:
        if found != (expected := self.files[name]["sha256"]):
            raise BundleError(
                f"{self.folder}: {name} was changed: SHA-256 {found}, the manifest says {expected}. "
                f"{self._remedy(name)}"
            )

    def _missing(self, name: str, error: Exception) -> BundleError:
        reason = error.strerror if isinstance(error, OSError) else error
        return BundleError(f"{self.folder}: {name} cannot be read ({reason}). {self._remedy(name)}")

    def _remedy(self, name: str) -> str:
        again = "export the checkpoint again."
        if entry := next((entry for entry in self.engines if name in engine_files(entry)), None):
            again = f"build these engines again: {_same_again(self.folder, entry)}"
        return f"Restore the file from where the bundle came from, or {again}"


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle's manifest and check that every file is there in its size; contents are hashed as they are read.

    Engines are looked at when they are used: damaged ones are in the way of nothing else, and can be built again.
    Raises UsageError where there is no bundle and BundleError where it is damaged or newer than this release.
    """
    try:
        text = read_regular(folder / MANIFEST, MANIFEST_LIMIT)
    except OSError as error:
        raise UsageError(
            f"{folder}: no bundle there ({MANIFEST} cannot be read: {error.strerror}). Make one with "
            f"`glam-deploy export --weights ckpt.pt --out {quoted(folder)}`, or name yours with --bundle or "
            "GLAM_BUNDLE."
        ) from error
    bundle = Bundle(folder=folder, manifest=_parse(folder, text), id=hashlib.sha256(text).hexdigest())
    engines = {name for entry in bundle.engines for name in engine_files(entry)}
    for name in bundle.files:
        _require_inside(folder, name)
        if name not in engines:
            bundle.check_size(name)
    for name in engines:
        bundle.path(name)  # the manifest has its hash
    return bundle


def engine_files(entry: Mapping[str, Any]) -> Sequence[str]:
    """The files of one set of engines: an item of manifest["engines"]."""
    parts = [part["file"] for kind in ("stages", "kernels") for part in entry[kind].values()]
    reports = [stage.get("report") for stage in entry["stages"].values()]
    return [*parts, *filter(None, [*reports, entry["timing_cache"]])]


def build_command(
    folder: Path,
    precision: Precision,
    flavour: str | None = None,
    *,
    device: int | None = None,
    compute_capabilities: Iterable[str] = (),
) -> str:
    """The command that makes engines anew, to be pasted."""
    words = ["glam-deploy", "build", "--bundle", str(folder), "--engine", precision]
    words += ["--flavour", flavour] if flavour else []
    words += ["--device", str(device)] if device else []
    words += [word for capability in compute_capabilities for word in ("--compute-capability", capability)]
    return shlex.join(words)


def _same_again(folder: Path, entry: Mapping[str, Any]) -> str:
    made_for = entry["made_for"]
    targets = [] if made_for["gpu"] else made_for["compute_capabilities"]
    return build_command(folder, entry["precision"], entry["flavour"], compute_capabilities=targets)


@contextmanager
def staged_bundle(folder: Path) -> Iterator[Path]:
    """A fresh folder to fill; it becomes `folder` when the block ends well and vanishes when it does not.

    A bundle that stands at `folder` is replaced as a whole, and stays as it is where anything fails. Raises UsageError
    where files that belong to no bundle would be lost, where `folder` is the current folder or holds it, and where the
    place cannot be written to.
    """
    try:
        place = Path(os.path.realpath(folder))
        _require_free(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as room:
            staging = Path(room) / "new"
            staging.mkdir()
            yield staging
            _make_readable(staging)
            _put_in_place(staging, place, retired=Path(room) / "old")
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be written ({error.strerror or error}). Free space, or name another place with --out."
        ) from error


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `manifest.json` over all that lies in `folder`: `facts` plus schema version, files, sizes and hashes."""
    files = {name: file_entry(folder / name) for name in sorted(_contents(folder) - {MANIFEST})}
    write_json(folder / MANIFEST, {"schema_version": SCHEMA_VERSION, **facts, "files": files})


def _require_free(place: Path) -> None:
    """Nothing may stand at `place` but a bundle without additions, or an empty folder."""
    if Path.cwd().is_relative_to(place):
        raise UsageError(f"{place}: is the current folder or holds it. Name a folder of the bundle's own with --out.")
    if not place.exists():
        return
    others = sorted(_contents(place, leftovers=False) - _named_files(place)) if place.is_dir() else [place.name]
    if others:
        raise UsageError(
            f"{place}: exists and holds what belongs to no bundle ({others[0]}); nothing was written. Move it away, or "
            f"name another place with --out."
        )


def _named_files(folder: Path) -> set[str]:
    """What the manifest in `folder` accounts for, whatever its version; empty where it is no bundle's manifest."""
    try:
        manifest = json.loads(read_regular(folder / MANIFEST, MANIFEST_LIMIT))
        return {MANIFEST, *manifest["files"]} if manifest.keys() >= {"schema_version", "network"} else set()
    except (OSError, *_NO_MANIFEST):
        return set()


def _put_in_place(staging: Path, place: Path, *, retired: Path) -> None:
    """Two renames, for no single one replaces a folder with content; the old bundle comes back if the second fails."""
    try:
        if place.exists():
            place.rename(retired)
        staging.rename(place)
    finally:
        if retired.exists() and not place.exists():
            retired.rename(place)


def _make_readable(staging: Path) -> None:
    """A service under another account runs the bundle; temporary folders and some writers leave it to the owner."""
    staging.chmod(0o755)
    for path in staging.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


_NOT_READABLE = (OSError, ValueError)
"""ValueError: a name that no file system can hold."""

_NO_MANIFEST = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What JSON of another kind, or no JSON at all, raises when it is read as a manifest."""


def _parse(folder: Path, text: bytes) -> Mapping[str, Any]:
    try:
        manifest: Mapping[str, Any] = json.loads(text)
        version = manifest["schema_version"]
    except _NO_MANIFEST as error:
        raise BundleError(f"{folder / MANIFEST}: not a bundle's manifest. Export the checkpoint again.") from error
    if version != SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        remedy = "Upgrade glam-deploy" if newer else "Export the checkpoint again with this release"
        raise BundleError(
            f"{folder / MANIFEST}: schema version {version!r}, this release reads {SCHEMA_VERSION}. {remedy}."
        )
    if fault := next(faults(manifest), None):
        raise BundleError(f"{folder / MANIFEST}: {fault}. Export the checkpoint again.")
    return manifest


def _require_inside(folder: Path, name: str) -> None:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise BundleError(f"{folder}: the manifest names {name!r}, which lies outside the bundle. Do not use it.")


def write_json(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest as it stands in a bundle."""
    path.write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n", "utf-8")


def file_entry(path: Path) -> dict[str, Any]:
    """What manifest["files"] says of one file."""
    return {"sha256": _file_sha256(path), "bytes": path.stat().st_size}


def _file_sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _contents(folder: Path, *, leftovers: bool = True) -> set[str]:
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    return found if leftovers else {name for name in found if not name.startswith(f"{UNFINISHED}/")}
