"""A bundle for all nodes: its files are sent once a node, and kept there in the user's cache folder by digest."""

import fcntl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glam_deploy.bundle import Trust, digest_of, open_members, read_signature
from glam_deploy.bundle.folder import ANY, contents
from glam_deploy.engines.model_cache import default_folder
from glam_deploy.errors import BackendUnavailable, unwritable
from glam_deploy.json_records import json_sha256, to_json
from glam_deploy.regular import open_lock


@dataclass(frozen=True, kw_only=True)
class ShippedBundle:
    """A bundle or ensemble: its folder where the run was started, and its digest."""

    folder: Path
    id: str
    """As `bundle.digest_of`: every node opens this state of the bundle and no other."""
    digest: str
    """Of the id and the signatures: name of the folder in the cache."""

    def on_this_node(self, files: Mapping[str, bytes] | None) -> Path:
        """Folder of the bundle on this machine, with every hash checked.

        `files`: relative path -> content, for the cache folder; None if `folder` itself is on this machine. Raises
        BundleError, and BackendUnavailable if the cache folder cannot be written.
        """
        if files is None:
            return self.folder
        cache = default_folder() / "bundles"
        target = cache / self.digest
        try:
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open_lock(cache / f"{self.digest}.lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not target.exists():
                    _write(target, files)
        except OSError as error:
            raise BackendUnavailable(
                f"the bundle cannot be kept in {cache} of a node {unwritable(error)}, or set XDG_CACHE_HOME to another "
                "folder"
            ) from error
        for bundle in open_members(target, Trust(digest=self.id)):
            bundle.check()
        return target


def shipped(folder: Path, trust: Trust = ANY) -> ShippedBundle:
    """The bundle or ensemble in `folder`, which must prove what `trust` demands. Raises as `open_members`."""
    bundles = open_members(folder, trust)
    signatures = [read_signature(place) for place in dict.fromkeys([folder, *(one.folder for one in bundles)])]
    content = [[one.id for one in bundles], [one and to_json(one) for one in signatures]]
    return ShippedBundle(folder=folder.absolute(), id=digest_of(bundles), digest=json_sha256(content)[:32])


def files_of(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of every file of a bundle or ensemble, without those of unfinished builds."""
    names = sorted(contents(folder, leftovers=False))
    return {name: (folder / name).read_bytes() for name in names}


def _write(target: Path, files: Mapping[str, bytes]) -> None:
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=target.parent) as drafts:
        draft = Path(drafts, "bundle")
        for name, content in files.items():
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        draft.rename(target)
