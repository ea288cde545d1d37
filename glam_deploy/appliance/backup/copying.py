"""Copies a data folder while the appliance runs: first the state as of one moment, then the files that it names.

Files of the data folder are complete before a row names them and do not change afterwards, so the copy is consistent.
A file that is gone by then was removed by retention, or another version has taken its place; a second snapshot tells
which. A copy into an earlier one takes over its unchanged files, unless they are damaged there. Whenever it is
interrupted, the earlier copy is valid.
"""

import hashlib
import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from glam_deploy import __version__
from glam_deploy.appliance.audit import known_key, open_audit
from glam_deploy.appliance.backup.manifest import FORMAT, CopiedFile, CopyFolder, Manifest, utc_now, write_durably
from glam_deploy.appliance.data import DataFolder, is_part, part_file, read_json
from glam_deploy.appliance.device import known_device_uid
from glam_deploy.appliance.state import database
from glam_deploy.appliance.state.soundness import unusable
from glam_deploy.durable import move_into_place
from glam_deploy.errors import UsageError
from glam_deploy.installation import page
from glam_deploy.json_records import to_json
from glam_deploy.regular import open_lock, open_regular, try_lock

CHUNK = 1 << 20
IDENTITY = ("audit.key", "device.uid")
"""Files at the top of the data folder besides the state."""


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What a copy came to."""

    manifest: Manifest
    new_bytes: int
    """Bytes that were not in the earlier copy."""
    repaired: tuple[str, ...]
    """Paths of the files that were missing or damaged in the earlier copy, and were copied again."""


def copy_data(data: DataFolder, copy: CopyFolder, *, standby: bool = False, verify: bool = False) -> Copied:
    """Copy the data folder `data`, in use or not, into a new or an earlier `copy` of it.

    An unchanged file is copied again if it is not there with its size; with `verify` also if its SHA-256 differs, for
    which every byte of the earlier copy is read. `standby`: kept current for a second node, as it is from then on.

    Raises UsageError if that is no place for it, if another node has taken over, or if the state or the files of
    IDENTITY are damaged, which would replace sound ones in the copy; OSError and sqlite3.Error.
    """
    known_key(data)
    known_device_uid(data)
    _require_place(data, copy)
    copy.make()
    with _locked(copy):
        earlier = _earlier(data, copy)
        known = {file.path: file for file in earlier.files} if earlier else {}
        damaged = {name for name, file in known.items() if not _is_whole(copy.files / name, file, verify=verify)}
        usable = {name: file for name, file in known.items() if name not in damaged}
        absent = set(earlier.absent) if earlier else set[str]()
        while True:
            made_at, state = utc_now(), _copy_state(data, copy)
            files, missing = _copy_files(data, copy, _named(data, copy.root / state.path), usable)
            if missing <= absent:
                break
            absent |= missing
            usable |= files
        manifest = Manifest(
            format=FORMAT, release=__version__, state_version=database.VERSION, owner=_owner(data), made_at=made_at,
            standby=standby or (earlier is not None and earlier.standby), state=state, files=tuple(files.values()),
            absent=tuple(sorted(missing)),
        )  # fmt: skip
        _require_not_taken_over(data, copy)
        write_durably(copy.manifest, to_json(manifest))
        _remove_others(copy, manifest)
    before = {file.sha256 for file in earlier.files} if earlier else set()
    new = sum(file.bytes for file in files.values() if file.sha256 not in before)
    repaired = tuple(sorted(name for name in damaged if files.get(name) == known[name]))
    return Copied(manifest=manifest, new_bytes=new, repaired=repaired)


def _require_place(data: DataFolder, copy: CopyFolder) -> None:
    root, other = copy.root.resolve(), data.root.resolve()
    if root.is_relative_to(other) or other.is_relative_to(root):
        raise UsageError(
            f"the backup {copy.root} and the data folder {data.root} lie in each other, expected two folders apart: "
            "name another folder, on another disk"
        )
    if copy.root.is_dir() and not copy.id.exists() and not copy.is_empty():
        raise UsageError(
            f"{copy.root} holds other files, expected an empty folder or an earlier backup: name another folder"
        )


def _earlier(data: DataFolder, copy: CopyFolder) -> Manifest | None:
    """The manifest of an earlier copy of the same data folder, which nobody has taken over."""
    _require_not_taken_over(data, copy)
    if not copy.manifest.exists():
        return None
    manifest = copy.read_manifest()
    if manifest.owner != _owner(data):
        raise UsageError(f"{copy.root} is a backup of another data folder than {data.root}: name another folder")
    return manifest


def _require_not_taken_over(data: DataFolder, copy: CopyFolder) -> None:
    taken = copy.taken_over_by()
    if taken is None:
        return
    outdated = f"this data folder is out of date; {page('operations.md')} tells how to make this machine the standby"
    made_this_copy = data.standby_id.exists() and read_json(data.standby_id) == copy.read_id()
    if not made_this_copy:  # it may be the one that was restored from it
        outdated = f"on that node, name another folder for its backups; on any other one, {outdated}"
    raise UsageError(f"{taken.host} has taken over from {copy.root} at {taken.at}: {outdated}")


def _owner(data: DataFolder) -> str:
    return open_audit(data).pseudonym("backup")


@contextmanager
def _locked(copy: CopyFolder) -> Iterator[None]:
    with open_lock(copy.lock) as file:
        if not try_lock(file):
            raise UsageError(f"another process copies into {copy.root}: wait for it, or name another folder")
        yield


# the state


def _copy_state(data: DataFolder, copy: CopyFolder) -> CopiedFile:
    """A consistent copy of `state.db`, named by its digest: the earlier one stays until the manifest is replaced.

    Raises UsageError if it could not be restored: it would replace one that can.
    """
    with part_file(copy.root) as (part, _):
        database.copy_database(data.database, part)
        with _state(part) as connection:
            if fault := unusable(connection):
                raise UsageError(
                    f"{data.database} is damaged ({fault}): nothing was copied, so that an earlier backup in "
                    f"{copy.root} stays as it is. Stop the appliance, and restore a backup ({page('operations.md')})"
                )
        found = digest_of(part)
        found = replace(found, path=f"state-{found.sha256[:16]}.db")
        move_into_place(part, copy.root / found.path)
    return found


def _state(path: Path) -> closing[sqlite3.Connection]:
    """A read-only connection to the state of a copy, which no process changes."""
    return closing(sqlite3.connect(database.immutable_address(path), uri=True))


def _named(data: DataFolder, state: Path) -> Iterator[Path]:
    """Every file and folder of the data folder that belongs to the state in the file `state`."""
    yield from (data.root / name for name in IDENTITY if (data.root / name).exists())
    yield from sorted(data.audit.glob("*.jsonl"))
    with _state(state) as connection:
        for query in (
            "SELECT path FROM instance",
            "SELECT path FROM quarantine",
            "SELECT DISTINCT folder FROM job_view WHERE folder NOT NULL",
        ):
            yield from (data.root / path for (path,) in connection.execute(query))
        yield from (data.job_results(key) for (key,) in connection.execute("SELECT key FROM job WHERE state = 'done'"))


# files


def _copy_files(
    data: DataFolder, copy: CopyFolder, named: Iterable[Path], known: Mapping[str, CopiedFile]
) -> tuple[dict[str, CopiedFile], set[str]]:
    """Copy files, and the files of folders; what was copied, by path, and the paths that are not there."""
    copied: dict[str, CopiedFile] = {}
    missing: set[str] = set()
    for path in named:
        try:
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                name = data.relative(file)
                copied[name] = _copy_file(file, name, copy.files / name, known.get(name))
        except FileNotFoundError:
            missing.add(data.relative(path))
    return copied, missing


def _is_whole(path: Path, file: CopiedFile, *, verify: bool) -> bool:
    """Whether a file of the copy can be read and has its size, and with `verify` also its SHA-256."""
    try:
        facts = path.lstat()
        has_size = facts.st_size == file.bytes or (file.grows and facts.st_size > file.bytes)
        is_file = stat.S_ISREG(facts.st_mode)
        return is_file and has_size and (not verify or digest_of(path, file.bytes).sha256 == file.sha256)
    except OSError:
        return False


def _copy_file(source: Path, name: str, target: Path, known: CopiedFile | None) -> CopiedFile:
    """Copy a file, unless the earlier copy has it. Raises FileNotFoundError if there is no such file.

    A link in the data folder is not followed: it would bring a file of another place into the copy.
    """
    facts = source.lstat()
    if not stat.S_ISREG(facts.st_mode):
        raise UsageError(
            f"{source} cannot be copied (it is a link, pipe, socket or device, expected a file): remove it, and put "
            "the file of an earlier backup in its place"
        )
    if known and (known.bytes, known.changed_ns) == (facts.st_size, facts.st_mtime_ns):
        return known
    with open_regular(source) as original:
        _require_real(target.parent, target.parents[len(PurePosixPath(name).parts) - 1])
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with part_file(target.parent) as (part, file):
            digest, count = hashlib.sha256(), 0
            while chunk := original.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                count += len(chunk)
            file.flush()
            os.fsync(file.fileno())
            move_into_place(part, target)
    return CopiedFile(path=name, bytes=count, sha256=digest.hexdigest(), changed_ns=facts.st_mtime_ns)


def _require_real(folder: Path, top: Path) -> None:
    """Raises UsageError if a folder from `top` down to `folder` is a link, which leads out of the copy."""
    for each in (folder, *folder.parents):
        if each.is_symlink():
            raise UsageError(f"{each} is a link, expected a folder of the backup: remove it")
        if each == top:
            return


def digest_of(path: Path, length: int | None = None) -> CopiedFile:
    """Size and SHA-256 of a regular file, or of its first `length` bytes. Raises OSError."""
    digest, count = hashlib.sha256(), 0
    with open_regular(path) as file:
        while chunk := file.read(CHUNK if length is None else min(CHUNK, length - count)):
            digest.update(chunk)
            count += len(chunk)
    return CopiedFile(path=path.name, bytes=count, sha256=digest.hexdigest())


def _remove_others(copy: CopyFolder, manifest: Manifest) -> None:
    """Remove files that the manifest does not name, and empty folders."""
    keep = {copy.files / file.path for file in manifest.files}
    for path in sorted(copy.files.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in keep:
            path.unlink()
    for path in (*copy.root.glob("state-*.db"), *filter(is_part, copy.root.iterdir())):
        if path.name != manifest.state.path:
            path.unlink()
