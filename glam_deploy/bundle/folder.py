"""A bundle: a folder with `manifest.json` and all files that the manifest lists, each verified by its SHA-256.

    bundle/
      manifest.json             schema, network, checkpoint, graphs, files and hashes, versions, parity table
      signature.json            signature of the manifest, if the bundle was signed; see `bundle.signature`
      graphs/{global,local,fusion}.onnx, graphs/{global,local}.{fp16,bf16}.onnx, graphs/local.winograd.onnx
      graphs/fusion.npz         the weights of the fusion graph as arrays, for the CUDA kernels
      golden/case.npz           one raw view and the reference's outputs for it, for `glam-deploy verify`
      checkpoint.safetensors    the weights as loaded, for the PyTorch engine; optional
      engines/<name>/...        TensorRT engines, if some were built

A bundle is written to a temporary folder beside its final path and then renamed, so that a folder with a manifest is
always complete. Files that are added later are put in place before the manifest lists them. Symbolic links inside a
bundle are followed: only the hash of the content is checked.

An ensemble is a folder with `ensemble.json` and one bundle for each of its models, in the folders `1`, `2`, ...
"""

import hashlib
import shlex
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glam_deploy.bundle.manifest import (
    ENSEMBLE,
    MANIFEST,
    MANIFEST_LIMIT,
    WHOLE_ENSEMBLE,
    EngineEntry,
    Ensemble,
    FileEntry,
    GateEntry,
    Manifest,
    read_ensemble,
    read_manifest,
)
from glam_deploy.bundle.signature import SIGNATURE, Trust, require_signed
from glam_deploy.errors import BundleError, Remedy, UsageError
from glam_deploy.installation import quoted
from glam_deploy.json_records import json_sha256
from glam_deploy.networks import NetworkSpec, Stage, network
from glam_deploy.precision import Precision
from glam_deploy.regular import NOT_REGULAR, open_regular, read_regular

CHECKPOINT_FILE = "checkpoint.safetensors"
WINOGRAD_FILE = "graphs/local.winograd.onnx"
"""FP32 local graph with Winograd convolutions, which need fewer multiplications; present after `export --winograd`."""
FUSION_WEIGHTS_FILE = "graphs/fusion.npz"
"""Weights of the fusion stage as arrays, for the CUDA kernels; bundles of earlier releases do not have it."""
ENGINES_FOLDER = "engines"
UNFINISHED = f"{ENGINES_FOLDER}/.unfinished"
"""Temporary folder of engine builds; files that a killed build leaves there are not part of the bundle."""


def graph_file(stage: Stage, precision: Precision = "fp32") -> str:
    """Relative path of a stage's graph in a bundle. Fusion has no convolution: one graph is used for all precisions."""
    return f"graphs/{stage}.onnx" if precision == "fp32" or stage == "fusion" else f"graphs/{stage}.{precision}.onnx"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle on disk, with its validated manifest."""

    folder: Path
    manifest: Manifest
    id: str
    """SHA-256 of the manifest. The manifest has the hashes of all files: bundles with equal ids have equal content."""

    @property
    def network(self) -> NetworkSpec:
        """The network whose weights the bundle holds."""
        return network(self.manifest.network.name, self.manifest.network.aggregation)

    @property
    def patches(self) -> int:
        """Default number of patches per image."""
        return self.manifest.network.patches

    @property
    def files(self) -> Mapping[str, FileEntry]:
        """Relative path -> size and hash of every file but the manifest."""
        return self.manifest.files

    @property
    def engines(self) -> tuple[EngineEntry, ...]:
        """All sets of TensorRT engines; see `gpu.engines.tensorrt.identity`."""
        return self.manifest.engines

    @property
    def gates(self) -> tuple[GateEntry, ...]:
        """Gate verdicts on engines, oldest first; see `engines.admission`."""
        return self.manifest.gates

    def manifest_text(self) -> bytes:
        """The bytes of the manifest. Raises BundleError if they are not those that were read when it was opened."""
        try:
            text = read_regular(self.folder / MANIFEST, MANIFEST_LIMIT)
        except OSError as error:
            raise self._missing(MANIFEST, error) from error
        if hashlib.sha256(text).hexdigest() != self.id:
            raise BundleError(f"{self.folder}: {MANIFEST} was replaced while it was used. Run this again.")
        return text

    def path(self, name: str) -> Path:
        """Path of a file of the bundle. Raises BundleError if the manifest does not list it."""
        if name not in self.files:
            raise BundleError(
                f"{self.folder}: the manifest does not list {name}; it lists {', '.join(sorted(self.files))}. "
                f"Export the checkpoint again."
            )
        return self.folder / name

    def read(self, name: str) -> bytes:
        """Content of a file. Raises BundleError if it cannot be read or its SHA-256 is not that of the manifest."""
        try:
            content = read_regular(self.path(name), self.files[name].bytes)
        except _NOT_READABLE as error:
            raise self._missing(name, error) from error
        self._check_hash(name, hashlib.sha256(content).hexdigest())
        return content

    def check_file(self, name: str) -> None:
        """Verify the hash of one file. Raises BundleError if the file is missing or changed."""
        try:
            found = file_sha256(self.path(name))
        except _NOT_READABLE as error:
            raise self._missing(name, error) from error
        self._check_hash(name, found)

    def check_size(self, name: str) -> None:
        """Check the size of one file without reading it. Raises BundleError if it is missing or of another size."""
        expected = self.files[name].bytes
        try:
            status = self.path(name).stat()
        except _NOT_READABLE as error:
            raise self._missing(name, error) from error
        if not stat.S_ISREG(status.st_mode):
            raise self._missing(name, ValueError(NOT_REGULAR))
        if (size := status.st_size) != expected:
            raise BundleError(
                f"{self.folder}: {name} has {size} bytes, the manifest says {expected}. {self._remedy(name)}"
            )

    def check(self) -> None:
        """Verify the hash of every file. Raises BundleError for a missing, changed or unlisted file.

        Temporary files of engine builds, running or killed, are ignored: they are not part of the bundle.
        """
        for name in self.files:
            self.check_file(name)
        if stray := sorted(contents(self.folder, leftovers=False) - {*self.files, MANIFEST, SIGNATURE}):
            raise BundleError(
                f"{self.folder}: {', '.join(stray)} is not in the manifest, which must list every file of the bundle. "
                f"Remove it if it is not yours (file managers leave Thumbs.db or .DS_Store), or copy the bundle again."
            )

    def _check_hash(self, name: str, found: str) -> None:
        if found != (expected := self.files[name].sha256):
            raise BundleError(
                f"{self.folder}: {name} was changed: SHA-256 {found}, the manifest says {expected}. "
                f"{self._remedy(name)}"
            )

    def _missing(self, name: str, error: Exception) -> BundleError:
        reason = error.strerror if isinstance(error, OSError) else error
        denied = isinstance(error, PermissionError)
        remedy = "Give this user the right to read it and its folder." if denied else self._remedy(name)
        return BundleError(f"{self.folder}: {name} cannot be read ({reason}). {remedy}")

    def _remedy(self, name: str) -> str:
        again = "export the checkpoint again."
        if entry := next((entry for entry in self.engines if name in entry.files), None):
            again = f"build these engines again: {_rebuild_command(self.folder, entry)}"
        return f"Copy the file again from the bundle's source, or {again}"


ANY = Trust()
"""Demands nothing of a bundle."""


def open_bundle(folder: Path, trust: Trust = ANY) -> Bundle:
    """Read the manifest of a bundle and check that all files exist with their sizes; hashes are checked when read.

    TensorRT engine files are checked only when they are used: a damaged one can be built again and does not affect the
    other engines. The signature and the digest that `trust` demands are checked before the manifest is parsed.

    Raises UsageError if there is no bundle, BundleError if it is damaged, newer than this release, or not what `trust`
    demands.
    """
    try:
        text = read_regular(folder / MANIFEST, MANIFEST_LIMIT)
    except OSError as error:
        if is_ensemble(folder):
            first = _ensemble(folder).members[0].folder
            raise UsageError(
                f"{folder}: is an ensemble of several models, and this is for one bundle: give one of its folders, "
                f"such as {quoted(folder / first)}."
            ) from error
        raise UsageError(
            f"{folder}: is not a bundle ({MANIFEST} cannot be read: {error.strerror}). Create one with "
            f"`glam-deploy export --weights ckpt.pt --out {quoted(folder)}`, or use another bundle",
            Remedy.OTHER_BUNDLE,
        ) from error
    require_signed(folder, MANIFEST, text, trust)
    _require_digest(folder, hashlib.sha256(text).hexdigest(), trust)
    bundle = Bundle(folder=folder, manifest=read_manifest(text, folder / MANIFEST), id=hashlib.sha256(text).hexdigest())
    engines = {name for entry in bundle.engines for name in entry.files}
    for name in bundle.files:
        _require_inside(folder, name)
        if name not in engines:
            bundle.check_size(name)
    for name in engines:
        bundle.path(name)  # raises if the manifest does not list the file
    return bundle


def digest_of(bundles: Sequence[Bundle]) -> str:
    """The id of a bundle, or of an ensemble of several: the SHA-256 of the ids of its bundles in their order."""
    return bundles[0].id if len(bundles) == 1 else json_sha256([bundle.id for bundle in bundles])


def _require_digest(folder: Path, found: str, trust: Trust) -> None:
    if trust.digest not in (None, found):
        raise BundleError(
            f"{folder}: has the digest {found}, expected {trust.digest}: it is another bundle, or an earlier or later "
            f"state of it, which an attacker could have put in its place. Copy the expected one from its source. If "
            f"you put this one there yourself, expect its digest instead."
        )


def open_members(folder: Path, trust: Trust = ANY) -> tuple[Bundle, ...]:
    """The bundles of an ensemble in their order, or the bundle itself if the folder holds no ensemble.

    Raises as `open_bundle`; BundleError if a member is missing, is of another network or default number of patches than
    the first, or was not made from the checkpoint that the ensemble names.
    """
    if not is_ensemble(folder):
        return (open_bundle(folder, trust),)
    bundles, ensemble = [], _ensemble(folder, trust)
    names = {member.folder for member in ensemble.members}
    if others := sorted(path.name for path in folder.iterdir() if path.name.isdecimal() and path.name not in names):
        raise BundleError(
            f"{folder}: the folder {others[0]} is not in {ENSEMBLE}, which lists {', '.join(sorted(names))}. "
            f"{WHOLE_ENSEMBLE}"
        )
    for member in ensemble.members:
        try:
            bundles.append(open_bundle(folder / member.folder, Trust(keys=trust.keys)))
        except UsageError as error:
            raise BundleError(
                f"{folder}: the bundle {member.folder} of the ensemble cannot be read. {WHOLE_ENSEMBLE}"
            ) from error
        first, bundle = bundles[0], bundles[-1]
        if (found := bundle.manifest.checkpoint.sha256) != member.checkpoint_sha256:
            raise BundleError(
                f"{folder}: the bundle {member.folder} was made from a checkpoint with SHA-256 {found}, the ensemble "
                f"names {member.checkpoint_sha256}. {WHOLE_ENSEMBLE}"
            )
        if (bundle.network, bundle.patches) != (first.network, first.patches):
            raise BundleError(
                f"{folder}: the bundle {member.folder} is {bundle.network.title} with {bundle.patches} patches, the "
                f"first is {first.network.title} with {first.patches}. {WHOLE_ENSEMBLE}"
            )
    _require_digest(folder, digest_of(bundles), trust)
    return tuple(bundles)


def is_ensemble(folder: Path) -> bool:
    """Whether a folder has `ensemble.json` and no manifest; False if it cannot be read."""
    try:
        return (folder / ENSEMBLE).is_file() and not (folder / MANIFEST).exists()
    except OSError:
        return False


def _ensemble(folder: Path, trust: Trust = ANY) -> Ensemble:
    try:
        text = read_regular(folder / ENSEMBLE, MANIFEST_LIMIT)
    except OSError as error:
        raise BundleError(f"{folder}: {ENSEMBLE} cannot be read ({error.strerror}). {WHOLE_ENSEMBLE}") from error
    require_signed(folder, ENSEMBLE, text, trust)
    return read_ensemble(text, folder / ENSEMBLE)


def build_command(
    folder: Path,
    precision: Precision,
    flavour: str | None = None,
    *,
    device: int | None = None,
    compute_capabilities: Iterable[str] = (),
) -> str:
    """Shell command that builds TensorRT engines, quoted for the shell."""
    command = ["glam-deploy", "build", "--bundle", str(folder), "--engine", precision]
    command += ["--flavour", flavour] if flavour else []
    command += ["--device", str(device)] if device else []
    command += [word for capability in compute_capabilities for word in ("--compute-capability", capability)]
    return shlex.join(command)


def _rebuild_command(folder: Path, entry: EngineEntry) -> str:
    targets = () if entry.made_for.gpu else entry.made_for.compute_capabilities
    return build_command(folder, entry.precision, entry.flavour, compute_capabilities=targets)


_NOT_READABLE = (OSError, ValueError)
"""Errors of reading a file; ValueError is raised for a name that is invalid in every file system."""


def _require_inside(folder: Path, name: str) -> None:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise BundleError(f"{folder}: the manifest lists {name!r}, which is outside the bundle. Do not use it.")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits. Raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contents(folder: Path, *, leftovers: bool = True) -> set[str]:
    """Relative paths of all files in a folder and its subfolders; `leftovers` includes those of unfinished builds."""
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    return found if leftovers else {name for name in found if not name.startswith(f"{UNFINISHED}/")}


def winograd_files(bundle: Bundle) -> Mapping[Stage, str]:
    """Stage -> FP32 graph file, for the local stage the Winograd graph. Raises BundleError if the bundle lacks it."""
    if "local" not in bundle.network.stages:
        raise BundleError(
            f"{bundle.folder}: its network, {bundle.network.title}, has no local stage, which Winograd engines are "
            f"for. Choose an engine without Winograd convolutions: onnx or openvino."
        )
    if WINOGRAD_FILE not in bundle.files:
        raise BundleError(
            f"{bundle.folder}: has no {WINOGRAD_FILE}. Export the checkpoint again with --winograd, or choose an "
            f"engine without Winograd convolutions: onnx or openvino."
        )
    return {stage: graph_file(stage) for stage in bundle.network.stages} | {"local": WINOGRAD_FILE}
