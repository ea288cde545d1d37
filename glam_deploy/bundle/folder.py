"""A bundle: a folder with `manifest.json` and every file that it names, each checked by its SHA-256.

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
import shlex
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from glam_deploy.bundle.manifest import EngineEntry, FileEntry, GateEntry, Manifest
from glam_deploy.bundle.schema import MANIFEST, MANIFEST_LIMIT, read_manifest
from glam_deploy.errors import BundleError, UsageError
from glam_deploy.installation import quoted
from glam_deploy.networks import STAGES, NetworkSpec, Stage, network
from glam_deploy.precision import Precision
from glam_deploy.regular import NOT_REGULAR, open_regular, read_regular

CHECKPOINT_FILE = "checkpoint.safetensors"
WINOGRAD_FILE = "graphs/local.winograd.onnx"
"""The local graph again, in FP32 with fewer multiplications; there where the export was told to make it."""
ENGINES_FOLDER = "engines"
UNFINISHED = f"{ENGINES_FOLDER}/.unfinished"
"""Where a build of engines works; a leftover of one that was killed belongs to no bundle."""


def graph_file(stage: Stage, precision: Precision = "fp32") -> str:
    """Where a stage's graph lies in a bundle. Fusion has no convolution, so one graph serves every precision."""
    return f"graphs/{stage}.onnx" if precision == "fp32" or stage == "fusion" else f"graphs/{stage}.{precision}.onnx"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle on disk whose manifest has been read and understood."""

    folder: Path
    manifest: Manifest
    id: str
    """SHA-256 of the manifest, which names the hash of all else: two bundles with one id are the same bundle."""

    @property
    def network(self) -> NetworkSpec:
        """The network whose weights the bundle holds."""
        return network(self.manifest.network.name, self.manifest.network.aggregation)

    @property
    def patches(self) -> int:
        """How many patches an image gets where no option says otherwise."""
        return self.manifest.network.patches

    @property
    def files(self) -> Mapping[str, FileEntry]:
        """Relative path -> size and hash of every file but the manifest."""
        return self.manifest.files

    @property
    def engines(self) -> tuple[EngineEntry, ...]:
        """Each set of TensorRT engines; see `engines.tensorrt.identity`."""
        return self.manifest.engines

    @property
    def gates(self) -> tuple[GateEntry, ...]:
        """Verdicts on engines, the newest last; see `runtime.admission`."""
        return self.manifest.gates

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
            found = file_sha256(self.path(name))
        except _NOT_READABLE as error:
            raise self._missing(name, error) from error
        self._check_hash(name, found)

    def check_size(self, name: str) -> None:
        """Look at one file without reading it. Raises BundleError where it is missing or of another size."""
        expected = self.files[name].bytes
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
        if stray := sorted(contents(self.folder, leftovers=False) - {*self.files, MANIFEST}):
            raise BundleError(
                f"{self.folder}: {', '.join(stray)} is not in the manifest. Nothing in a bundle may be unaccounted "
                f"for: remove it, or export the checkpoint again."
            )

    def _check_hash(self, name: str, found: str) -> None:
        if found != (expected := self.files[name].sha256):
            raise BundleError(
                f"{self.folder}: {name} was changed: SHA-256 {found}, the manifest says {expected}. "
                f"{self._remedy(name)}"
            )

    def _missing(self, name: str, error: Exception) -> BundleError:
        reason = error.strerror if isinstance(error, OSError) else error
        return BundleError(f"{self.folder}: {name} cannot be read ({reason}). {self._remedy(name)}")

    def _remedy(self, name: str) -> str:
        again = "export the checkpoint again."
        if entry := next((entry for entry in self.engines if name in entry.files), None):
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
    bundle = Bundle(folder=folder, manifest=read_manifest(text, folder / MANIFEST), id=hashlib.sha256(text).hexdigest())
    engines = {name for entry in bundle.engines for name in entry.files}
    for name in bundle.files:
        _require_inside(folder, name)
        if name not in engines:
            bundle.check_size(name)
    for name in engines:
        bundle.path(name)  # the manifest has its hash
    return bundle


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


def _same_again(folder: Path, entry: EngineEntry) -> str:
    targets = () if entry.made_for.gpu else entry.made_for.compute_capabilities
    return build_command(folder, entry.precision, entry.flavour, compute_capabilities=targets)


_NOT_READABLE = (OSError, ValueError)
"""ValueError: a name that no file system can hold."""


def _require_inside(folder: Path, name: str) -> None:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise BundleError(f"{folder}: the manifest names {name!r}, which lies outside the bundle. Do not use it.")


def file_sha256(path: Path) -> str:
    """In hexadecimal digits. Raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contents(folder: Path, *, leftovers: bool = True) -> set[str]:
    """Relative paths of all files below a folder; without `leftovers` those of unfinished builds are left out."""
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    return found if leftovers else {name for name in found if not name.startswith(f"{UNFINISHED}/")}


def winograd_files(bundle: Bundle) -> Mapping[Stage, str]:
    """Stage -> file of the bundle, all FP32. Raises BundleError where the export did not make the form."""
    if WINOGRAD_FILE not in bundle.files:
        raise BundleError(
            f"{bundle.folder}: has no {WINOGRAD_FILE}. Export the checkpoint again with --winograd, or choose an "
            f"engine without Winograd's form: onnx or openvino."
        )
    return {stage: graph_file(stage) for stage in STAGES} | {"local": WINOGRAD_FILE}
