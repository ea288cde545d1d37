"""Restores a copy into an empty data folder. Every byte is checked against the manifest before anything is used."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.backup.copying import CHUNK, digest_of
from glam_deploy.appliance.backup.manifest import CopiedFile, CopyFolder, Manifest
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder, part_file
from glam_deploy.appliance.state import deliveries
from glam_deploy.appliance.state.database import VERSION, immutable_address, open_database
from glam_deploy.appliance.state.soundness import damage, foreign_content
from glam_deploy.durable import move_into_place, sync
from glam_deploy.errors import UsageError
from glam_deploy.regular import open_regular


def restore_data(copy: CopyFolder, config: Config, *, take_over: bool = False) -> Manifest:
    """Restore `copy` into the data folder of `config`, which must be absent or empty; what was restored.

    Result sets that wait for a target with a query or storage commitment are asked for there before they are sent,
    because they may have been delivered after the copy was made. `take_over`: from the node that keeps this copy
    current; that node then delivers nothing any more. It is marked once the copy and the data folder have passed all
    checks; if this fails nevertheless, the mark is withdrawn.

    Raises UsageError if the folder is not empty, if the copy is damaged, of a later release, or kept current by another
    node and `take_over` is false; OSError. Nothing of a copy that is damaged stays in the data folder.
    """
    data = DataFolder(root=config.data)
    _require_empty(data)
    manifest = _usable(copy, take_over=take_over)
    _check(copy, manifest)
    data.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_room(data, manifest)
    data.restoring.mkdir(mode=0o700)
    is_marked = False
    try:
        if take_over:
            is_marked = copy.mark_taken_over()
            manifest = _usable(copy, take_over=True)  # the other node may have finished a copy in between
        _fill(copy, manifest, data)
        _prepare_state(copy, data, config)
    except BaseException:
        shutil.rmtree(data.restoring, ignore_errors=True)
        if is_marked:
            copy.taken_over.unlink()
        raise
    _move_up(data)
    open_audit(data).write("restored", made_at=manifest.made_at, files=len(manifest.files), take_over=take_over)
    return manifest


def _require_empty(data: DataFolder) -> None:
    data.require_owner()
    if data.root.exists() and (found := next(data.root.iterdir(), None)):
        raise UsageError(
            f"the data folder {data.root} holds {found.name!r}, expected an empty or no folder: move its content "
            "away, or set another `data` in the configuration"
        )


def _usable(copy: CopyFolder, *, take_over: bool) -> Manifest:
    manifest = copy.read_manifest()
    if manifest.state_version > VERSION:
        raise UsageError(
            f"the backup {copy.root} was made by glam-deploy {manifest.release}, whose state has version "
            f"{manifest.state_version}, expected up to {VERSION}: restore it with that release or a later one"
        )
    if manifest.standby and not take_over:
        raise UsageError(
            f"{copy.root} is kept current by another node, which may be running: stop that node, and add --take-over, "
            "after which it delivers nothing any more"
        )
    return manifest


def _check(copy: CopyFolder, manifest: Manifest) -> None:
    """Raises UsageError if a file of the copy is not as it was written, or if its state is not sound."""
    for path, file in _sources(copy, manifest):
        try:
            size = path.stat().st_size
            found = digest_of(path, file.bytes + (not file.grows))  # one byte more tells that it is longer
        except OSError as error:
            raise UsageError(_damage(copy, f"{file.path} cannot be read ({error.strerror})")) from error
        _require_same(copy, file, found, size)
    address = immutable_address(copy.root / manifest.state.path)
    with closing(sqlite3.connect(address, uri=True)) as connection:
        _require_sound(copy, connection)


def _require_same(copy: CopyFolder, file: CopiedFile, found: CopiedFile, size: int) -> None:
    if (found.bytes, found.sha256) != (file.bytes, file.sha256):
        expected = f"expected {file.bytes} bytes with the SHA-256 of its manifest"
        raise UsageError(_damage(copy, f"{file.path} has {size} bytes and SHA-256 {found.sha256[:16]}..., {expected}"))


def _damage(copy: CopyFolder, what: str) -> str:
    return f"the backup {copy.root} is damaged, {what}: use another backup"


def _sources(copy: CopyFolder, manifest: Manifest) -> Iterator[tuple[Path, CopiedFile]]:
    yield copy.root / manifest.state.path, manifest.state
    yield from ((copy.files / file.path, file) for file in manifest.files)


def _require_sound(copy: CopyFolder, connection: sqlite3.Connection) -> None:
    if found := damage(connection):
        raise UsageError(f"the backup {copy.root} is damaged, its state is not sound ({found}): use another backup")


def _require_room(data: DataFolder, manifest: Manifest) -> None:
    needed = manifest.bytes + manifest.state.bytes  # a state of an earlier release is copied before its conversion
    if (free := data.free_bytes()) < needed:
        raise UsageError(
            f"the disk of {data.root} has {free} bytes free, expected {needed} for the backup and a second copy of its "
            "state: free space, or set `data` to a folder on a larger disk"
        )


def _fill(copy: CopyFolder, manifest: Manifest, data: DataFolder) -> None:
    """Copy all files below `data.restoring`, durably."""
    for path, file in _sources(copy, manifest):
        name = data.database.name if file is manifest.state else file.path
        target = data.restoring / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open_regular(path) as source, part_file(target.parent) as (part, out):
            left = file.bytes
            while left and (chunk := source.read(min(CHUNK, left))):
                out.write(chunk)
                left -= len(chunk)
            out.flush()
            found = digest_of(part)
            _require_same(copy, file, found, found.bytes)
            sync(part)
            move_into_place(part, target)


def _prepare_state(copy: CopyFolder, data: DataFolder, config: Config) -> None:
    """Bring the restored state to this release, and let pending deliveries ask first."""
    path = data.restoring / data.database.name
    targets = [target.name for target in config.targets if target.query or target.commitment]
    with closing(open_database(path)) as connection:
        _require_sound(copy, connection)
        if foreign := foreign_content(connection):
            raise UsageError(f"the backup {copy.root} cannot be used, {foreign}: use another backup")
        deliveries.ask_before_sending(connection, targets)


def _move_up(data: DataFolder) -> None:
    """Move everything to its place, the state last: without it the folder is not used."""
    for path in sorted(data.restoring.iterdir(), key=lambda path: path.name.startswith(data.database.name)):
        path.replace(data.root / path.name)
    sync(data.root)
    data.restoring.rmdir()
    sync(data.root)
