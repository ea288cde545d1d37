"""Files and folders that are complete under their name, or absent, also after a loss of power."""

import os
import secrets
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is complete under its name, or absent; an earlier one then stays. Raises OSError.

    What is written to a device, a pipe or a link, such as /dev/stdout, goes there, and may be incomplete. Not
    synchronized: for results that a command can make again after a loss of power.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        path.write_bytes(content)
        return
    draft = path.with_name(f".{secrets.token_hex(12)}.part")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def move_into_place(part: Path, target: Path) -> None:
    """Rename a complete file or folder to `target`, so that after a power failure it is either complete or absent.

    Both must be on one file system, and the content must have been synchronized (`sync`). An existing file at `target`
    is replaced; an existing folder there must be empty. The parent folder of `target` is created if missing.
    """
    if not target.parent.is_dir():
        target.parent.mkdir(mode=0o700, exist_ok=True)
        sync(target.parent.parent)
    part.replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Synchronize a file's content, or a folder's entries, to the disk (fsync(2), "NOTES")."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Synchronize the content of the files in a folder, and its entries, to the disk (fsync)."""
    for path in (*folder.iterdir(), folder):
        sync(path)
