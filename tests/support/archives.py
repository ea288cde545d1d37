"""What the tests of sources write and ask: small contents, zip and tar files."""

import io
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from glam_deploy.archive.sources.base import Entry, Source
from glam_deploy.errors import InputError


def dicom(text: str) -> bytes:
    """Content that counts as DICOM, different for each text."""
    return bytes(128) + b"DICM" + text.encode()


def locations(source: Source) -> list[str]:
    return [entry.location for entry in source.entries()]


def contents(source: Source) -> dict[str, bytes]:
    """Location -> content, read by a copy of the source in its order, as a reader in another process does."""
    reader = pickle.loads(pickle.dumps(source))
    return {entry.location: reader.read(entry) for entry in source.entries()}


def reason(source: Source, entry: Entry) -> str:
    with pytest.raises(InputError) as caught:
        source.read(entry)
    return str(caught.value)


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: list[tuple[str, bytes]]) -> Path:
    kind = path.suffix[1:]
    with tarfile.open(path, "w:" if kind == "tar" else f"w:{'gz' if kind == 'tgz' else kind}") as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path
